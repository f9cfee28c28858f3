//! Pipes with names: who waits for whom, and what wakes a waiting open.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};

use rustix::fs::{mknodat, open, FileType, Mode, OFlags, CWD};
use rustix::io::Errno;
use umvu_tests::{behaviours, fails, program, works, Runner};

behaviours! {
    in_guest at EVERYWHERE {
        a_reader_and_a_writer_meet,
        a_nonblocking_writer_without_reader_is_enxio,
        a_nonblocking_reader_opens_at_once,
        a_read_write_open_never_waits,
        a_waiting_open_does_not_hold_up_the_others,
        a_hundred_waiting_opens_hold_up_nobody,
        the_last_writer_gone_is_the_end,
        the_last_reader_gone_is_epipe,
    }
    from_outside at EVERYWHERE {
        a_signal_ends_a_waiting_open_with_eintr,
        a_restarting_signal_lets_the_open_go_on_waiting,
        a_killed_waiter_leaves_at_once,
        a_stopped_waiter_goes_on_waiting,
        a_traced_program_waits_and_can_be_killed,
        shells_meet_over_a_fifo,
        process_substitution_works,
    }
}

fn fifo(path: &str) {
    works(mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0));
}

fn a_reader_and_a_writer_meet() {
    fifo("fifo");
    let writer = std::thread::spawn(|| works(fs::write("fifo", b"through")));
    assert_eq!(works(fs::read("fifo")), b"through");
    writer.join().expect("the writer");
    assert!(works(fs::metadata("fifo")).file_type().is_fifo());
}

fn a_nonblocking_writer_without_reader_is_enxio() {
    fifo("fifo");
    fails(Errno::NXIO, open("fifo", OFlags::WRONLY | OFlags::NONBLOCK, Mode::empty()));
}

fn a_nonblocking_reader_opens_at_once() {
    fifo("fifo");
    let reader = works(open("fifo", OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty()));
    assert_eq!(works(rustix::io::read(&reader, &mut [0; 8])), 0);
    let writer = works(open("fifo", OFlags::WRONLY | OFlags::NONBLOCK, Mode::empty()));
    fails(Errno::AGAIN, rustix::io::read(&reader, &mut [0; 8]));
    works(rustix::io::write(&writer, b"x"));
    assert_eq!(works(rustix::io::read(&reader, &mut [0; 8])), 1);
}

fn a_read_write_open_never_waits() {
    fifo("fifo");
    let mut both = works(fs::File::options().read(true).write(true).open("fifo"));
    works(both.write_all(b"x"));
    works(both.read_exact(&mut [0; 1]));
}

fn a_waiting_open_does_not_hold_up_the_others() {
    fifo("fifo");
    let waiting = std::thread::spawn(|| works(fs::read("fifo")));
    for number in 0..100 {
        works(fs::write(format!("file{number}"), b"x"));
    }
    works(fs::write("fifo", b"done"));
    assert_eq!(waiting.join().expect("the reader"), b"done");
}

fn a_hundred_waiting_opens_hold_up_nobody() {
    let waiting: Vec<_> = (0..100)
        .map(|number| {
            let name = format!("fifo{number}");
            fifo(&name);
            std::thread::spawn(move || works(fs::read(name)))
        })
        .collect();
    for number in (0..100).rev() {
        works(fs::metadata("."));
        works(fs::write(format!("fifo{number}"), number.to_string()));
    }
    for (number, thread) in waiting.into_iter().enumerate() {
        assert_eq!(thread.join().expect("a reader"), number.to_string().into_bytes());
    }
}

fn the_last_writer_gone_is_the_end() {
    fifo("fifo");
    let mut reader = works(fs::File::options().read(true).custom_flags(libc::O_NONBLOCK).open("fifo"));
    let writer = works(fs::File::options().write(true).open("fifo"));
    drop(writer);
    assert_eq!(works(reader.read(&mut [0; 1])), 0, "something else still holds the writing end");
}

fn the_last_reader_gone_is_epipe() {
    fifo("fifo");
    let reader = works(fs::File::options().read(true).custom_flags(libc::O_NONBLOCK).open("fifo"));
    let writer = works(open("fifo", OFlags::WRONLY, Mode::empty()));
    drop(reader);
    fails(Errno::PIPE, rustix::io::write(&writer, b"x"));
}

fn a_signal_ends_a_waiting_open_with_eintr(r: &Runner) {
    assert_eq!(
        r.run([
            "sh".as_ref(),
            "-c".as_ref(),
            "mkfifo fifo; exec $0 interrupt".as_ref(),
            program("waiting_open").as_os_str()
        ])
        .line(),
        "EINTR"
    );
}

fn a_restarting_signal_lets_the_open_go_on_waiting(r: &Runner) {
    assert_eq!(
        r.run([
            "sh".as_ref(),
            "-c".as_ref(),
            "mkfifo fifo; exec $0 restart".as_ref(),
            program("waiting_open").as_os_str()
        ])
        .line(),
        "opened after the signal"
    );
}

fn a_killed_waiter_leaves_at_once(r: &Runner) {
    let script = "mkfifo fifo; cat fifo & pid=$!; until [[ $(cut -d' ' -f3 /proc/$pid/stat) == S ]]; do :; done
        kill -KILL $pid; wait $pid || echo $?";
    assert_eq!(r.bash(script).line(), "137");
}

fn a_stopped_waiter_goes_on_waiting(r: &Runner) {
    let script = "state() { until [[ $(cut -d' ' -f3 /proc/$pid/stat) == $1 ]]; do :; done; }
        mkfifo fifo; cat fifo & pid=$!; until [[ $(cat /proc/$pid/comm) == cat ]]; do :; done; state S
        kill -STOP $pid; state T; kill -CONT $pid; state S
        echo through > fifo; wait $pid";
    assert_eq!(r.bash(script).line(), "through");
}

fn a_traced_program_waits_and_can_be_killed(r: &Runner) {
    let script = "mkfifo fifo; strace -o /dev/null cat fifo & echo through > fifo; wait $!
        strace -o trace cat fifo & until grep -q '\"fifo\"' trace; do :; done
        kill -KILL $(pgrep -P $!); wait $! || echo $?";
    assert_eq!(r.bash(script).line(), "through\n137");
}

fn shells_meet_over_a_fifo(r: &Runner) {
    assert_eq!(r.bash("mkfifo fifo; (for i in 1 2 3; do echo $i; done > fifo) & sort -r fifo").line(), "3\n2\n1");
}

fn process_substitution_works(r: &Runner) {
    assert_eq!(r.bash("diff <(echo a; echo b) <(echo a; echo c) || true").line(), "2c2\n< b\n---\n> c");
    assert_eq!(r.bash("echo x | tee >(cat > copy) >/dev/null; until [[ -s copy ]]; do :; done; cat copy").line(), "x");
}
