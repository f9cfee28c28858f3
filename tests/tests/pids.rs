//! Pid namespaces: what is numbered anew in them, who takes in orphans, which signals reach an init, what its end ends.

use umvu_tests::{behaviours, program, Runner};

behaviours! {
    from_outside at NUMBERING {
        the_first_child_is_one_and_others_know_it_as_that,
        an_init_leads_its_session,
        orphans_become_children_of_init,
        signals_reach_an_init_only_where_it_has_a_handler,
        a_signal_to_all_spares_init_and_who_sends_it,
        a_namespace_is_unshared_once_and_ends_with_its_init,
        a_cloned_init_leaves_its_parent_where_it_is,
        namespaces_stand_in_each_other,
        the_end_of_init_ends_all,
        a_procfs_shows_the_processes_of_its_namespace,
        a_procfs_that_was_there_before_shows_all,
        a_namespace_is_entered_for_children,
        a_namespace_whose_init_has_ended_cannot_be_forked_into,
        a_shell_as_init_has_job_control,
    }
    from_outside at PLAIN {
        without_the_option_there_are_none_and_the_log_says_how,
    }
}

fn program_says_nothing(runner: &Runner, what: &str) {
    let program = program("pids");
    assert_eq!(runner.run([program.as_os_str(), what.as_ref()]).line(), "");
}

fn the_first_child_is_one_and_others_know_it_as_that(runner: &Runner) {
    program_says_nothing(runner, "numbers");
    assert_eq!(runner.bash("unshare --fork --pid sh -c 'echo $$'").line(), "1");
}

fn an_init_leads_its_session(runner: &Runner) {
    program_says_nothing(runner, "session");
}

fn orphans_become_children_of_init(runner: &Runner) {
    program_says_nothing(runner, "orphans");
}

fn signals_reach_an_init_only_where_it_has_a_handler(runner: &Runner) {
    program_says_nothing(runner, "signals");
}

fn a_signal_to_all_spares_init_and_who_sends_it(runner: &Runner) {
    program_says_nothing(runner, "all");
}

fn a_namespace_is_unshared_once_and_ends_with_its_init(runner: &Runner) {
    program_says_nothing(runner, "experiments");
}

fn a_cloned_init_leaves_its_parent_where_it_is(runner: &Runner) {
    program_says_nothing(runner, "cloned");
}

fn namespaces_stand_in_each_other(runner: &Runner) {
    program_says_nothing(runner, "nested");
}

fn the_end_of_init_ends_all(runner: &Runner) {
    // The pipe is at its end when the sleeper, too, has let go of it.
    let finished = runner.bash("unshare --fork --pid sh -c 'sleep 1000 & exit 3' | cat; echo ${PIPESTATUS[0]}");
    assert_eq!(String::from_utf8_lossy(&finished.stdout), "");
    let finished = runner.bash("{ unshare --fork --pid sh -c 'sleep 1000 & exit 3' || echo $?; } | cat");
    assert_eq!(finished.line(), "3");
}

fn a_procfs_shows_the_processes_of_its_namespace(runner: &Runner) {
    let script = r"
        unshare --fork --pid --mount-proc bash -euc '
            test $$ = 1
            readlink /proc/self >self; test $(cat self) -gt 1
            ls /proc >all; grep -c ^[0-9] all
            cat /proc/1/comm
            ls /proc/1/task
            grep -E ^N?S?[Tt]?g?[Pp]+id: /proc/1/status
            cut -d\  -f1,4 /proc/1/stat
            test -e /proc/'$$' && echo visible
            ps -e -o pid=,ppid=,comm= | head -1 | tr -s \ 
            readlink /proc/1/exe /proc/1/ns/pid >/dev/null
            cat /proc/thread-self/comm
            exit 0'";
    let told = runner.bash(script).line();
    let told: Vec<&str> = told.lines().map(str::trim).collect();
    assert_eq!(told[..3], ["2", "bash", "1"], "{told:?}");
    assert!(told[3..].contains(&"Pid:\t1") && told[3..].contains(&"PPid:\t0"), "{told:?}");
    let rest: Vec<&str> = told[3..].iter().copied().skip_while(|line| line.contains(':')).collect();
    assert_eq!(rest, ["1 0", "1 0 bash", "cat"], "{told:?}");
}

fn a_procfs_that_was_there_before_shows_all(runner: &Runner) {
    let script = r#"
        outer=$$
        unshare --fork --pid bash -euc 'test -d /proc/'$outer'; echo "$(readlink /proc/self/ns/pid)"' >inner
        test "$(cat inner)" != "$(readlink /proc/self/ns/pid)"
        unshare --pid bash -euc 'exec readlink /proc/self/ns/pid_for_children' || echo nothing yet"#;
    assert_eq!(runner.bash(script).line(), "nothing yet");
}

const HELD: &str = r#"
    unshare --fork --pid true
    mkfifo began goes
    unshare --fork --pid sh -c 'echo began >began; read line <goes' &
    read line <began
    init=$(cat /proc/$!/task/$!/children)
    init=${init% }
"#;

fn a_namespace_is_entered_for_children(runner: &Runner) {
    let script = r#"
        nsenter --target $init --pid sh -c 'kill -0 1 && kill -9 1 && ! kill -0 '$$' 2>/dev/null && test $$ != 1' &&
            echo entered
        nsenter --target $init --pid bash -c 'echo $PPID'
        echo go >goes
        wait"#;
    assert_eq!(runner.bash(&format!("{HELD}{script}")).line(), "entered\n0");
}

fn a_namespace_whose_init_has_ended_cannot_be_forked_into(runner: &Runner) {
    let script = r#"
        exec 5</proc/$init/ns/pid
        echo go >goes
        wait
        nsenter --pid=/proc/self/fd/5 true 2>&1 || true"#;
    let told = runner.bash(&format!("{HELD}{script}")).line();
    assert!(told.contains("fork failed: Cannot allocate memory"), "{told}");
}

fn a_shell_as_init_has_job_control(runner: &Runner) {
    let line = ["unshare", "--fork", "--pid", "bash", "--norc", "--noprofile", "--noediting", "-i"];
    let mut terminal = umvu_tests::Terminal::start(runner, &line);
    terminal.send(b"PS1='re''ady> '\n");
    terminal.expect("ready> ");
    terminal.send(b"echo pid-$$\n");
    terminal.expect("pid-1");
    terminal.expect("ready> ");
    terminal.send(b"cat\n");
    terminal.send(b"be''fore\n");
    terminal.expect("be''fore\r\nbe''fore");
    terminal.send(b"\x1a");
    terminal.expect("Stopped");
    terminal.expect("ready> ");
    terminal.send(b"fg\n");
    terminal.expect("cat");
    terminal.send(b"af''ter\n");
    terminal.expect("af''ter\r\naf''ter");
    terminal.send(b"\x03");
    terminal.expect("ready> ");
    terminal.send(b"echo status=$?\n");
    terminal.expect("status=130");
    terminal.send(b"exit 0\n");
    assert!(terminal.wait().success());
}

fn without_the_option_there_are_none_and_the_log_says_how(runner: &Runner) {
    let finished = runner.bash("unshare --user --pid --fork true");
    let said = String::from_utf8_lossy(&finished.stderr);
    assert!(!finished.status.success());
    assert!(said.contains("Invalid argument") && said.contains("--pid-namespaces"), "{said}");
}
