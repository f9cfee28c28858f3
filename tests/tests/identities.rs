//! What root of a view may do with files, and what it gives up when it takes other ids.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command};

use nix::sys::signal::{kill, Signal};
use nix::unistd::{setegid, seteuid, setgroups, setresuid, Gid, Uid};
use rustix::fs::{accessat, chownat, link, mkdir, rename, Access, AtFlags, Mode, CWD};
use rustix::io::Errno;
use umvu_tests::{behaviours, fails, works};

behaviours! {
    in_guest at ROOT {
        a_write_by_another_user_takes_the_set_id_bits,
        a_write_by_root_leaves_the_set_id_bits,
        opening_for_writing_leaves_the_set_id_bits,
        a_write_to_a_new_file_takes_the_set_id_bits,
        bits_that_are_set_again_stay,
        a_truncation_by_another_user_takes_the_set_id_bits,
        set_gid_without_execution_is_lost_outside_of_the_group,
        a_new_program_loses_the_set_gid_bit_before_the_umask_is_applied,
        access_judges_the_way_by_the_real_ids,
        a_rename_around_oneself_is_refused_before_it_is_judged,
        a_rename_onto_the_same_object_is_not_judged,
        a_link_to_what_one_may_not_link_is_eperm_whatever_the_directory,
        chown_of_nothing_by_a_stranger_keeps_the_set_id_bits,
        chown_of_nothing_is_a_change,
        processes_belong_to_who_they_run_as,
        pipes_and_sockets_belong_to_who_asks,
        only_their_own_may_be_signalled_by_others,
        a_signal_to_a_group_reaches_those_it_may,
        signals_to_everybody_pass_over_strangers,
    }
}

/// Neither root nor anybody who owns a file here.
const OTHER: u32 = 65534;

/// Makes a file with a mode.
fn file(path: &str, mode: u32) {
    fs::write(path, path).expect("a new file");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
}

fn mode(path: &str) -> u32 {
    fs::symlink_metadata(path).expect("stat").mode() & 0o7777
}

/// Does something with the ids of [`OTHER`].
fn as_other<T>(what: impl FnOnce() -> T) -> T {
    setgroups(&[]).expect("setgroups");
    setegid(Gid::from_raw(OTHER)).expect("setegid");
    seteuid(Uid::from_raw(OTHER)).expect("seteuid");
    let done = what();
    seteuid(Uid::from_raw(0)).expect("seteuid back");
    setegid(Gid::from_raw(0)).expect("setegid back");
    done
}

fn write(path: &str) {
    let mut file = OpenOptions::new().write(true).open(path).expect("open for writing");
    file.write_all(b"x").expect("write");
}

fn a_write_by_another_user_takes_the_set_id_bits() {
    for (before, after) in [(0o4777, 0o777), (0o2777, 0o777), (0o6777, 0o777), (0o1777, 0o1777)] {
        file("program", before);
        as_other(|| write("program"));
        assert_eq!(mode("program"), after, "of {before:o}");
    }
}

fn a_write_by_root_leaves_the_set_id_bits() {
    file("program", 0o6755);
    write("program");
    assert_eq!(mode("program"), 0o6755);
}

fn opening_for_writing_leaves_the_set_id_bits() {
    file("program", 0o6777);
    as_other(|| drop(OpenOptions::new().write(true).open("program").expect("open for writing")));
    assert_eq!(mode("program"), 0o6777);
}

fn a_write_to_a_new_file_takes_the_set_id_bits() {
    works(mkdir("open", Mode::from_raw_mode(0o777)));
    fs::set_permissions("open", fs::Permissions::from_mode(0o777)).expect("chmod");
    as_other(|| {
        let mut program = OpenOptions::new().write(true).create_new(true).mode(0o4755).open("open/p").expect("open");
        assert_eq!(mode("open/p"), 0o4755);
        program.write_all(b"x").expect("write");
        assert_eq!(mode("open/p"), 0o755);
        assert_eq!(program.metadata().expect("fstat").mode() & 0o7777, 0o755);
    });
}

fn bits_that_are_set_again_stay() {
    file("program", 0o6777);
    as_other(|| write("program"));
    fs::set_permissions("program", fs::Permissions::from_mode(0o6755)).expect("chmod");
    write("program");
    assert_eq!(mode("program"), 0o6755);
}

fn a_truncation_by_another_user_takes_the_set_id_bits() {
    file("program", 0o6777);
    as_other(|| rustix::fs::ftruncate(fs::File::create("program").expect("O_TRUNC"), 0).expect("ftruncate"));
    assert_eq!(mode("program"), 0o777);
}

fn set_gid_without_execution_is_lost_outside_of_the_group() {
    file("lock", 0o2666);
    as_other(|| write("lock"));
    assert_eq!(mode("lock"), 0o666);
}

fn a_new_program_loses_the_set_gid_bit_before_the_umask_is_applied() {
    works(mkdir("shared", Mode::from_raw_mode(0o777)));
    works(chownat(CWD, "shared", None, Some(rustix::fs::Gid::from_raw(44)), AtFlags::empty()));
    fs::set_permissions("shared", fs::Permissions::from_mode(0o2777)).expect("chmod");
    rustix::process::umask(Mode::from_raw_mode(0o010));
    as_other(|| {
        for (asked, given) in [(0o2777, 0o767), (0o2711, 0o701), (0o2700, 0o2700)] {
            drop(OpenOptions::new().write(true).create_new(true).mode(asked).open("shared/p").expect("open"));
            assert_eq!(mode("shared/p"), given, "of {asked:o}");
            fs::remove_file("shared/p").expect("unlink");
        }
    });
}

