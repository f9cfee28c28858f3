//! The modes of viewfs: what each shows, and where changes go.

mod bed;

use std::os::unix::fs::PermissionsExt;

use bed::{picture, Bed};
use umvu_interface::{Errno, Filesystem, MountFlags, SetAttr};

#[test]
fn bind_and_move_show_the_source_itself() {
    let bed = Bed::new();
    bed.file("src/x", "x").dirs(&["dst"]);
    for options in [&[][..], &["bind"], &["move"]] {
        let tree = bed.mount("/src", "/dst", options);
        assert_eq!(tree.root.id(), bed.inode("/src").id());
        tree.write("new", "n").unwrap();
        tree.rm("new").unwrap();
        assert_eq!(tree.flags, MountFlags::empty());
    }
    let file = bed.mount("/src/x", "/dst", &[]);
    assert_eq!(file.read("").unwrap(), "x");
}

#[test]
fn bind_with_exceptions_shows_the_covered_tree_there() {
    let bed = Bed::new();
    bed.file("src/a/hidden", "").file("src/a/deep/x", "src").file("src/b", "src");
    bed.file("dst/a/deep/x", "dst").file("dst/b", "dst").file("dst/c", "dst");
    let tree = bed.mount("/src", "/dst", &["except=/a/deep", "except=b", "except=c"]);
    assert_eq!(tree.ls("").unwrap(), ["a", "b", "c"]);
    assert_eq!(tree.ls("a").unwrap(), ["deep", "hidden"]);
    assert_eq!(tree.read("a/deep/x").unwrap(), "dst");
    assert_eq!(tree.read("b").unwrap(), "dst");
    tree.append("a/deep/x", "+").unwrap();
    tree.write("a/deep/new", "new").unwrap();
    tree.write("a/new", "new").unwrap();
    tree.append("c", "+").unwrap();
    assert_eq!(std::fs::read_to_string(bed.path("dst/a/deep/x")).unwrap(), "dst+");
    assert_eq!(std::fs::read_to_string(bed.path("dst/a/deep/new")).unwrap(), "new");
    assert_eq!(std::fs::read_to_string(bed.path("src/a/new")).unwrap(), "new");
    assert_eq!(std::fs::read_to_string(bed.path("dst/c")).unwrap(), "dst+");
    assert_eq!(tree.rm("b"), Err(Errno::BUSY));
    assert_eq!(tree.mv("a/new", "b"), Err(Errno::BUSY));
    assert_eq!(tree.mv("a/new", "a/deep/new"), Err(Errno::XDEV));
    tree.mv("a/new", "a/newer").unwrap();
    tree.rm("a/newer").unwrap();
    assert_eq!(tree.ls("a").unwrap(), ["deep", "hidden"]);
    assert_eq!(tree.find("a/deep").unwrap().path().unwrap(), b"a/deep");
}

#[test]
fn a_union_can_have_exceptions() {
    let bed = Bed::new();
    bed.file("lower/proc/x", "real").file("lower/etc/x", "real").dirs(&["upper"]);
    let tree = bed.mount("/upper", "/lower", &["cow", "except=/proc"]);
    tree.append("proc/x", "+").unwrap();
    tree.append("etc/x", "+").unwrap();
    tree.write("proc/new", "new").unwrap();
    assert_eq!(std::fs::read_to_string(bed.path("lower/proc/x")).unwrap(), "real+");
    assert_eq!(std::fs::read_to_string(bed.path("lower/etc/x")).unwrap(), "real");
    assert!(bed.path("lower/proc/new").exists() && !bed.path("upper/proc").exists());
    assert_eq!(tree.ls("").unwrap(), ["etc", "proc"]);
}

#[test]
fn merge_shows_both_and_changes_only_the_covered_tree() {
    let bed = Bed::new();
    bed.file("src/etc/both", "src").file("src/etc/src", "src").file("src/only/x", "src");
    bed.file("dst/etc/both", "dst").file("dst/etc/dst", "dst").file("dst/free/x", "dst");
    let before = picture(&bed.path("src"));
    let tree = bed.mount("/src", "/dst", &["merge"]);
    assert_eq!(tree.ls("etc").unwrap(), ["both", "dst", "src"]);
    assert_eq!(tree.read("etc/both").unwrap(), "src");
    // What the source has is read-only, the rest is the covered tree itself.
    assert_eq!(tree.append("etc/both", "+"), Err(Errno::ROFS));
    assert_eq!(tree.rm("etc/src"), Err(Errno::ROFS));
    assert_eq!(tree.write("only/new", ""), Err(Errno::ROFS));
    assert_eq!(tree.mkdir("etc"), Err(Errno::EXIST));
    assert_eq!(tree.mv("etc/dst", "etc/src"), Err(Errno::ROFS));
    assert_eq!(tree.mv("etc/src", "etc/new"), Err(Errno::ROFS));
    assert_eq!(tree.rm_r("etc"), Err(Errno::ROFS));
    tree.append("etc/dst", "+").unwrap();
    tree.write("etc/new", "new").unwrap();
    tree.mv("etc/new", "free/moved").unwrap();
    tree.mv("free", "freed").unwrap();
    tree.link("freed/x", "freed/y").unwrap();
    tree.rm("freed/x").unwrap();
    tree.chmod("freed", 0o700).unwrap();
    assert_eq!(tree.ls("freed").unwrap(), ["moved", "y"]);
    assert_eq!(std::fs::read_to_string(bed.path("dst/freed/moved")).unwrap(), "new");
    assert_eq!(std::fs::read_to_string(bed.path("dst/etc/dst")).unwrap(), "dst+");
    assert_eq!(picture(&bed.path("src")), before);
}

