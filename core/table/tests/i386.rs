//! The calls of 32-bit programs against the kernel's header and the x86_64 table.

use std::fs;

use umvu_table::i386::{row, row_of, Abi, Form, Meaning, Word, ROWS};
use umvu_table::{trace, Condition, Tier};

fn find(name: &str) -> &'static umvu_table::i386::Row {
    ROWS.iter().find(|row| row.name == name).expect("the call has a row")
}

#[test]
fn every_call_of_the_installed_headers_has_a_row() {
    for path in ["/usr/include/x86_64-linux-gnu/asm/unistd_32.h", "/usr/include/asm/unistd_32.h"] {
        let Ok(text) = fs::read_to_string(path) else { continue };
        let mut known = 0;
        for line in text.lines().filter_map(|line| line.strip_prefix("#define __NR_")) {
            let Some((name, number)) = line.split_once(' ') else { continue };
            let number = number.parse().unwrap_or_else(|error| panic!("{path}: {line}: {error}"));
            assert_eq!(row(number).map(|row| row.name), Some(name), "{path}: {number}");
            known += 1;
        }
        assert!(known > 400, "{path}: only {known} calls were understood, so this test would prove nothing");
    }
}

#[test]
fn numbers_ascend_and_names_are_unique() {
    for pair in ROWS.windows(2) {
        assert!(pair[0].number < pair[1].number, "{} does not follow {}", pair[1].name, pair[0].name);
    }
    let mut names: Vec<_> = ROWS.iter().map(|row| row.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), ROWS.len());
}

#[test]
fn calls_of_x86_64_that_rows_name_exist() {
    for row in ROWS {
        match row.meaning {
            Meaning::Call { name, .. } => assert_eq!(row.call().map(|call| call.name), Some(name), "{}", row.name),
            Meaning::Multiplexed(calls) => {
                for (value, name) in calls {
                    assert_eq!(row.multiplexed(*value).map(|call| call.name), Some(*name), "{}", row.name);
                }
            }
            Meaning::Native | Meaning::Refused(_) => {}
        }
    }
}

#[test]
fn the_newest_calls_have_the_numbers_of_x86_64() {
    for call in umvu_table::ROWS.iter().filter(|call| call.number >= 424) {
        assert_eq!(row(call.number).map(|row| row.name), Some(call.name), "{}", call.number);
    }
}

/// A row that leaves a call to the kernel says that no handler knows its structures: where x86_64 programs have the call
/// answered, 32-bit ones must have it answered too, and its handler must look at [`Abi`].
#[test]
fn no_call_is_native_that_is_answered_for_64_bit_programs() {
    for row in ROWS.iter().filter(|row| row.meaning == Meaning::Native) {
        let plain = row.name.trim_end_matches("_time64").trim_end_matches("64").trim_start_matches("_new");
        for name in [row.name, plain] {
            let namesake = umvu_table::ROWS.iter().find(|call| call.name == name);
            let is_notified = namesake.is_some_and(|call| matches!(call.tier, Tier::Notify(_)));
            assert!(!is_notified, "{} is native, {name} is not", row.name);
        }
    }
}

#[test]
fn every_call_that_x86_64_has_answered_can_be_made_by_32_bit_programs() {
    for call in umvu_table::ROWS.iter().filter(|call| matches!(call.tier, Tier::Notify(_))) {
        let found = row_of(call.number).or_else(|| ROWS.iter().find(|row| row.name == call.name));
        assert!(found.is_some(), "{}", call.name);
    }
}

#[test]
fn tiers_are_those_of_the_x86_64_calls() {
    assert_eq!(find("read").tier(), Tier::Allow);
    assert_eq!(find("mmap2").tier(), Tier::Allow);
    assert_eq!(find("oldstat").tier(), Tier::Notify(Condition::Always));
    assert!(matches!(find("io_uring_setup").tier(), Tier::Refuse(38, _)));
    assert!(matches!(find("vm86").tier(), Tier::Refuse(38, reason) if !reason.is_empty()));
    assert_eq!(find("prlimit64").tier(), Tier::Notify(Condition::In(1, &[10])));
    let Tier::Notify(Condition::In(0, values)) = find("socketcall").tier() else { panic!("socketcall is notified") };
    for (value, is_notified) in [(1, false), (2, true), (3, true), (10, false), (11, true), (16, true), (17, false)] {
        assert_eq!(values.contains(&value), is_notified, "{value}");
    }
}

