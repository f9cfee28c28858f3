//! With a store, callers with a faked identity see the owners, modes and devices that they set.

mod tree;

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::sync::Arc;

use rustix::fs::{makedev, OFlags};
use tree::{as_host, as_root, as_user, find, name, owner, root, stat, Tree};
use umvu_host::HostFs;
use umvu_interface::{
    Caller, Creation, Errno, FileKind, Filesystem, Inode, InodeRef, Opened, RemoveKind, RenameFlags, SetAttr, SetTime,
    XattrSet,
};

/// Runs a test on a store in memory and on one beside the tree.
fn on_both_stores(test: impl Fn(&Tree, &Arc<HostFs>)) {
    let tree = Tree::new();
    test(&tree, &tree.in_memory());
    let tree = Tree::new();
    test(&tree, &tree.kept());
}

fn make(fs: &Arc<HostFs>, caller: &Caller<'_>, label: &str, what: Creation<'_>) -> Result<InodeRef, Errno> {
    root(fs).create(caller, &name(label), &what)
}

fn chown(uid: u32, gid: u32) -> SetAttr {
    SetAttr { uid: Some(uid), gid: Some(gid), ..SetAttr::default() }
}

fn chmod(mode: u32) -> SetAttr {
    SetAttr { mode: Some(mode), ..SetAttr::default() }
}

fn real_mode(tree: &Tree, label: &str) -> u32 {
    std::fs::symlink_metadata(tree.path(label)).unwrap().mode()
}

fn file(opened: Opened) -> std::fs::File {
    opened.into_file().unwrap().into()
}

#[test]
fn new_objects_belong_to_who_made_them() {
    on_both_stores(|tree, fs| {
        as_user(33, |me| {
            make(fs, me, "f", Creation::Regular { mode: 0o4500 }).unwrap();
            make(fs, me, "d", Creation::Directory { mode: 0o1555 }).unwrap();
            make(fs, me, "l", Creation::Symlink { target: b"x" }).unwrap();
            make(fs, me, "p", Creation::Fifo { mode: 0o4 }).unwrap();
            make(fs, me, "s", Creation::Socket { mode: 0o40 }).unwrap();
            assert_eq!(make(fs, me, "f", Creation::Regular { mode: 0 }).err(), Some(Errno::EXIST));
        });
        assert_eq!(owner(fs, "f"), (33, 33, 0o4500));
        assert_eq!(owner(fs, "d"), (33, 33, 0o1555));
        assert_eq!(owner(fs, "l"), (33, 33, 0o777));
        assert_eq!(owner(fs, "p"), (33, 33, 0o4));
        assert_eq!(owner(fs, "s"), (33, 33, 0o40));
        // The host's own never lose their user, nor gain rights of another.
        assert_eq!(real_mode(tree, "f"), 0o100_700);
        assert_eq!(real_mode(tree, "d"), 0o040_755);
        assert_eq!(real_mode(tree, "p"), 0o010_604);
        assert_eq!(real_mode(tree, "s"), 0o140_640);
        assert!(!root(fs).kernel_checks());
    });
}

#[test]
fn device_nodes_are_kept_and_the_harmless_open() {
    use std::io::Read;
    on_both_stores(|tree, fs| {
        let device = |label: &str, major, minor| {
            as_root(|me| make(fs, me, label, Creation::CharDevice { mode: 0o666, rdev: makedev(major, minor) }))
                .unwrap()
        };
        let zero = device("zero", 1, 5);
        let kmsg = device("kmsg", 1, 11);
        as_root(|me| make(fs, me, "sda", Creation::BlockDevice { mode: 0o660, rdev: makedev(8, 0) })).unwrap();
        assert_eq!(stat(fs, "zero").mode, 0o020_666);
        assert_eq!(stat(fs, "zero").rdev, makedev(1, 5));
        assert_eq!(stat(fs, "sda").mode, 0o060_660);
        assert_eq!(zero.kind().unwrap(), FileKind::CharDevice);
        assert!(std::fs::metadata(tree.path("zero")).unwrap().is_file());
        as_root(|me| {
            let mut bytes = [1; 4];
            file(zero.open(me, OFlags::RDONLY).unwrap()).read_exact(&mut bytes).unwrap();
            assert_eq!(bytes, [0; 4]);
            file(zero.open(me, OFlags::RDWR | OFlags::TRUNC).unwrap());
            assert_eq!(kmsg.open(me, OFlags::RDONLY).unwrap_err(), Errno::NXIO);
            assert_eq!(find(fs, "sda").open(me, OFlags::RDONLY).unwrap_err(), Errno::NXIO);
            let truncated = kmsg.set_attr(me, &SetAttr { size: Some(1), ..SetAttr::default() });
            assert_eq!(truncated, Err(Errno::INVAL));
        });
        // A whiteout is real, so that overlayfs knows it.
        as_root(|me| make(fs, me, "gone", Creation::CharDevice { mode: 0, rdev: 0 })).unwrap();
        assert!(std::fs::symlink_metadata(tree.path("gone")).unwrap().file_type().is_char_device());
    });
}

