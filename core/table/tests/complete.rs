//! The table against what others know of the kernel's calls: the newest bindings, the `syscalls` crate, installed headers.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use umvu_table::{row, Condition, Kind, Tier, ROWS};

/// Rows with a file name that the kernel may judge by itself, each with the reason why that is right.
const NATIVE_PATHS: &[(&str, &str)] = &[];

/// Fails, naming every call that the table lacks or names otherwise.
fn assert_declared(source: &str, calls: impl IntoIterator<Item = (u32, String)>) {
    let mut known = 0;
    let mut wrong = Vec::new();
    for (number, name) in calls {
        known += 1;
        match row(number) {
            Some(row) if row.name == name => {}
            Some(row) => wrong.push(format!("{number} is {name}, the table says {}", row.name)),
            None => wrong.push(format!("{number} {name} has no row")),
        }
    }
    assert!(known > 300, "{source}: only {known} calls were understood, so this test would prove nothing");
    assert!(wrong.is_empty(), "{source}: {}", wrong.join("; "));
}

/// Reads `NAME NUMBER` pairs that follow the prefix, one per line, whatever punctuation stands between.
fn numbers(text: &str, prefix: &str) -> Vec<(u32, String)> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix(prefix))
        .filter_map(|rest| {
            let (name, value) = rest.split_once(|c: char| !c.is_ascii_alphanumeric() && c != '_')?;
            let value = value.trim_end_matches(';').rsplit(' ').next()?;
            Some((value.parse().ok()?, name.to_owned()))
        })
        .collect()
}

