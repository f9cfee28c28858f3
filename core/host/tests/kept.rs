//! How long a store keeps an owner: as long as the object has a name, and past the end of the process.

mod tree;

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{makedev, OFlags};
use tree::{as_host, as_root, as_user, file, make, name, on_all_stores, owner, root, stat, Tree};
use umvu_interface::{Creation, Errno, Filesystem, Inode, InodeRef, RemoveKind, RenameFlags};
use umvu_ownership::Medium;

#[test]
fn an_owner_ends_with_the_last_name_but_not_for_who_has_the_file_open() {
    on_all_stores(|_, fs| {
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

#[test]
fn what_gets_no_name_is_not_recorded() {
    let tree = Tree::new();
    let fs = tree.kept_in(Medium::Database);
    std::fs::write(tree.path("f"), b"").unwrap();
    as_root(|me| {
        assert_eq!(make(&fs, me, "f", Creation::Regular { mode: 0 }).err(), Some(Errno::EXIST));
        assert!(fs.ownership().unwrap().is_empty_hint());
        let unnamed = file(root(&fs).tmpfile(me, 0o600, OFlags::RDWR).unwrap());
        assert_eq!(fs.stat_open(unnamed.as_fd()).unwrap().uid, 0);
    });
    drop(fs);
    let fs = tree.kept_in(Medium::Database);
    assert!(fs.ownership().unwrap().is_empty_hint());
    as_user(7, |me| {
        let unnamed = root(&fs).tmpfile(me, 0o640, OFlags::RDWR).map(file).unwrap();
        let target: InodeRef = fs.inode(OwnedFd::from(unnamed));
        root(&fs).link(me, &name("named"), &target).unwrap();
        root(&fs).link(me, &name("again"), &target).unwrap();
    });
    drop(fs);
    assert_eq!(owner(&tree.kept_in(Medium::Database), "named"), (7, 7, 0o640));
}