#[test]
fn owners_and_modes_change_one_by_one() {
    on_both_stores(|tree, fs| {
        std::fs::write(tree.path("f"), b"").unwrap();
        std::os::unix::fs::symlink("f", tree.path("l")).unwrap();
        let before = owner(fs, "f");
        as_root(|me| {
            find(fs, "f").set_attr(me, &chown(1, 2)).unwrap();
            assert_eq!(owner(fs, "f"), (1, 2, before.2));
            find(fs, "f").set_attr(me, &chmod(0o6051)).unwrap();
            assert_eq!(owner(fs, "f"), (1, 2, 0o6051));
            find(fs, "f").set_attr(me, &SetAttr { gid: Some(9), ..SetAttr::default() }).unwrap();
            assert_eq!(owner(fs, "f"), (1, 9, 0o6051));
            find(fs, "l").set_attr(me, &chown(7, 7)).unwrap();
            assert_eq!(find(fs, "l").set_attr(me, &chmod(0)), Err(Errno::OPNOTSUPP));
        });
        assert_eq!(owner(fs, "l"), (7, 7, 0o777));
        assert_eq!(real_mode(tree, "f"), 0o100_651);
        assert_eq!(stat(fs, "f").uid, 1);
        let host = std::fs::metadata(tree.path("f")).unwrap();
        assert_eq!(host.uid(), rustix::process::geteuid().as_raw());
    });
}

#[test]
fn a_change_of_owner_is_a_change_of_the_inode() {
    on_both_stores(|tree, fs| {
        std::fs::write(tree.path("f"), b"").unwrap();
        for change in [chown(1, 2), chmod(0o600), chmod(0o600)] {
            let before = stat(fs, "f").ctime;
            // The clock of the file system may stand still for a tick.
            let changed = (0..100_000).any(|_| {
                as_root(|me| find(fs, "f").set_attr(me, &change)).unwrap();
                stat(fs, "f").ctime > before
            });
            assert!(changed);
        }
    });
}

#[test]
fn set_group_id_directories_pass_their_group_on() {
    on_both_stores(|_, fs| {
        as_root(|me| {
            let dir = make(fs, me, "d", Creation::Directory { mode: 0o777 }).unwrap();
            dir.set_attr(me, &chown(0, 50)).unwrap();
            dir.set_attr(me, &chmod(0o2777)).unwrap();
            dir.create(me, &name("sub"), &Creation::Directory { mode: 0o755 }).unwrap();
        });
        let dir = find(fs, "d");
        as_user(8, |me| {
            dir.create(me, &name("f"), &Creation::Regular { mode: 0o2755 }).unwrap();
            dir.create(me, &name("g"), &Creation::Regular { mode: 0o2744 }).unwrap();
        });
        assert_eq!(owner(fs, "d/sub"), (0, 50, 0o2755));
        assert_eq!(owner(fs, "d/f"), (8, 50, 0o755));
        assert_eq!(owner(fs, "d/g"), (8, 50, 0o2744));
    });
}

#[test]
fn a_new_file_is_open_and_named_from_the_start() {
    use std::io::Write;
    on_both_stores(|tree, fs| {
        let (inode, opened) =
            as_user(5, |me| root(fs).create_open(me, &name("f"), 0, OFlags::WRONLY | OFlags::APPEND)).unwrap();
        let mut opened = file(opened);
        opened.write_all(b"abc").unwrap();
        assert_eq!(inode.path().unwrap(), b"f");
        let link = std::fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&opened))).unwrap();
        assert_eq!(link, std::fs::canonicalize(tree.path("f")).unwrap());
        let flags = rustix::fs::fcntl_getfl(&opened).unwrap();
        assert_eq!(flags & (OFlags::ACCMODE | OFlags::APPEND | OFlags::TMPFILE), OFlags::WRONLY | OFlags::APPEND);
        assert_eq!(owner(fs, "f"), (5, 5, 0));
        let shown = fs.stat_open(opened.as_fd()).unwrap();
        assert_eq!((shown.uid, shown.mode, shown.size), (5, 0o100_000, 3));
        let again = as_user(5, |me| root(fs).create_open(me, &name("f"), 0, OFlags::RDONLY));
        assert_eq!(again.err(), Some(Errno::EXIST));
    });
}

