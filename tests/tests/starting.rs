//! What a command is started with: streams, signals and limits of whoever started umvu, as without it.

use std::ffi::OsString;

use umvu_tests::runner::HANG;
use umvu_tests::{behaviours, watch, Runner};

behaviours! {
    from_outside at ORDINARY {
        closed_streams_stay_closed,
        ignored_signals_stay_ignored,
        a_parent_that_ignores_the_end_of_children_gets_the_status,
        blocked_signals_stay_blocked,
        few_descriptors_are_enough,
    }
}

/// Runs a command in the place from a shell outside that prepares it.
fn from(r: &Runner, prepared: &str, command: &[&str]) -> String {
    let mut line: Vec<OsString> = ["bash", "-c", prepared, "bash"].map(OsString::from).into();
    line.extend(r.command_line(command));
    watch::finish(r.outside(&line), &[], HANG).unwrap_or_else(|why| panic!("{why}")).line()
}

fn closed_streams_stay_closed(r: &Runner) {
    let which = "for n in 0 1 2; do [ ! -e /proc/$$/fd/$n ] || echo $n; done";
    assert_eq!(from(r, r#"exec "$@" <&- 2>&-"#, &["sh", "-c", which]), "1");
}

fn ignored_signals_stay_ignored(r: &Runner) {
    let ignored = |prepared: &str| {
        let line = from(r, prepared, &["grep", "SigIgn", "/proc/self/status"]);
        let set = line.rsplit('\t').next().and_then(|hex| u64::from_str_radix(hex, 16).ok()).expect("a set of signals");
        // Whoever runs the tests may ignore some of those that the C library keeps to itself.
        set & 0x7fff_ffff
    };
    assert_eq!(ignored(r#"trap '' CHLD PIPE USR1; exec "$@""#), 0x11200);
    assert_eq!(ignored(r#"exec "$@""#), 0);
}

fn a_parent_that_ignores_the_end_of_children_gets_the_status(r: &Runner) {
    assert_eq!(from(r, r#"trap '' CHLD; "$@"; echo $?"#, &["sh", "-c", "exit 5"]), "5");
}

fn blocked_signals_stay_blocked(r: &Runner) {
    let python = "import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGCHLD, \
                  signal.SIGTERM, signal.SIGALRM]); os.execvp(sys.argv[1], sys.argv[1:])";
    let prepared = format!("exec python3 -c '{python}' \"$@\"");
    let blocked = from(r, &prepared, &["grep", "SigBlk", "/proc/self/status"]);
    assert_eq!(blocked, "SigBlk:\t0000000000016200");
}

fn few_descriptors_are_enough(r: &Runner) {
    assert_eq!(from(r, r#"ulimit -n 24; exec "$@""#, &["sh", "-c", "ulimit -n; ulimit -Hn"]), "24\n24");
}