fn access_judges_the_way_by_the_real_ids() {
    fs::create_dir("private").expect("mkdir");
    file("private/secret", 0o600);
    fs::set_permissions("private", fs::Permissions::from_mode(0o700)).expect("chmod");
    as_other(|| {
        works(accessat(CWD, "private/secret", Access::READ_OK, AtFlags::empty()));
        fails(Errno::ACCESS, accessat(CWD, "private/secret", Access::READ_OK, AtFlags::EACCESS));
    });
}

fn a_rename_around_oneself_is_refused_before_it_is_judged() {
    works(mkdir("above", Mode::from_raw_mode(0o755)));
    works(mkdir("above/below", Mode::from_raw_mode(0o755)));
    as_other(|| {
        fails(Errno::INVAL, rename("above", "above/below/new"));
        fails(Errno::NOTEMPTY, rename("above/below", "above"));
        fails(Errno::ACCESS, rename("above/below", "above/new"));
    });
}

fn a_rename_onto_the_same_object_is_not_judged() {
    file("one", 0o600);
    works(link("one", "two"));
    as_other(|| works(rename("one", "two")));
    assert_eq!(fs::symlink_metadata("one").expect("stat").nlink(), 2);
}

fn a_link_to_what_one_may_not_link_is_eperm_whatever_the_directory() {
    file("private", 0o600);
    works(mkdir("closed", Mode::from_raw_mode(0o755)));
    as_other(|| fails(Errno::PERM, link("private", "closed/new")));
}

fn chown_of_nothing_by_a_stranger_keeps_the_set_id_bits() {
    file("program", 0o4755);
    file("plain", 0o755);
    as_other(|| {
        fails(Errno::PERM, chownat(CWD, "program", None, None, AtFlags::empty()));
        works(chownat(CWD, "plain", None, None, AtFlags::empty()));
    });
    assert_eq!(mode("program"), 0o4755);
}

fn chown_of_nothing_is_a_change() {
    for path in ["file", "directory"] {
        match path {
            "file" => file(path, 0o644),
            _ => works(mkdir(path, Mode::from_raw_mode(0o755))),
        }
        let change = || fs::symlink_metadata(path).map(|m| (m.ctime(), m.ctime_nsec())).expect("stat");
        let before = change();
        // Kernels before 6.13 count in ticks.
        while change() == before {
            as_other(|| works(chownat(CWD, path, None, None, AtFlags::empty())));
        }
    }
}

fn processes_belong_to_who_they_run_as() {
    for path in ["/proc/self/", "/proc/self/stat", "/proc/self/fd/0", "/proc/thread-self/status"] {
        assert_eq!(works(fs::symlink_metadata(path)).uid(), 0, "{path}");
    }
    let own = works(fs::File::open(format!("/proc/{}", std::process::id())));
    assert_eq!(works(own.metadata()).uid(), 0);
    let other = as_other(|| works(fs::metadata("/proc/self")).uid());
    assert_eq!(other, OTHER);
}

fn pipes_and_sockets_belong_to_who_asks() {
    let (end, _other) = works(rustix::pipe::pipe());
    assert_eq!(works(rustix::fs::fstat(&end)).st_uid, 0);
    let (socket, _peer) = works(std::os::unix::net::UnixStream::pair());
    assert_eq!(works(rustix::fs::fstat(&socket)).st_uid, 0);
}

/// A program that waits, as a user, in a process group.
fn waiting(uid: u32, group: i32) -> Child {
    Command::new("sleep").arg("1000").uid(uid).process_group(group).spawn().expect("sleep")
}

fn pid(child: &Child) -> nix::unistd::Pid {
    nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a pid"))
}

fn ended_by(mut child: Child) -> Option<i32> {
    child.wait().expect("wait").signal()
}

fn only_their_own_may_be_signalled_by_others() {
    let (own, strange) = (waiting(OTHER, 0), waiting(1, 0));
    as_other(|| {
        assert_eq!(kill(pid(&strange), None), Err(nix::Error::EPERM));
        assert_eq!(kill(pid(&strange), Signal::SIGKILL), Err(nix::Error::EPERM));
        // Whoever is of the same session may be told to go on.
        works(kill(pid(&strange), Signal::SIGCONT));
        works(kill(pid(&own), None));
        works(kill(nix::unistd::getpid(), None));
        works(kill(pid(&own), Signal::SIGTERM));
    });
    works(kill(pid(&strange), Signal::SIGUSR1));
    assert_eq!((ended_by(own), ended_by(strange)), (Some(15), Some(10)));
}

fn a_signal_to_a_group_reaches_those_it_may() {
    let first = waiting(1, 0);
    let group = nix::unistd::Pid::from_raw(-pid(&first).as_raw());
    as_other(|| assert_eq!(kill(group, Signal::SIGTERM), Err(nix::Error::EPERM)));
    let second = waiting(OTHER, pid(&first).as_raw());
    as_other(|| works(kill(group, Signal::SIGTERM)));
    assert_eq!(ended_by(second), Some(15));
    works(kill(group, Signal::SIGUSR1));
    assert_eq!(ended_by(first), Some(10));
}

fn signals_to_everybody_pass_over_strangers() {
    let (own, strange) = (waiting(OTHER - 1, 0), waiting(1, 0));
    // By its real user it would reach all of root's.
    setresuid(Uid::from_raw(OTHER - 1), Uid::from_raw(OTHER - 1), Uid::from_raw(0)).expect("setresuid");
    works(kill(nix::unistd::Pid::from_raw(-1), Signal::SIGTERM));
    assert_eq!(ended_by(own), Some(15));
    setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0)).expect("setresuid back");
    works(kill(pid(&strange), Signal::SIGUSR1));
    assert_eq!(ended_by(strange), Some(10));
}