#[test]
fn an_unnamed_file_has_its_owner_and_keeps_it_with_its_name() {
    on_both_stores(|_, fs| {
        let unnamed = as_user(5, |me| root(fs).tmpfile(me, 0o4600, OFlags::RDWR)).map(file).unwrap();
        assert_eq!(fs.stat_open(unnamed.as_fd()).unwrap().uid, 5);
        let target: InodeRef = fs.inode(OwnedFd::from(unnamed));
        as_user(5, |me| root(fs).link(me, &name("f"), &target)).unwrap();
        assert_eq!(owner(fs, "f"), (5, 5, 0o4600));
    });
}

#[test]
fn owners_follow_renames_links_and_exchanges() {
    on_both_stores(|_, fs| {
        let here: InodeRef = root(fs);
        as_user(11, |me| {
            make(fs, me, "f", Creation::Regular { mode: 0o600 }).unwrap();
            make(fs, me, "l", Creation::Symlink { target: b"x" }).unwrap();
        });
        as_user(22, |me| make(fs, me, "g", Creation::Regular { mode: 0o644 }).unwrap());
        as_root(|me| {
            let rename = |old: &str, new: &str, flags| here.rename(me, &name(old), &here, &name(new), flags).unwrap();
            rename("f", "f1", RenameFlags::empty());
            rename("l", "l1", RenameFlags::empty());
            here.link(me, &name("l2"), &find(fs, "l1")).unwrap();
            here.link(me, &name("f2"), &find(fs, "f1")).unwrap();
            rename("f1", "g", RenameFlags::EXCHANGE);
            here.remove(me, &name("l1"), RemoveKind::File).unwrap();
        });
        assert_eq!(owner(fs, "g"), (11, 11, 0o600));
        assert_eq!(owner(fs, "f2"), (11, 11, 0o600));
        assert_eq!(owner(fs, "f1"), (22, 22, 0o644));
        assert_eq!(owner(fs, "l2").0, 11);
    });
}

#[test]
fn an_owner_ends_with_the_last_name_but_not_for_who_has_the_file_open() {
    on_both_stores(|_, fs| {
        let here: InodeRef = root(fs);
        as_user(11, |me| {
            let (_, opened) = here.create_open(me, &name("f"), 0o600, OFlags::RDWR).unwrap();
            let opened = file(opened);
            here.remove(me, &name("f"), RemoveKind::File).unwrap();
            assert_eq!(fs.stat_open(opened.as_fd()).unwrap().uid, 11);
        });
        // Numbers of removed objects are used again at once.
        let host = rustix::process::geteuid().as_raw();
        for _ in 0..50 {
            as_user(11, |me| {
                make(fs, me, "x", Creation::Symlink { target: b"1" }).unwrap();
                here.remove(me, &name("x"), RemoveKind::File).unwrap();
            });
            as_host(|me| make(fs, me, "x", Creation::Symlink { target: b"2" }).unwrap());
            assert_eq!(stat(fs, "x").uid, host);
            as_host(|me| here.remove(me, &name("x"), RemoveKind::File)).unwrap();
        }
    });
}

#[test]
fn a_store_beside_the_tree_is_read_back() {
    let tree = Tree::new();
    let fs = tree.kept();
    as_user(11, |me| {
        make(&fs, me, "f", Creation::Regular { mode: 0o4711 }).unwrap();
        for number in 0..20 {
            // An object with a number used before is recorded as any other.
            let label = format!("l{number}");
            make(&fs, me, &label, Creation::Symlink { target: b"x" }).unwrap();
            root(&fs).remove(me, &name(&label), RemoveKind::File).unwrap();
            make(&fs, me, &label, Creation::Symlink { target: b"y" }).unwrap();
        }
        make(&fs, me, "null", Creation::CharDevice { mode: 0o666, rdev: makedev(1, 3) }).unwrap();
    });
    drop(fs);
    let fs = tree.kept();
    assert_eq!(owner(&fs, "f"), (11, 11, 0o4711));
    for number in 0..20 {
        assert_eq!(owner(&fs, &format!("l{number}")).0, 11);
    }
    assert_eq!(stat(&fs, "null").rdev, makedev(1, 3));
}

