//! 32-bit programs: the calls of their own table, in every form that it has had, and programs that mix both kinds.
//! Each fact is checked by a program that is linked with shared libraries and by one that is not.

use umvu_tests::{behaviours, program, program_for_i386, Linking, Runner};

macro_rules! facts {
    ($($program:literal at $places:ident { $($fact:ident),* $(,)? })*) => {
        behaviours! {
            $(from_outside at $places if umvu_tests::program::has_i386_compiler { $($fact),* })*
            from_outside at ANYONE if umvu_tests::program::has_i386_compiler {
                threads_of_both_kinds_find_their_files,
                a_64_bit_program_may_call_by_the_32_bit_table,
            }
            from_outside at ROOT if umvu_tests::program::has_i386_compiler {
                a_root_of_their_own_is_enough,
                a_program_of_another_root_is_told_the_truth,
                a_program_of_another_root_is_a_debuggers,
            }
            from_outside at PLAIN_ROOT if umvu_tests::program::has_i386_compiler { a_program_of_an_archive_runs }
            from_outside at PLAIN if umvu_tests::program::has_i386_compiler { the_trace_shows_their_calls }
        }

        $($(fn $fact(r: &Runner) {
            holds(r, $program, stringify!($fact));
        })*)*
    };
}

facts! {
    "status" at ANYONE {
        stat_forms_agree,
        large_sizes_are_eoverflow,
        statfs_forms_agree,
        bad_pointers_are_efault,
    }
    "tree" at ANYONE {
        names_are_made_and_removed,
        directories_are_read_by_each_form,
        positions_in_directories_are_kept,
        the_working_directory_is_told,
        times_are_set_by_each_form,
        attributes_are_kept,
        changes_are_watched,
        a_mask_of_two_words_marks,
    }
    "ids" at ANYONE {
        ids_agree,
        names_of_the_system_agree,
        limits_agree,
        a_process_asks_about_itself,
    }
    "ids" at ROOT {
        root_becomes_others,
        root_gives_files_away,
    }
    "sockets" at ANYONE {
        streams_connect_by_socketcall,
        streams_connect_by_calls_of_their_own,
        datagrams_are_sent_to_names,
        descriptors_are_passed,
        waiting_ends_with_a_signal,
        both_ends_of_a_fifo_meet,
        descriptors_of_paths_are_given,
    }
    "programs" at ANYONE {
        programs_of_64_bits_run_and_return,
        copies_of_programs_run,
        scripts_run,
        open_programs_run,
        spawned_programs_run,
        what_cannot_run_is_told,
        many_arguments_are_passed,
        the_process_shows_its_program,
    }
}

/// Runs the program that checks a fact, in both forms, each in a directory of its own.
fn holds(r: &Runner, name: &str, fact: &str) {
    for linking in [Linking::Dynamic, Linking::Static] {
        let program = program_for_i386(name, linking);
        let script = r#"mkdir "$0" && cd "$0" && exec "$@""#;
        let dir = format!("{linking:?}");
        let words = ["sh".as_ref(), "-ec".as_ref(), script.as_ref(), dir.as_ref(), program.as_os_str(), fact.as_ref()];
        assert_eq!(r.run(words).line(), "so it is", "{linking:?}");
    }
}

fn threads_of_both_kinds_find_their_files(r: &Runner) {
    holds(r, "sockets", "threads_work_at_once");
    assert_eq!(r.run([program("threads"), "20".into()]).line(), "20 threads made and removed their files");
}

fn a_64_bit_program_may_call_by_the_32_bit_table(r: &Runner) {
    let script = r#"echo only here > only; exec "$0" only"#;
    let program = program("int80");
    assert_eq!(r.run(["sh".as_ref(), "-ec".as_ref(), script.as_ref(), program.as_os_str()]).line(), "by its own table");
}

fn the_trace_shows_their_calls(r: &Runner) {
    let program = program_for_i386("status", Linking::Static);
    let script = r#"umvu -N --trace=trace -- "$0" bad_pointers_are_efault >/dev/null; grep -c 'i386:stat64("missing", 0x8)' trace"#;
    assert_eq!(r.outside_text(&["sh", "-ec", script, &program.display().to_string()]), "1");
}

/// A root with a loader where the host has none, and a library of its own.
fn a_root_of_their_own_is_enough(r: &Runner) {
    let dynamic = program_for_i386("programs", Linking::Dynamic);
    let fixed = program_for_i386("programs", Linking::Static);
    let script = r#"mkdir -p root/own root/lib32 root/bin; cp /lib/ld-linux.so.2 root/own/ld-linux.so.2; cp /lib32/libc.so.6 root/lib32/
        cp "$1" root/bin/static; sed 's,/lib/ld-linux.so.2,/own/ld-linux.so.2,' < "$0" > root/bin/dynamic; chmod +x root/bin/*
        chroot root /bin/static nothing_is_asked; cd root; chroot . bin/dynamic nothing_is_asked; chroot . bin/dynamic copies_of_programs_run"#;
    let words = ["bash".as_ref(), "-euc".as_ref(), script.as_ref(), dynamic.as_os_str(), fixed.as_os_str()];
    assert_eq!(r.run(words).line(), "so it is\nso it is\nso it is");
}

/// Makes such a root, with the program `$0` in it as `/bin/program`.
const ROOT: &str = r#"mkdir -p root/own root/lib32 root/bin root/proc; cp /lib/ld-linux.so.2 root/own; cp /lib32/libc.so.6 root/lib32
    sed 's,/lib/ld-linux.so.2,/own/ld-linux.so.2,' < "$0" > root/bin/program; chmod +x root/bin/program
"#;

fn in_root(r: &Runner, program: &std::path::Path, script: &str) -> String {
    let script = format!("{ROOT}{script}");
    r.run(["bash".as_ref(), "-euc".as_ref(), script.as_ref(), program.as_os_str()]).line()
}

fn a_program_of_another_root_is_told_the_truth(r: &Runner) {
    // Also by a path that is longer than any of the host's to it, as an interpreter, and traced.
    let long = "/bin/".to_owned() + &"./".repeat(500) + "program";
    let script = format!(
        r#"mount --rbind /proc root/proc; chroot root /bin/program /bin/program
        chroot root {long} /bin/program {long}; printf '#!/bin/program /bin/program\n' > root/script; chmod +x root/script
        chroot root /script; strace -f -o log chroot root /bin/program /bin/program; grep -c 'exited with 0' log"#
    );
    let truth = "told the truth\n".repeat(4);
    assert_eq!(in_root(r, &program_for_i386("told", Linking::Dynamic), &script), truth + "1");
}

fn a_program_of_another_root_is_a_debuggers(r: &Runner) {
    let script = r#"gdb -nx -batch -ex 'set debuginfod enabled off' -ex 'set breakpoint pending on' \
        -ex 'break main' -ex run -ex 'info proc exe' --args chroot root /bin/program 2>&1 |
        grep -E -o '^Breakpoint 1, |/bin/program.$' | sed "s|.*/bin|bin|""#;
    let told = in_root(r, &program_for_i386("told", Linking::Dynamic), script);
    assert_eq!(told, "Breakpoint 1, \nbin/program'");
}

fn a_program_of_an_archive_runs(r: &Runner) {
    let script = r#"tar -C root -czf root.tar.gz .; rm -r root; umvu -N -r root.tar.gz /bin/program nothing_is_asked
        umvu -N -r root.tar.gz --throw-away /bin/program copies_of_programs_run"#;
    let told = in_root(r, &program_for_i386("programs", Linking::Dynamic), script);
    assert_eq!(told, "so it is\nso it is");
}
