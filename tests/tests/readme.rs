//! The example of README.md, typed word for word as it is printed there.

use std::fs;
use std::os::unix::fs::MetadataExt;

use umvu_tests::{behaviours, Runner, Terminal};

behaviours! {
    from_outside at NATIVE {
        the_example_does_what_is_printed,
    }
    from_outside at ONLINE {
        the_example_installs_a_package,
    }
}

const README: &str = include_str!("../../README.md");

/// A line that is typed, and those that answer it.
struct Step {
    command: &'static str,
    answer: Vec<&'static str>,
    /// Who is asked next: the user, or root.
    next: Option<&'static str>,
}

/// Reads the example: indented lines, those to type behind `$` or `#`.
fn example() -> Vec<Step> {
    let section = README.split("\n## An example\n").nth(1).expect("the section");
    let lines =
        section.lines().skip_while(|line| !line.starts_with("    ")).take_while(|line| line.starts_with("    "));
    let mut steps: Vec<Step> = Vec::new();
    for line in lines.map(str::trim_start) {
        match line.split_at_checked(2) {
            Some((prompt @ ("$ " | "# "), command)) => {
                if let Some(before) = steps.last_mut() {
                    before.next = Some(prompt);
                }
                steps.push(Step { command, answer: Vec::new(), next: None });
            }
            _ => steps.last_mut().expect("an answer follows a command").answer.push(line),
        }
    }
    steps
}

/// Types it all; `wanted` says which commands.
fn type_example(r: &Runner, wanted: impl Fn(&str) -> bool) {
    let hosts = fs::metadata("/etc/hosts").expect("a file of every system");
    let mut shell = Terminal::start(r, &["sh"]);
    shell.expect("$ ");
    let steps = example();
    assert!(steps.len() >= 8, "the example is all there");
    for step in steps.iter().filter(|step| wanted(step.command)) {
        shell.send(format!("{}\n", step.command).as_bytes());
        // The last words are enough of the echo: what edits lines may break long ones.
        let start = step.command.len().saturating_sub(12);
        shell.expect(&step.command[start..]);
        if step.command.contains("apt-get update") {
            // Each may take its time.
            shell.expect("Reading package lists");
            shell.expect("Hello, world!");
        }
        for line in &step.answer {
            shell.expect(&format!("{line}\r\n"));
        }
        if let Some(prompt) = step.next {
            shell.expect(prompt);
        }
    }
    // The last `exit` was that of the view.
    shell.expect("$ ");
    shell.send(b"exit\n");
    assert!(shell.wait().success());
    let after = fs::metadata("/etc/hosts").expect("a file of every system");
    assert_eq!((after.uid(), after.ctime_nsec()), (hosts.uid(), hosts.ctime_nsec()), "the host is as before");
    assert!(!fs::exists("/dev/x").expect("a directory of every system"));
}

/// What is in the directory that keeps the changes, by another view of it.
fn again(r: &Runner, question: &str) -> String {
    let script = format!(
        "umvu -N -m viewfs,unrealuid sh -c 'vumount -t viewfs -o cow ~/upper / && exec vusu -s /bin/sh root -c \"{question}\"'"
    );
    r.bash(&script).line()
}

fn the_example_does_what_is_printed(r: &Runner) {
    type_example(r, |command| !command.contains("apt-get"));
    let found = again(r, "stat -c %u:%g /etc/hosts; stat -c %F /dev/x; ls -d /usr/share/doc 2> /dev/null; true");
    assert_eq!(found, "33:33\ncharacter special file");
}

fn the_example_installs_a_package(r: &Runner) {
    type_example(r, |_| true);
    assert_eq!(again(r, "hello"), "Hello, world!");
}