#[test]
fn what_the_real_mode_forbids_is_opened_where_the_view_allowed_it() {
    on_both_stores(|tree, fs| {
        std::fs::create_dir(tree.path("d")).unwrap();
        std::fs::create_dir(tree.path("d/e")).unwrap();
        std::fs::write(tree.path("d/f"), b"text").unwrap();
        for (label, mode) in [("d/f", 0o000), ("d/e", 0o500), ("d", 0o040)] {
            let mode = rustix::fs::Mode::from_raw_mode(mode);
            rustix::fs::chmod(tree.path(label), mode).unwrap();
        }
        let d = root(fs).lookup(&name("d")).unwrap();
        // A path is given back to be walked.
        let by_path = root(fs).lookup_path(b"d/f").map(drop);
        if !rustix::process::geteuid().is_root() {
            assert_eq!(by_path, Err(Errno::LOOP));
        }
        let f = d.lookup(&name("f")).unwrap();
        let e = d.lookup(&name("e")).unwrap();
        as_root(|me| {
            file(f.open(me, OFlags::RDWR).unwrap());
            e.create(me, &name("x"), &Creation::Regular { mode: 0 }).unwrap();
        });
        assert_eq!(d.read_dir().unwrap().len(), 2);
        assert_eq!(d.stat().unwrap().mode, 0o040_040);
        assert_eq!(e.stat().unwrap().mode, 0o040_500);
        assert_eq!(f.stat().unwrap().mode, 0o100_000);
    });
}

#[test]
fn the_host_user_changes_what_is_shown_too() {
    on_both_stores(|tree, fs| {
        as_root(|me| make(fs, me, "f", Creation::Regular { mode: 0o644 }).unwrap());
        as_host(|me| find(fs, "f").set_attr(me, &chmod(0o400))).unwrap();
        assert_eq!(owner(fs, "f"), (0, 0, 0o400));
        assert_eq!(real_mode(tree, "f"), 0o100_600);
        as_host(|me| make(fs, me, "g", Creation::Regular { mode: 0o400 }).unwrap());
        assert_eq!(real_mode(tree, "g"), 0o100_400);
        assert_eq!(stat(fs, "g").uid, rustix::process::geteuid().as_raw());
    });
}

#[test]
fn the_mark_is_not_an_attribute_and_refused_names_have_stand_ins() {
    on_both_stores(|_, fs| {
        let f = as_root(|me| make(fs, me, "f", Creation::Regular { mode: 0o644 }).unwrap());
        as_root(|me| f.set_attr(me, &chown(3, 4))).unwrap();
        let mark = umvu_ownership::MARK.to_bytes();
        as_root(|me| {
            assert_eq!(f.get_xattr(mark).unwrap_err(), Errno::NODATA);
            assert_eq!(f.set_xattr(me, mark, b"0:0:0", XattrSet::Any), Err(Errno::PERM));
            assert_eq!(f.remove_xattr(me, mark), Err(Errno::NODATA));
            f.set_xattr(me, b"trusted.t", b"v", XattrSet::Create).unwrap();
            assert_eq!(f.set_xattr(me, b"trusted.t", b"v", XattrSet::Create), Err(Errno::EXIST));
            f.set_xattr(me, b"user.u", b"w", XattrSet::Any).unwrap();
        });
        assert_eq!(f.get_xattr(b"trusted.t").unwrap(), b"v");
        let mut names = f.list_xattr().unwrap();
        names.retain(|name| !name.starts_with(b"security.") && !name.starts_with(b"system."));
        names.sort();
        assert_eq!(names, [b"trusted.t".to_vec(), b"user.u".to_vec()]);
        as_root(|me| f.remove_xattr(me, b"trusted.t")).unwrap();
        assert_eq!(f.get_xattr(b"trusted.t").unwrap_err(), Errno::NODATA);
        assert_eq!(as_root(|me| f.remove_xattr(me, b"trusted.t")), Err(Errno::NODATA));
        assert_eq!(owner(fs, "f"), (3, 4, 0o644));
    });
}

