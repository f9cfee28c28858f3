//! What `fs.protected_*` of the host forbids in sticky directories, for the identities of a view: proc_sys_fs(5).

use std::fs;
use std::os::unix::fs::{chown, symlink, PermissionsExt};

use nix::unistd::{seteuid, Uid};
use rustix::fs::{linkat, mknodat, open, unlink, AtFlags, FileType, Mode, OFlags, CWD};
use rustix::io::Errno;
use umvu_tests::{behaviours, works};

behaviours! {
    in_guest at ROOT {
        links_in_directories_of_everybody_are_followed_by_rule,
        files_in_sticky_directories_are_opened_to_create_by_rule,
        links_to_what_is_not_ones_own_are_made_by_rule,
        sticky_rules_hold_for_root_too,
    }
}

const MODES: [u32; 5] = [0o777, 0o1777, 0o1775, 0o1755, 0o1757];
/// Root, and two users; the group of all is root's.
const USERS: [u32; 3] = [0, 1001, 1002];

fn level(setting: &str) -> u32 {
    let text = fs::read_to_string(format!("/proc/sys/fs/protected_{setting}"));
    text.map_or(0, |text| text.trim().parse().expect("a number"))
}

/// Does something as a user, with root's group, and comes back.
fn act<T>(user: u32, what: impl FnOnce() -> T) -> T {
    works(seteuid(Uid::from_raw(user)));
    let done = what();
    works(seteuid(Uid::from_raw(0)));
    done
}

fn directory(mode: u32, owner: u32) {
    works(fs::create_dir("dir"));
    works(chown("dir", Some(owner), None));
    works(fs::set_permissions("dir", fs::Permissions::from_mode(mode)));
}

/// Goes through all modes and owners of a directory, owners of an object in it, and users who act.
fn each(make: impl Fn(u32), act_as: impl Fn(u32) -> Result<(), Errno>, expected: impl Fn(u32, [u32; 3]) -> bool) {
    for mode in MODES {
        for above in USERS {
            for owner in USERS {
                directory(mode, above);
                make(owner);
                for user in USERS {
                    let done = act(user, || act_as(user));
                    let allowed = expected(mode, [above, owner, user]);
                    let case = format!("mode {mode:o}, directory of {above}, object of {owner}, by {user}");
                    match done {
                        Ok(()) => assert!(allowed, "{case}"),
                        Err(errno) => assert!(!allowed, "{case}: {errno:?}"),
                    }
                }
                works(fs::remove_dir_all("dir"));
            }
        }
    }
}

fn links_in_directories_of_everybody_are_followed_by_rule() {
    works(fs::write("target", "x"));
    works(fs::set_permissions("target", fs::Permissions::from_mode(0o666)));
    let is_on = level("symlinks") > 0;
    let make = |owner| {
        works(symlink("../target", "dir/link"));
        works(std::os::unix::fs::lchown("dir/link", Some(owner), None));
    };
    let follow = |_| match open("dir/link", OFlags::RDONLY, Mode::empty()) {
        Err(Errno::ACCESS) => Err(Errno::ACCESS),
        opened => {
            works(opened);
            // A link in the middle of a path is followed always.
            works(open("dir/link/../link", OFlags::RDONLY, Mode::empty()).or_else(|errno| match errno {
                Errno::NOTDIR => open("target", OFlags::RDONLY, Mode::empty()),
                other => Err(other),
            }));
            Ok(())
        }
    };
    each(make, follow, |mode, [above, owner, user]| {
        !is_on || mode & 0o1002 != 0o1002 || owner == user || owner == above
    });
}

fn files_in_sticky_directories_are_opened_to_create_by_rule() {
    for (kind, setting) in [(FileType::RegularFile, "regular"), (FileType::Fifo, "fifos")] {
        let level = level(setting);
        let make = |owner| {
            works(mknodat(CWD, "dir/file", kind, Mode::from_raw_mode(0o666), 0));
            works(fs::set_permissions("dir/file", fs::Permissions::from_mode(0o666)));
            works(chown("dir/file", Some(owner), None));
        };
        let create = |_| {
            // Without O_CREAT nothing is asked.
            works(open("dir/file", OFlags::RDWR | OFlags::NONBLOCK, Mode::empty()));
            open("dir/file", OFlags::RDWR | OFlags::NONBLOCK | OFlags::CREATE, Mode::RUSR).map(drop)
        };
        each(make, create, |mode, [above, owner, user]| {
            let others = mode & 0o002 != 0;
            let is_protected = (level > 0 && others) || (level > 1 && mode & 0o020 != 0);
            mode & 0o1000 == 0 || owner == user || owner == above || !is_protected
        });
    }
}

fn links_to_what_is_not_ones_own_are_made_by_rule() {
    let is_on = level("hardlinks") > 0;
    works(fs::create_dir("to"));
    works(fs::set_permissions("to", fs::Permissions::from_mode(0o777)));
    for (mode, is_plain) in [(0o666, true), (0o644, false), (0o4777, false), (0o2777, false), (0o2767, true)] {
        for owner in USERS {
            works(fs::write("file", "x"));
            works(chown("file", Some(owner), Some(1005)));
            works(fs::set_permissions("file", fs::Permissions::from_mode(mode)));
            for user in USERS {
                let made = act(user, || linkat(CWD, "file", CWD, "to/link", AtFlags::empty()));
                let allowed = !is_on || user == 0 || user == owner || is_plain;
                assert_eq!(made.is_ok(), allowed, "mode {mode:o} of {owner} by {user}: {made:?}");
                assert!(allowed || made == Err(Errno::PERM));
                let _ = unlink("to/link");
            }
            works(unlink("file"));
        }
    }
}

fn sticky_rules_hold_for_root_too() {
    directory(0o1777, 1001);
    works(fs::write("dir/file", "x"));
    works(chown("dir/file", Some(1002), None));
    let opened = open("dir/file", OFlags::WRONLY | OFlags::CREATE, Mode::RUSR);
    assert_eq!(opened.is_ok(), level("regular") == 0);
}