/// Makes files that an ordinary user may not write; root may anyway.
fn protected() -> Bed {
    let bed = Bed::faked();
    bed.file("lower/open/file", "o").file("lower/shut/file", "s").file("lower/open/locked", "l").dirs(&["upper"]);
    for (path, mode) in [("lower/shut", 0o555), ("lower/shut/file", 0o444), ("lower/open/locked", 0o444)] {
        std::fs::set_permissions(bed.path(path), PermissionsExt::from_mode(mode)).unwrap();
    }
    bed
}

#[test]
fn mincow_copies_only_what_cannot_be_changed_in_place() {
    let bed = protected();
    let mut tree = bed.mount("/upper", "/lower", &["mincow"]);
    tree.who = bed::faked(0);
    tree.append("open/file", "+").unwrap();
    tree.write("open/new", "new").unwrap();
    assert_eq!(std::fs::read_to_string(bed.path("lower/open/file")).unwrap(), "o+");
    assert_eq!(std::fs::read_to_string(bed.path("lower/open/new")).unwrap(), "new");
    assert!(!bed.path("upper/open").exists());
    if rustix::process::geteuid().is_root() {
        eprintln!("not all is tried: root is refused nothing");
    } else {
        tree.append("open/locked", "+").unwrap();
        tree.write("shut/new", "new").unwrap();
        tree.rm("shut/file").unwrap();
        assert_eq!(std::fs::read_to_string(bed.path("lower/open/locked")).unwrap(), "l");
        assert_eq!(std::fs::read_to_string(bed.path("upper/open/locked")).unwrap(), "l+");
        assert_eq!(tree.ls("shut").unwrap(), ["new"]);
        assert!(bed.path("lower/shut/file").exists());
        tree.write("shut/file", "again").unwrap();
        assert_eq!(tree.read("shut/file").unwrap(), "again");
        tree.mv("open/locked", "shut/moved").unwrap();
        assert_eq!(tree.read("shut/moved").unwrap(), "l+");
        assert_eq!(tree.ls("open").unwrap(), ["file", "new"]);
    }
    tree.rm("open/new").unwrap();
    assert!(!bed.path("lower/open/new").exists());
    std::fs::set_permissions(bed.path("lower/shut"), PermissionsExt::from_mode(0o755)).unwrap();
}

#[test]
fn nochcopy_writes_modes_and_owners_down_and_leaves_the_content() {
    let bed = Bed::faked();
    bed.file("lower/dir/big", "content").file("lower/other", "o").dirs(&["upper"]);
    let mount = || {
        let mut tree = bed.mount("/upper", "/lower", &["cow", "nochcopy"]);
        tree.who = bed::faked(0);
        tree
    };
    let tree = mount();
    tree.chmod("dir/big", 0o4711).unwrap();
    tree.set("dir/big", SetAttr { uid: Some(12), gid: Some(34), ..SetAttr::default() }).unwrap();
    tree.chmod("dir", 0o700).unwrap();
    let check = |tree: &bed::Tree| {
        let stat = tree.stat("dir/big");
        assert_eq!((stat.mode, stat.uid, stat.gid), (0o104_711, 12, 34));
        assert_eq!(tree.stat("dir").mode, 0o040_700);
        let open = tree.open("dir/big", umvu_interface::OFlags::RDONLY).unwrap();
        assert_eq!(bed::fd_stat(tree, &open).mode, 0o104_711);
    };
    check(&tree);
    assert!(!bed.path("upper/dir").exists());
    // A copy for another reason takes them along.
    tree.append("dir/big", "+").unwrap();
    check(&tree);
    assert_eq!(tree.read("dir/big").unwrap(), "content+");
    tree.chmod("other", 0o600).unwrap();
    drop(tree);
    let tree = mount();
    assert!(!bed.path("upper/other").exists());
    assert_eq!(tree.stat("other").mode, 0o100_600, "kept for the next mount");
    tree.mv("other", "moved").unwrap();
    assert_eq!(tree.stat("moved").mode, 0o100_600);
}

#[test]
fn statfs_shows_an_overlay() {
    let bed = Bed::new();
    bed.file("lower/x", "");
    let tree = bed.cow();
    let numbers = tree.filesystem.statfs(&*tree.find("x").unwrap()).unwrap();
    assert_eq!(numbers.magic, 0x794c_7630);
    assert!(numbers.blocks > 0);
    assert_eq!(tree.filesystem.options(), b"cow");
    let _: &dyn Filesystem = &*tree.filesystem;
}