#[test]
fn a_claimed_identity_gives_the_plain_tree_a_store_once() {
    let tree = Tree::new();
    let fs = tree.plain();
    fs.fake_ownership();
    let store = fs.ownership().unwrap();
    fs.fake_ownership();
    assert!(Arc::ptr_eq(&store, &fs.ownership().unwrap()));
    as_root(|me| {
        make(&fs, me, "f", Creation::Regular { mode: 0o644 }).unwrap();
        find(&fs, "f").set_attr(me, &chown(33, 33)).unwrap();
        find(&fs, "f").set_attr(me, &SetAttr { atime: SetTime::Now, ..SetAttr::default() }).unwrap();
    });
    assert_eq!(owner(&fs, "f"), (33, 33, 0o644));
    assert_eq!(
        tree.plain().root_inode().lookup(&name("f")).unwrap().stat().unwrap().uid,
        rustix::process::geteuid().as_raw()
    );
}

/// An ACL of the three entries that every object has: acl(5), `linux/posix_acl_xattr.h`.
fn acl(user: u8, group: u8, other: u8) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0];
    for (tag, permissions) in [(0x01, user), (0x04, group), (0x20, other)] {
        bytes.extend([tag, 0, permissions, 0, 0xff, 0xff, 0xff, 0xff]);
    }
    bytes
}

#[test]
fn a_default_acl_limits_the_mode_shown() {
    on_both_stores(|tree, fs| {
        let here: InodeRef = root(fs);
        as_root(|me| {
            here.set_xattr(me, b"system.posix_acl_default", &acl(7, 5, 0), XattrSet::Any).unwrap();
            make(fs, me, "f", Creation::Regular { mode: 0o4466 }).unwrap();
            make(fs, me, "d", Creation::Directory { mode: 0o777 }).unwrap();
            here.create_open(me, &name("g"), 0o666, OFlags::RDWR).unwrap();
        });
        assert_eq!(owner(fs, "f"), (0, 0, 0o4440));
        assert_eq!(owner(fs, "d"), (0, 0, 0o750));
        assert_eq!(owner(fs, "g"), (0, 0, 0o640));
        assert_eq!(real_mode(tree, "f"), 0o100_640);
    });
}

#[test]
fn an_access_acl_changes_the_mode_shown() {
    on_both_stores(|tree, fs| {
        as_root(|me| {
            let f = make(fs, me, "f", Creation::Regular { mode: 0o4711 }).unwrap();
            f.set_xattr(me, b"system.posix_acl_access", &acl(4, 6, 0), XattrSet::Any).unwrap();
        });
        assert_eq!(owner(fs, "f"), (0, 0, 0o4460));
        assert_eq!(real_mode(tree, "f"), 0o100_660);
    });
}

#[test]
fn a_directory_that_its_owner_cannot_write_is_moved() {
    on_both_stores(|tree, fs| {
        std::fs::create_dir_all(tree.path("from/d")).unwrap();
        std::fs::create_dir(tree.path("to")).unwrap();
        for label in ["from/d", "from", "to"] {
            rustix::fs::chmod(tree.path(label), rustix::fs::Mode::from_raw_mode(0o555)).unwrap();
        }
        as_root(|me| {
            find(fs, "from").rename(me, &name("d"), &find(fs, "to"), &name("d"), RenameFlags::empty()).unwrap();
        });
        assert_eq!(stat(fs, "to/d").mode, 0o040_555);
        assert_eq!(stat(fs, "to").mode, 0o040_555);
    });
}

#[test]
fn a_store_keeps_nothing_of_what_is_gone() {
    let tree = Tree::new();
    let fs = tree.kept();
    let here: InodeRef = root(&fs);
    as_root(|me| {
        for label in ["a", "b", "c"] {
            make(&fs, me, label, Creation::Symlink { target: b"x" }).unwrap();
        }
        here.remove(me, &name("a"), RemoveKind::File).unwrap();
        here.rename(me, &name("b"), &here, &name("c"), RenameFlags::empty()).unwrap();
    });
    assert_eq!(owner(&fs, "c"), (0, 0, 0o777));
    drop((fs, here));
    let fs = tree.kept();
    assert!(!fs.ownership().unwrap().is_empty_hint());
    let here: InodeRef = root(&fs);
    as_root(|me| here.remove(me, &name("c"), RemoveKind::File)).unwrap();
    drop((fs, here));
    assert!(tree.kept().ownership().unwrap().is_empty_hint());
}
