//! A command on a terminal: job control, keys that send signals, window size, full-screen programs.

use umvu_tests::{behaviours, Runner, Terminal};

behaviours! {
    from_outside at EVERYWHERE {
        an_interactive_shell_has_job_control,
        control_c_interrupts_the_foreground_alone,
        control_z_stops_and_fg_continues,
        the_command_itself_can_be_stopped_and_continued,
        a_shell_that_suspends_itself_is_continued,
        the_window_size_is_seen_and_its_change_too,
        the_terminal_is_the_controlling_one,
        dev_tty_is_the_terminal,
        a_background_reader_is_stopped,
        hanging_up_ends_the_shell,
        vim_edits_a_file,
        tmux_runs_a_window,
        script_of_a_terminal_in_a_terminal_works,
        the_terminal_is_left_as_it_was,
    }
}

/// A bash that prints an easy prompt and nothing else.
fn bash(r: &Runner) -> Terminal {
    let mut terminal = Terminal::start(r, &["bash", "--norc", "--noediting", "-i"]);
    // Two halves, so that the echo of the typed line does not look like the prompt.
    terminal.send(b"PS1='re''ady> '\n");
    terminal.expect("ready> ");
    terminal
}

fn leave(mut terminal: Terminal) {
    terminal.send(b"exit 0\n");
    assert!(terminal.wait().success());
}

fn an_interactive_shell_has_job_control(r: &Runner) {
    let mut terminal = bash(r);
    terminal.send(b"sleep 1000 &\n");
    terminal.expect("[1]");
    terminal.expect("ready> ");
    terminal.send(b"jobs\n");
    terminal.expect("Running");
    terminal.expect("ready> ");
    terminal.send(b"kill %1; wait %1; echo status=$?\n");
    terminal.expect("status=143");
    terminal.expect("ready> ");
    leave(terminal);
}

fn control_c_interrupts_the_foreground_alone(r: &Runner) {
    let mut terminal = bash(r);
    terminal.send(b"sh -c 'echo go\"\"ing; exec sleep 1000'\n");
    terminal.expect("going");
    terminal.send(b"\x03");
    terminal.expect("ready> ");
    terminal.send(b"echo status=$?\n");
    terminal.expect("status=130");
    terminal.expect("ready> ");
    leave(terminal);
}

fn control_z_stops_and_fg_continues(r: &Runner) {
    let mut terminal = bash(r);
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
    terminal.send(b"\x04");
    terminal.expect("ready> ");
    leave(terminal);
}

/// A shell outside of the place, and a script `run` in its directory that starts a command in it.
fn shell_outside(r: &Runner, command: &[&str]) -> Terminal {
    let line = r.command_line(command);
    let quoted: Vec<_> =
        line.iter().map(|word| format!("'{}'", word.to_string_lossy().replace('\'', r"'\''"))).collect();
    std::fs::write(r.dir().join("run"), format!("exec {}", quoted.join(" "))).expect("a script");
    let mut terminal = Terminal::start_outside(r, &["bash", "--norc", "--noediting", "-i"]);
    terminal.send(b"PS1='re''ady> '\n");
    terminal.expect("ready> ");
    terminal
}

/// The shell stops and continues the umvu that it has started.
fn the_command_itself_can_be_stopped_and_continued(r: &Runner) {
    let mut terminal = shell_outside(r, &["cat"]);
    terminal.send(b"bash run\n");
    terminal.send(b"fir''st\n");
    terminal.expect("fir''st\r\nfir''st");
    terminal.send(b"\x1a");
    terminal.expect("Stopped");
    terminal.expect("ready> ");
    // The shell says so when its own child has stopped; until cat has, it may take what is typed for the shell.
    terminal.wait_stopped("cat");
    terminal.send(b"fg\n");
    terminal.expect("bash run");
    terminal.send(b"sec''ond\n");
    terminal.expect("sec''ond\r\nsec''ond");
    terminal.send(b"\x03");
    terminal.expect("ready> ");
    terminal.send(b"echo status=$?\n");
    terminal.expect("status=130");
    terminal.expect("ready> ");
    leave(terminal);
}

/// It is in a process group of its own, and has the terminal.
fn a_shell_that_suspends_itself_is_continued(r: &Runner) {
    let mut terminal = shell_outside(r, &["bash", "--norc", "--noediting", "-i"]);
    terminal.send(b"bash run\n");
    terminal.send(b"PS1='in''ner> '\n");
    terminal.expect("inner> ");
    for _ in 0..2 {
        terminal.send(b"suspend\n");
        terminal.expect("Stopped");
        terminal.expect("ready> ");
        terminal.send(b"fg\n");
        terminal.expect("bash run");
        terminal.send(b"echo sti''ll\n");
        terminal.expect("still");
        terminal.expect("inner> ");
    }
    terminal.send(b"exit 7\n");
    terminal.expect("ready> ");
    terminal.send(b"echo status=$?\n");
    terminal.expect("status=7");
    terminal.expect("ready> ");
    leave(terminal);
}

