//! The doors that a view keeps shut: the x32 entry, io_uring, calls that hand out what was
//! never looked at, and the marks that the supervisor reads.

use umvu_tests::{behaviours, program, Runner};

behaviours! {
    from_outside at INSIDE {
        the_x32_entry_is_refused,
        io_uring_and_unknown_calls_are_refused,
        file_handles_do_not_open_files,
        a_guest_cannot_see_the_supervisor,
        paths_changed_by_another_thread_do_not_slip,
    }
    from_outside at EVERYWHERE {
        a_file_of_the_host_has_its_handle,
        an_undumpable_process_goes_on_working,
        a_guests_own_filter_works,
        a_call_that_a_tracer_skips_is_skipped_in_silence,
        vfork_and_friends_work,
        two_hundred_threads_work_at_once,
        many_processes_at_once_work,
        signals_in_the_middle_of_calls_lose_nothing,
        every_call_runs_once,
    }
}

fn the_x32_entry_is_refused(r: &Runner) {
    assert_eq!(r.run([program("entries").as_os_str(), "x32".as_ref()]).line(), "refused");
}

fn io_uring_and_unknown_calls_are_refused(r: &Runner) {
    assert_eq!(r.run([program("entries").as_os_str(), "io_uring".as_ref()]).line(), "refused");
}

fn file_handles_do_not_open_files(r: &Runner) {
    assert_eq!(r.run([program("file_handles")]).line(), "EPERM");
}

/// As overlayfs, a union has none.
fn a_file_of_the_host_has_its_handle(r: &Runner) {
    let told = r.run([program("file_handles").as_os_str(), "all".as_ref()]).line();
    let made = "made its mount EOVERFLOW EINVAL EFAULT";
    let expected = if r.place().is_union() { "EOPNOTSUPP EOPNOTSUPP EOPNOTSUPP EOPNOTSUPP" } else { made };
    assert_eq!(told, expected);
}

fn a_guest_cannot_see_the_supervisor(r: &Runner) {
    let seen = r
        .bash(
            "ls -l /proc/self/fd /proc/$$/fd | grep -v -e total -e ^/ | grep -c -i -e seccomp -e 'anon_inode' || true",
        )
        .line();
    assert_eq!(seen, "0");
    let maps = r.bash("grep -c -i umvu /proc/self/maps || true").line();
    assert_eq!(maps, "0");
}

/// A second thread rewrites the path while calls that judge it are under way.
fn paths_changed_by_another_thread_do_not_slip(r: &Runner) {
    let told = r.run([program("racing_paths")]).line();
    assert_eq!(told, "every file was one of the two");
}

fn an_undumpable_process_goes_on_working(r: &Runner) {
    assert_eq!(r.run([program("undumpable")]).line(), "works undumpable");
}

/// The tracer puts a number there that no call has.
fn a_call_that_a_tracer_skips_is_skipped_in_silence(r: &Runner) {
    let script = "echo > kept; strace -f -o /dev/null -e inject=unlink,unlinkat:retval=0 rm kept 2>&1; ls";
    let finished = r.bash(script);
    // The log goes to umvu's own.
    assert_eq!(String::from_utf8_lossy(&finished.stderr), "");
    assert_eq!(finished.line(), "kept");
}

fn a_guests_own_filter_works(r: &Runner) {
    assert_eq!(r.run([program("own_filter")]).line(), "filtered");
}

fn vfork_and_friends_work(r: &Runner) {
    assert_eq!(r.run([program("forks")]).line(), "all children returned their number");
}

fn two_hundred_threads_work_at_once(r: &Runner) {
    assert_eq!(r.run([program("threads"), "200".into()]).line(), "200 threads made and removed their files");
}

fn many_processes_at_once_work(r: &Runner) {
    let script = "for i in $(seq 1000); do (exec sleep 3) & done; wait; echo all; for i in $(seq 200); do /bin/true & done; wait; echo again";
    assert_eq!(r.bash(script).line(), "all\nagain");
}

fn signals_in_the_middle_of_calls_lose_nothing(r: &Runner) {
    assert_eq!(r.run([program("stormy_calls")]).line(), "nothing lost");
}

/// mkdir is not idempotent: a call that a signal made run twice would be EEXIST.
fn every_call_runs_once(r: &Runner) {
    assert_eq!(r.run([program("stormy_calls").as_os_str(), "mkdir".as_ref()]).line(), "nothing lost");
}