/// Asks cargo where the bindings' source is, or `None` where there is no cargo to ask.
fn bindings_directory() -> Option<PathBuf> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into());
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let output = match Command::new(cargo)
        .args(["metadata", "--offline", "--format-version=1"])
        .args(["--filter-platform=x86_64-unknown-linux-gnu", "--manifest-path"])
        .arg(manifest)
        .output()
    {
        Ok(output) => output,
        Err(error) => {
            eprintln!("skipped: cargo cannot be asked for the source of linux-raw-sys: {error}");
            return None;
        }
    };
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("cargo metadata is UTF-8");
    let (_, package) =
        text.split_once(r#""name":"linux-raw-sys","version":"#).expect("cargo metadata names linux-raw-sys");
    let (_, path) = package.split_once(r#""manifest_path":""#).expect("a package has a manifest");
    let (path, _) = path.split_once('"').expect("a JSON string ends");
    Some(Path::new(path).parent().expect("a manifest is in a directory").to_owned())
}

#[test]
fn every_call_of_the_newest_bindings_has_a_row() {
    let Some(directory) = bindings_directory() else { return };
    let path = directory.join("src/x86_64/general.rs");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_declared("linux-raw-sys", numbers(&text, "pub const __NR_"));
}

#[test]
fn every_call_of_the_syscalls_crate_has_a_row() {
    let calls = syscalls::Sysno::iter();
    assert_declared(
        "syscalls",
        calls.map(|call| (u32::try_from(call.id()).expect("a number is not negative"), call.name().to_owned())),
    );
}

#[test]
fn every_call_of_the_installed_headers_has_a_row() {
    for path in ["/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "/usr/include/asm/unistd_64.h"] {
        if let Ok(text) = fs::read_to_string(path) {
            assert_declared(path, numbers(&text, "#define __NR_"));
        }
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
fn no_row_has_more_than_six_arguments() {
    for row in ROWS {
        assert!(row.arguments.len() <= 6, "{}", row.name);
    }
}

#[test]
fn a_call_that_takes_a_path_is_never_native() {
    for row in ROWS {
        let judged = row
            .arguments
            .iter()
            .any(|(_, kind)| matches!(kind, Kind::Path | Kind::DirFd | Kind::OpenHow | Kind::SocketAddress));
        let excepted = NATIVE_PATHS.iter().any(|(name, _)| *name == row.name);
        assert_eq!(judged && row.tier == Tier::Allow, excepted, "{}", row.name);
    }
}

#[test]
fn a_buffer_is_followed_by_its_length() {
    for row in ROWS {
        for (index, (name, kind)) in row.arguments.iter().enumerate() {
            if matches!(kind, Kind::Buffer | Kind::OutBuffer | Kind::SocketAddress | Kind::OpenHow) {
                let length = row.arguments.get(index + 1).map(|(_, kind)| *kind);
                assert!(
                    matches!(length, Some(Kind::Size | Kind::IntSize | Kind::U32)),
                    "{}: {name} is followed by {length:?}",
                    row.name
                );
            }
        }
    }
}

#[test]
fn a_condition_names_an_argument_of_its_row() {
    for row in ROWS {
        if let Tier::Notify(Condition::NonNull(index) | Condition::In(index, _) | Condition::AnyBits(index, _)) =
            row.tier
        {
            assert!(usize::from(index) < row.arguments.len(), "{}", row.name);
        }
    }
}

#[test]
fn the_upper_half_of_an_int_does_not_hide_a_call() {
    let Some(Tier::Notify(condition)) = row(157).map(|row| row.tier) else { panic!("prctl is notified") };
    assert!(condition.holds(&[4, 0, 0, 0, 0, 0]));
    assert!(condition.holds(&[4 | 1 << 32, 0, 0, 0, 0, 0]));
    assert!(!condition.holds(&[15, 0, 0, 0, 0, 0]));
}

#[test]
fn conditions_hold_for_what_they_are_about() {
    use linux_raw_sys::general as g;
    use linux_raw_sys::prctl as p;
    let notified = |name: &str, index: usize, value: u32| {
        let row = ROWS.iter().find(|row| row.name == name).expect("the call has a row");
        let mut arguments = [0; 6];
        arguments[index] = u64::from(value);
        matches!(row.tier, Tier::Notify(condition) if condition.holds(&arguments))
    };
    for option in [
        p::PR_SET_DUMPABLE,
        p::PR_GET_DUMPABLE,
        p::PR_SET_SECUREBITS,
        p::PR_GET_SECUREBITS,
        p::PR_SET_KEEPCAPS,
        p::PR_GET_KEEPCAPS,
        p::PR_CAP_AMBIENT,
        p::PR_CAPBSET_READ,
        p::PR_CAPBSET_DROP,
    ] {
        assert!(notified("prctl", 0, option), "prctl {option}");
    }
    assert!(!notified("prctl", 0, p::PR_SET_NAME));
    // The loader tells the kernel by it; the one part that names a file takes a capability of the host's.
    assert!(!notified("prctl", 0, p::PR_SET_MM));
    for flag in [
        g::CLONE_NEWNS,
        g::CLONE_NEWCGROUP,
        g::CLONE_NEWUTS,
        g::CLONE_NEWIPC,
        g::CLONE_NEWUSER,
        g::CLONE_NEWPID,
        g::CLONE_NEWNET,
    ] {
        assert!(notified("clone", 0, flag), "clone {flag:#x}");
    }
    assert!(!notified("clone", 0, g::CLONE_VM | g::CLONE_VFORK | g::CLONE_THREAD | g::SIGCHLD));
    for (name, index) in [("getrlimit", 0), ("setrlimit", 0), ("prlimit64", 1)] {
        assert!(notified(name, index, g::RLIMIT_LOCKS), "{name}");
        assert!(!notified(name, index, g::RLIMIT_NOFILE), "{name}");
    }
    assert!(notified("fcntl", 1, 10), "F_SETSIG");
    assert!(notified("fcntl", 1, 11), "F_GETSIG");
    assert!(!notified("fcntl", 1, g::F_GETFD));
    assert!(notified("sendto", 4, 0x1000));
    assert!(!notified("sendto", 0, 3));
}