#[test]
fn words_become_the_arguments_of_the_x86_64_call() {
    let words = [1, 2, 3, 4, 5, 6];
    assert_eq!(find("openat").arguments(&words), [1, 2, 3, 4, 5, 6]);
    assert_eq!(find("truncate64").arguments(&words), [1, 2 | 3 << 32, 0, 0, 0, 0]);
    assert_eq!(find("fanotify_mark").arguments(&words), [1, 2, 3 | 4 << 32, 5, 6, 0]);
    assert_eq!(find("umount").arguments(&words), [1, 0, 0, 0, 0, 0]);
    assert_eq!(find("clone").arguments(&words), [1, 2, 3, 5, 4, 0]);
}

#[test]
fn old_offsets_are_signed_and_old_ids_are_short() {
    let all = [u32::MAX; 6];
    assert_eq!(find("truncate").arguments(&all)[1], u64::MAX);
    assert_eq!(find("truncate64").arguments(&all)[1], u64::MAX);
    assert_eq!(find("open").arguments(&all)[1], u64::from(u32::MAX));
    let words = [0x10000, 0xffff, 0x1_0005, 0, 0, 0];
    assert_eq!(find("chown").arguments(&words)[..3], [0x10000, u64::from(u32::MAX), 5]);
    assert_eq!(find("chown32").arguments(&words)[..3], [0x10000, 0xffff, 0x1_0005]);
}

#[test]
fn a_call_is_made_with_the_words_that_mean_it() {
    for name in ["openat", "execve", "connect", "sendto", "sendmsg", "sendmmsg", "clone", "fanotify_mark"] {
        let call = umvu_table::ROWS.iter().find(|call| call.name == name).expect("the call has a row");
        let row = row_of(call.number).expect("32-bit programs have it");
        let mut arguments = [11, 12, 13, 14, 15, 16];
        arguments[call.arguments.len()..].fill(0);
        let words = row.registers(&arguments).expect("small numbers fit");
        assert_eq!(row.arguments(&words), arguments, "{name}");
    }
    assert_eq!(find("connect").registers(&[3, 1 << 32, 110, 0, 0, 0]), None);
    assert_eq!(row_of(59).map(|row| row.number), Some(11));
    assert_eq!(row_of(262).map(|row| row.name), Some("fstatat64"));
}

#[test]
fn no_argument_is_left_out_and_no_word_is_taken_twice() {
    for row in ROWS {
        let Meaning::Call { words: Some(words), .. } = row.meaning else { continue };
        let mut taken: Vec<u8> = words
            .iter()
            .flat_map(|word| match word {
                Word::One(at) => vec![*at],
                Word::Two(low, high) => vec![*low, *high],
            })
            .collect();
        taken.sort_unstable();
        assert!(taken.iter().all(|at| *at < 6), "{}", row.name);
        let count = taken.len();
        taken.dedup();
        assert_eq!(taken.len(), count, "{}", row.name);
    }
}

#[test]
fn the_trace_marks_calls_of_32_bit_programs() {
    let memory = |address: u64, buffer: &mut [u8]| {
        let bytes = [0x1000c_u32.to_ne_bytes(), 0_u32.to_ne_bytes(), [0; 4], *b"ls\0."].concat();
        let there = bytes.get(usize::try_from(address.checked_sub(0x10000)?).ok()?..)?;
        let length = there.len().min(buffer.len());
        buffer[..length].copy_from_slice(&there[..length]);
        Some(length)
    };
    let line = |name: &str, words: [u32; 6]| {
        let row = find(name);
        let call = row.call().expect("it is a call");
        trace::call_of_i386(row.name, Abi::I386(Form::Wide), call, &row.arguments(&words), &memory, None)
    };
    assert_eq!(line("stat64", [0x1000c, 0x20000, 0, 0, 0, 0]), r#"i386:stat64("ls", 0x20000)"#);
    assert_eq!(
        line("execve", [0x1000c, 0x10000, 0x10004, 0, 0, 0]),
        r#"i386:execve("ls", ["ls"], 0x10004 /* 0 vars */)"#
    );
}
