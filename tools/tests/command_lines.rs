//! The programs as people run them outside a view: command lines, messages and statuses.

use std::process::{Command, Output, Stdio};

/// Every tool, with a command line that is sound.
const TOOLS: &[(&str, &str, &[&str])] = &[
    ("vu_insmod", env!("CARGO_BIN_EXE_vu_insmod"), &["viewfs"]),
    ("vu_rmmod", env!("CARGO_BIN_EXE_vu_rmmod"), &["viewfs"]),
    ("vu_lsmod", env!("CARGO_BIN_EXE_vu_lsmod"), &[]),
    ("vumount", env!("CARGO_BIN_EXE_vumount"), &["-t", "viewfs", "-o", "cow", "/tmp", "/"]),
    ("vuumount", env!("CARGO_BIN_EXE_vuumount"), &["/"]),
    ("vusu", env!("CARGO_BIN_EXE_vusu"), &["-c", "id"]),
    ("vuname", env!("CARGO_BIN_EXE_vuname"), &["newname"]),
    ("vudebug", env!("CARGO_BIN_EXE_vudebug"), &["+s"]),
];

const UMVU: &str = env!("CARGO_BIN_EXE_umvu");

fn run(program: &str, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).stdin(Stdio::null()).env("HOME", "/nonexistent").output().unwrap()
}

fn complaint(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn outside_a_view_every_tool_says_so_and_fails() {
    for (name, program, arguments) in TOOLS {
        let output = run(program, arguments);
        let expected = format!("{name}: not inside a view: start one with 'umvu'\n");
        assert_eq!((complaint(&output), output.status.code()), (expected, Some(1)));
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn every_tool_has_help_and_a_version() {
    for (name, program, _) in TOOLS.iter().chain([&("umvu", UMVU, &[] as &[&str])]) {
        let help = run(program, &["--help"]);
        assert!(help.status.success() && help.stderr.is_empty(), "{name}");
        assert!(String::from_utf8(help.stdout).unwrap().contains(&format!("Usage: {name}")), "{name}");
        let version = run(program, &["--version"]);
        assert!(String::from_utf8(version.stdout).unwrap().starts_with(&format!("{name} ")), "{name}");
    }
}

#[test]
fn a_wrong_command_line_names_the_tool_and_is_status_2() {
    for (name, program, _) in TOOLS.iter().filter(|(name, ..)| *name != "vudebug") {
        let output = run(program, &["--no-such-option"]);
        assert!(complaint(&output).starts_with(&format!("{name}: unexpected argument '--no-such-option'")), "{name}");
        assert_eq!(output.status.code(), Some(2), "{name}");
    }
}

#[test]
fn outside_a_view_vuname_is_uname() {
    let program = env!("CARGO_BIN_EXE_vuname");
    for arguments in [&["-a"][..], &["-snrvm"], &[], &["-p", "-i", "-o"]] {
        assert_eq!(run(program, arguments).stdout, run("uname", arguments).stdout, "{arguments:?}");
    }
    assert_eq!(run(program, &["-P"]).stdout, run("uname", &["-n"]).stdout);
    let quiet = run(program, &["-x", "-q"]);
    assert_eq!((quiet.status.code(), complaint(&quiet).as_str()), (Some(1), ""));
}

#[test]
fn a_command_that_does_not_exist_is_127_and_one_that_cannot_run_is_126() {
    let missing = run(UMVU, &["no-such-command-here"]);
    assert_eq!(complaint(&missing), "umvu: no-such-command-here: command not found\n");
    assert_eq!(missing.status.code(), Some(127));
    let file = run(UMVU, &["/etc/passwd"]);
    assert_eq!(complaint(&file), "umvu: /etc/passwd: permission denied\n");
    assert_eq!(file.status.code(), Some(126));
}

#[test]
fn an_rc_file_that_does_not_exist_is_named() {
    let output = run(UMVU, &["-f", "/no/such/rc", "true"]);
    assert_eq!(complaint(&output), "umvu: /no/such/rc: no such file or directory\n");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_log_level_that_does_not_exist_is_refused() {
    let output = run(UMVU, &["-l", "8", "true"]);
    assert!(complaint(&output).contains("not 0 to 7"), "{}", complaint(&output));
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn full_standard_output_is_a_failure() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_vuname")).stdout(full).output().unwrap();
    assert_eq!(complaint(&output), "vuname: standard output: no space left on device\n");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn pages_and_completions_are_written_for_every_tool() {
    let prefix = std::env::temp_dir().join(format!("umvu-docs-{}", std::process::id()));
    let output = run(env!("CARGO_BIN_EXE_umvu-docs"), &[prefix.to_str().unwrap()]);
    assert!(output.status.success(), "{}", complaint(&output));
    for (name, ..) in TOOLS.iter().chain([&("umvu", UMVU, &[] as &[&str])]) {
        for file in [
            format!("share/man/man1/{name}.1"),
            format!("share/bash-completion/completions/{name}"),
            format!("share/zsh/site-functions/_{name}"),
            format!("share/fish/vendor_completions.d/{name}.fish"),
        ] {
            let text = std::fs::read_to_string(prefix.join(&file)).unwrap().replace("\\-", "-");
            assert!(text.contains(name), "{file}");
        }
    }
    std::fs::remove_dir_all(prefix).unwrap();
}
