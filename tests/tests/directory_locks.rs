//! flock(2) on directories: one lock for all who have the directory open, which ends with the last descriptor.

use umvu_tests::{behaviours, Runner};

behaviours! {
    from_outside at ANYONE {
        two_opens_of_a_directory_exclude_each_other,
        a_lock_of_a_directory_ends_with_its_last_descriptor,
        who_waits_for_a_directory_gets_it,
        a_signal_ends_the_wait_for_a_directory,
        directories_are_locked_apart,
    }
    from_outside at MOUNTING {
        a_bound_directory_is_locked_as_itself,
        a_directory_of_a_tmpfs_is_locked,
    }
}

fn two_opens_of_a_directory_exclude_each_other(r: &Runner) {
    let script = "mkdir d; exec 8<d 9<d
        flock -n 8; flock -n 9 || echo excluded; flock -s -n 9 || echo excluded
        flock -u 8; flock -n 9 && echo free; flock -u 9
        flock -s 8; flock -s -n 9 && echo shared; flock -x -n 9 || echo excluded
        flock -u 8; flock -x -n 9 && echo converted";
    assert_eq!(r.bash(script).line(), "excluded\nexcluded\nfree\nshared\nexcluded\nconverted");
}

fn a_lock_of_a_directory_ends_with_its_last_descriptor(r: &Runner) {
    let script = "mkdir d; exec 8<d 9<d; flock -n 8; exec 7<&8; exec 8<&-
        flock -n 9 || echo 'held by the duplicate'
        bash -c 'flock -n 7 && echo inherited'
        exec 7<&-; flock -n 9 && echo free
        exec 9<&-; flock d true; flock -n d echo 'free again'";
    assert_eq!(r.bash(script).line(), "held by the duplicate\ninherited\nfree\nfree again");
}

fn who_waits_for_a_directory_gets_it(r: &Runner) {
    let script = "mkdir d; exec 9<d; flock 9
        for i in 1 2 3; do flock d sh -c 'echo waited >> log' 9<&- & done
        echo released >> log; exec 9<&-; wait; cat log";
    assert_eq!(r.bash(script).line(), "released\nwaited\nwaited\nwaited");
    // In turn: a count that loses nothing.
    let count = "mkdir e; echo 0 > n
        turn() { for i in $(seq 50); do flock e sh -c 'n=$(cat n); echo $((n + 1)) > n'; done; }
        turn & turn & turn; wait; cat n";
    assert_eq!(r.bash(count).line(), "150");
}

fn a_signal_ends_the_wait_for_a_directory(r: &Runner) {
    let script = "mkdir d; exec 9<d; flock 9; flock -w 0.1 d true || echo \"gave up: $?\"";
    assert_eq!(r.bash(script).line(), "gave up: 1");
}

fn directories_are_locked_apart(r: &Runner) {
    let script = "mkdir a b a/sub; exec 8<a; flock -n 8; flock -n b echo b; flock -n a/sub echo sub
        mv a c; flock -n c true || echo moved; mkdir a; flock -n a echo new";
    assert_eq!(r.bash(script).line(), "b\nsub\nmoved\nnew");
}

fn a_bound_directory_is_locked_as_itself(r: &Runner) {
    let script = "mkdir a b; mount --bind a b; exec 8<a 9<b; flock -n 8; flock -n 9 || echo excluded
        flock -u 8; flock -n 9; flock -n 8 || echo excluded; exec 9<&-; flock -n 8 && echo free";
    assert_eq!(r.bash(script).line(), "excluded\nexcluded\nfree");
}

fn a_directory_of_a_tmpfs_is_locked(r: &Runner) {
    let script = "mkdir a; mount -t tmpfs none a; mkdir a/d; exec 8<a/d 9<a/d; flock -n 8; flock -n 9 || echo excluded
        exec 8<&-; flock -n 9 && echo free";
    assert_eq!(r.bash(script).line(), "excluded\nfree");
}
