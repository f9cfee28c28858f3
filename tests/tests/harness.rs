//! The harness itself: what it must notice, and that it notices.

use std::time::Duration;

use umvu_tests::{behaviours, program, watch, Runner};

behaviours! {
    in_guest at EVERYWHERE {
        the_guest_starts_in_a_fresh_directory_with_one_thread,
    }
    from_outside at NATIVE {
        a_command_that_hangs_is_killed_with_its_children,
        the_deny_filter_denies_mounts_and_namespaces,
    }
}

fn the_guest_starts_in_a_fresh_directory_with_one_thread() {
    let here = std::env::current_dir().expect("getcwd");
    assert!(here.ends_with("work"), "{}", here.display());
    assert_eq!(std::fs::read_dir(".").expect("readdir").count(), 0);
    assert_eq!(std::fs::read_dir("/proc/self/task").expect("readdir").count(), 1);
    std::fs::write("file", "contents").expect("a directory to write in");
}

fn a_command_that_hangs_is_killed_with_its_children(r: &Runner) {
    let command = r.command(["sh", "-c", "sleep 1000 & sleep 1000"]);
    let hung = watch::finish(command, &[], Duration::from_millis(200)).expect_err("a hang");
    // A survivor would hold the output open, which is another error.
    assert!(hung.contains("hung for 200ms"), "{hung}");
}

fn the_deny_filter_denies_mounts_and_namespaces(r: &Runner) {
    let denied = program("denied");
    let filter = env!("CARGO_BIN_EXE_deny-filter");
    assert_eq!(r.run([filter.as_ref(), denied.as_os_str()]).line(), "all denied");
}