fn the_window_size_is_seen_and_its_change_too(r: &Runner) {
    let mut terminal = bash(r);
    terminal.send(b"stty size\n");
    terminal.expect("24 80");
    terminal.expect("ready> ");
    terminal.send(b"(trap 'stty size; exit' WINCH; echo wa''iting; while :; do read -t 0.1; done)\n");
    terminal.expect("waiting");
    terminal.resize(50, 132);
    terminal.expect("50 132");
    terminal.expect("ready> ");
    leave(terminal);
}

fn the_terminal_is_the_controlling_one(r: &Runner) {
    let mut terminal = bash(r);
    terminal.send(b"[ $(tty) = $(readlink /proc/self/fd/0) ] && echo sa''me\n");
    terminal.expect("same");
    terminal.expect("ready> ");
    terminal.send(b"ps -o tty= -p $$ | grep -q pts && echo has''one\n");
    terminal.expect("hasone");
    terminal.expect("ready> ");
    leave(terminal);
}

fn dev_tty_is_the_terminal(r: &Runner) {
    let mut terminal = bash(r);
    terminal.send(b"(echo hel''lo > /dev/tty) >/dev/null 2>&1\n");
    terminal.expect("hello");
    terminal.expect("ready> ");
    terminal.send(b"setsid -w sh -c 'echo x > /dev/tty' 2>&1 | grep -c 'No such dev''ice'\n");
    terminal.expect("1\r\n");
    terminal.expect("ready> ");
    leave(terminal);
}

fn a_background_reader_is_stopped(r: &Runner) {
    let mut terminal = bash(r);
    terminal.send(b"cat &\n");
    terminal.expect("ready> ");
    terminal.send(b"until jobs | grep -q Stop''ped; do :; done; echo it''is\n");
    terminal.expect("itis");
    terminal.expect("ready> ");
    terminal.send(b"kill -KILL $!; while kill -0 $! 2>/dev/null; do wait $!; done; echo go''ne\n");
    terminal.expect("gone");
    terminal.expect("ready> ");
    leave(terminal);
}

fn hanging_up_ends_the_shell(r: &Runner) {
    let terminal = bash(r);
    let status = terminal.hang_up();
    assert_eq!(status, Some(129), "a shell dies of SIGHUP");
}

fn vim_edits_a_file(r: &Runner) {
    let mut terminal = bash(r);
    terminal.send(b"vim -u NONE -i NONE -n -N file\n");
    terminal.expect("file");
    terminal.send(b"ihello from vim\x1b:wq\r");
    terminal.expect("ready> ");
    terminal.send(b"cat fi''le\n");
    terminal.expect("hello from vim\r\n");
    terminal.expect("ready> ");
    leave(terminal);
}

fn tmux_runs_a_window(r: &Runner) {
    let mut terminal = bash(r);
    // The server is a daemon on a socket of its own, whose path must be short.
    terminal.send(b"export TMUX_TMPDIR=$(mktemp -d /tmp/t.XXXXXX); tmux -f /dev/null new -d -x 80 -y 24 'echo in si''de; exec cat'; tmux ls; echo st=$?\n");
    terminal.expect("windows");
    terminal.expect("st=0");
    terminal.send(b"until tmux capture-pane -p | grep -q 'in side'; do :; done; tmux capture-pane -p | head -1; tmux kill-server; rm -rf $TMUX_TMPDIR\n");
    terminal.expect("in side");
    terminal.expect("ready> ");
    leave(terminal);
}

fn script_of_a_terminal_in_a_terminal_works(r: &Runner) {
    let mut terminal = bash(r);
    terminal.send(b"script -q -c 'tty; stty size' /dev/null | tr -d '\\r' | tail -1; tty\n");
    terminal.expect("24 80");
    terminal.expect("/dev/pts/");
    terminal.expect("ready> ");
    leave(terminal);
}

fn the_terminal_is_left_as_it_was(r: &Runner) {
    let line = r.command_line(["sh", "-c", "stty -echo; stty echo; exit 5"]);
    let quoted: Vec<_> =
        line.iter().map(|word| format!("'{}'", word.to_string_lossy().replace('\'', r"'\''"))).collect();
    std::fs::write(r.dir().join("run"), quoted.join(" ")).expect("a script");
    let mut terminal = Terminal::start_outside(r, &["bash", "--norc", "--noediting", "-i"]);
    terminal.send(b"PS1='re''ady> '\n");
    terminal.expect("ready> ");
    terminal
        .send(b"before=$(stty -g); bash run; echo status=$?; [ \"$before\" = \"$(stty -g)\" ] && echo un''changed\n");
    terminal.expect("status=5");
    terminal.expect("unchanged");
    terminal.expect("ready> ");
    leave(terminal);
}
