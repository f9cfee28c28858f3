//! Without a store the tree behaves as the host's own calls do.

mod tree;

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use rustix::fs::OFlags;
use tree::{as_host, find, name, open_path, root, stat, Tree};
use umvu_host::HostFs;
use umvu_interface::{
    Creation, Errno, FileKind, Filesystem, Inode, InodeRef, Opened, RemoveKind, RenameFlags, SetAttr, SetTime,
    Timestamp, XattrSet,
};

fn file(opened: Opened) -> std::fs::File {
    opened.into_file().unwrap().into()
}

#[test]
fn stat_is_that_of_the_host() {
    let tree = Tree::new();
    std::fs::write(tree.path("f"), b"12345").unwrap();
    std::os::unix::fs::symlink("nowhere", tree.path("l")).unwrap();
    let fs = tree.plain();
    for name in ["f", "l"] {
        let host = std::fs::symlink_metadata(tree.path(name)).unwrap();
        let shown = stat(&fs, name);
        assert_eq!((shown.dev, shown.ino, shown.mode), (host.dev(), host.ino(), host.mode()));
        assert_eq!((shown.uid, shown.gid, shown.size), (host.uid(), host.gid(), host.size()));
        assert_eq!((shown.nlink.into(), shown.rdev, shown.blocks), (host.nlink(), host.rdev(), host.blocks()));
        assert_eq!((shown.mtime.seconds, i64::from(shown.mtime.nanoseconds)), (host.mtime(), host.mtime_nsec()));
        assert_eq!(find(&fs, name).id().unwrap(), (host.dev(), host.ino()));
    }
    assert_eq!(find(&fs, "l").kind().unwrap(), FileKind::Symlink);
    assert_eq!(find(&fs, "l").readlink().unwrap(), b"nowhere");
    assert_eq!(find(&fs, "f").readlink().unwrap_err(), Errno::INVAL);
    assert_eq!(root(&fs).readlink().unwrap_err(), Errno::INVAL);
    assert!(root(&fs).kernel_checks());
}

#[test]
fn the_device_number_asked_for_is_shown_on_the_roots_own_device() {
    let tree = Tree::new();
    std::fs::write(tree.path("f"), b"").unwrap();
    let fs = HostFs::new(tree.fd(), None, Some(0x77));
    assert_eq!(stat(&fs, "f").dev, 0x77);
    assert_eq!(find(&fs, "f").id().unwrap().0, 0x77);
    let host = HostFs::new(open_path(std::path::Path::new("/")), None, Some(0x77));
    assert_eq!(host.root_inode().stat().unwrap().dev, 0x77);
    assert_ne!(find(&host, "proc").stat().unwrap().dev, 0x77);
}

#[test]
fn paths_stop_at_links_but_not_at_the_last() {
    let tree = Tree::new();
    std::fs::create_dir_all(tree.path("a/b")).unwrap();
    std::os::unix::fs::symlink("a", tree.path("l")).unwrap();
    std::os::unix::fs::symlink("/etc", tree.path("a/b/out")).unwrap();
    let fs = tree.plain();
    let find = |path: &str| root(&fs).lookup_path(path.as_bytes()).map(|inode| inode.kind().unwrap());
    assert_eq!(find("a/b"), Ok(FileKind::Directory));
    assert_eq!(find("a/b/out"), Ok(FileKind::Symlink));
    assert_eq!(find("l"), Ok(FileKind::Symlink));
    assert_eq!(find("l/b"), Err(Errno::LOOP));
    assert_eq!(find("a/b/out/passwd"), Err(Errno::LOOP));
    assert_eq!(find("a/none"), Err(Errno::NOENT));
    std::fs::write(tree.path("f"), b"").unwrap();
    assert_eq!(find("f/x"), Err(Errno::NOTDIR));
}

#[test]
fn dot_dot_never_leaves_the_tree() {
    let tree = Tree::new();
    std::fs::create_dir_all(tree.path("a/b")).unwrap();
    let fs = tree.plain();
    let root_id = root(&fs).id().unwrap();
    assert_eq!(root(&fs).parent().unwrap().id().unwrap(), root_id);
    let b = find(&fs, "a/b");
    let a = b.parent().unwrap();
    assert_eq!(a.id().unwrap(), find(&fs, "a").id().unwrap());
    let up = a.parent().unwrap();
    assert_eq!(up.id().unwrap(), root_id);
    assert_eq!(up.parent().unwrap().id().unwrap(), root_id);
    // The root found by another way is the root still.
    let wrapped = fs.inode(tree.fd());
    assert_eq!(wrapped.parent().unwrap().id().unwrap(), root_id);
    // The host moves a directory out while somebody is in it.
    std::fs::rename(tree.path("a/b"), tree.base.join("moved")).unwrap();
    assert_eq!(b.parent().err(), Some(Errno::NOENT));
    assert_eq!(b.path().unwrap_err(), Errno::NOENT);
}

#[test]
fn paths_follow_renames_and_end_with_removal() {
    let tree = Tree::new();
    std::fs::create_dir_all(tree.path("a/b")).unwrap();
    std::fs::write(tree.path("a/odd (deleted)"), b"").unwrap();
    let fs = tree.plain();
    assert_eq!(root(&fs).path().unwrap(), b"");
    let b = find(&fs, "a/b");
    assert_eq!(b.path().unwrap(), b"a/b");
    std::fs::rename(tree.path("a/b"), tree.path("c")).unwrap();
    assert_eq!(b.path().unwrap(), b"c");
    let odd = find(&fs, "a/odd (deleted)");
    assert_eq!(odd.path().unwrap(), b"a/odd (deleted)");
    std::fs::remove_dir(tree.path("c")).unwrap();
    assert_eq!(b.path().unwrap_err(), Errno::NOENT);
    std::fs::remove_file(tree.path("a/odd (deleted)")).unwrap();
    assert_eq!(odd.path().unwrap_err(), Errno::NOENT);
    // The tree itself moves.
    let a = find(&fs, "a");
    std::fs::rename(tree.base.join("t"), tree.base.join("u")).unwrap();
    assert_eq!(a.path().unwrap(), b"a");
    let host_path = tree.base.join("u/x y");
    assert_eq!(fs.path_of_host(host_path.as_os_str().as_encoded_bytes()).unwrap(), b"x y");
    assert_eq!(fs.path_of_host(b"/elsewhere"), None);
    let beside = tree.base.join("uu");
    assert_eq!(fs.path_of_host(beside.as_os_str().as_encoded_bytes()), None);
}

#[test]
fn new_objects_have_the_mode_asked_for() {
    let tree = Tree::new();
    let fs = tree.plain();
    let make = |label: &str, what: Creation<'_>| as_host(|me| root(&fs).create(me, &name(label), &what));
    make("f", Creation::Regular { mode: 0o4751 }).unwrap();
    make("d", Creation::Directory { mode: 0o1770 }).unwrap();
    make("p", Creation::Fifo { mode: 0o620 }).unwrap();
    make("s", Creation::Socket { mode: 0o600 }).unwrap();
    make("l", Creation::Symlink { target: b"to\xff" }).unwrap();
    make("w", Creation::CharDevice { mode: 0, rdev: 0 }).unwrap();
    let mode = |label: &str| std::fs::symlink_metadata(tree.path(label)).unwrap().mode();
    assert_eq!(mode("f"), 0o104_751);
    assert_eq!(mode("d"), 0o041_770);
    assert_eq!(mode("p"), 0o010_620);
    assert_eq!(mode("s"), 0o140_600);
    assert_eq!(find(&fs, "l").readlink().unwrap(), b"to\xff");
    assert_eq!(stat(&fs, "w").kind(), FileKind::CharDevice);
    assert_eq!(stat(&fs, "w").rdev, 0);
    assert_eq!(make("f", Creation::Regular { mode: 0 }).err(), Some(Errno::EXIST));
    assert_eq!(make("d", Creation::Directory { mode: 0 }).err(), Some(Errno::EXIST));
    if !rustix::process::geteuid().is_root() {
        let null = Creation::CharDevice { mode: 0o666, rdev: rustix::fs::makedev(1, 3) };
        assert_eq!(make("n", null).err(), Some(Errno::PERM));
    }
}

#[test]
fn a_new_file_is_open_whatever_its_mode() {
    use std::io::Write;
    let tree = Tree::new();
    let fs = tree.plain();
    let (inode, opened) =
        as_host(|me| root(&fs).create_open(me, &name("f"), 0, OFlags::RDWR | OFlags::APPEND)).unwrap();
    let mut opened = file(opened);
    opened.write_all(b"abc").unwrap();
    assert_eq!(inode.stat().unwrap().size, 3);
    assert_eq!(inode.stat().unwrap().mode, 0o100_000);
    assert_eq!(inode.path().unwrap(), b"f");
    let flags = rustix::fs::fcntl_getfl(&opened).unwrap();
    assert!(flags.contains(OFlags::RDWR | OFlags::APPEND));
    assert_eq!(fs.stat_open(opened.as_fd()).unwrap().ino, inode.stat().unwrap().ino);
    let again = as_host(|me| root(&fs).create_open(me, &name("f"), 0, OFlags::RDONLY));
    assert_eq!(again.err(), Some(Errno::EXIST));
}

#[test]
fn opening_obeys_the_kernel() {
    use std::io::{Read, Write};
    let tree = Tree::new();
    std::fs::write(tree.path("f"), b"old").unwrap();
    std::fs::create_dir(tree.path("d")).unwrap();
    std::os::unix::fs::symlink("f", tree.path("l")).unwrap();
    let fs = tree.plain();
    let open = |path: &str, flags: OFlags| as_host(|me| find(&fs, path).open(me, flags)).map(file);
    let mut text = String::new();
    open("f", OFlags::RDONLY | OFlags::NOFOLLOW).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "old");
    open("f", OFlags::WRONLY | OFlags::TRUNC).unwrap().write_all(b"n").unwrap();
    assert_eq!(std::fs::read(tree.path("f")).unwrap(), b"n");
    assert_eq!(open("d", OFlags::WRONLY).err(), Some(Errno::ISDIR));
    assert_eq!(open("l", OFlags::RDONLY).err(), Some(Errno::LOOP));
    assert_eq!(open("f", OFlags::RDONLY | OFlags::DIRECTORY).err(), Some(Errno::NOTDIR));
    let unnamed = as_host(|me| root(&fs).tmpfile(me, 0o640, OFlags::RDWR)).map(file).unwrap();
    assert_eq!(unnamed.metadata().unwrap().permissions().mode(), 0o100_640);
    let target: InodeRef = fs.inode(OwnedFd::from(unnamed));
    as_host(|me| root(&fs).link(me, &name("named"), &target)).unwrap();
    assert_eq!(stat(&fs, "named").mode, 0o100_640);
}

#[test]
fn links_stay_in_their_tree() {
    let tree = Tree::new();
    let other = Tree::new();
    std::fs::write(tree.path("f"), b"").unwrap();
    std::os::unix::fs::symlink("nowhere", tree.path("l")).unwrap();
    std::fs::create_dir(tree.path("d")).unwrap();
    let (fs, elsewhere) = (tree.plain(), other.plain());
    let link = |new: &str, old: &str| as_host(|me| root(&fs).link(me, &name(new), &find(&fs, old)));
    link("f2", "f").unwrap();
    assert_eq!(stat(&fs, "f2").ino, stat(&fs, "f").ino);
    assert_eq!(stat(&fs, "f").nlink, 2);
    link("l2", "l").unwrap();
    assert_eq!(find(&fs, "l2").id().unwrap(), find(&fs, "l").id().unwrap());
    assert_eq!(link("f2", "l"), Err(Errno::EXIST));
    assert_eq!(link("d2", "d"), Err(Errno::PERM));
    let outside = as_host(|me| root(&elsewhere).link(me, &name("x"), &find(&fs, "f")));
    assert_eq!(outside, Err(Errno::XDEV));
}

#[test]
fn renames_take_all_the_flags() {
    let tree = Tree::new();
    std::fs::write(tree.path("a"), b"a").unwrap();
    std::fs::write(tree.path("b"), b"b").unwrap();
    std::fs::create_dir(tree.path("d")).unwrap();
    let fs = tree.plain();
    let here: InodeRef = root(&fs);
    let rename =
        |old: &str, dir: &InodeRef, new: &str, flags| as_host(|me| here.rename(me, &name(old), dir, &name(new), flags));
    assert_eq!(rename("a", &here, "b", RenameFlags::NOREPLACE), Err(Errno::EXIST));
    rename("a", &here, "b", RenameFlags::EXCHANGE).unwrap();
    assert_eq!(std::fs::read(tree.path("a")).unwrap(), b"b");
    rename("a", &find(&fs, "d"), "moved", RenameFlags::WHITEOUT).unwrap();
    assert_eq!(stat(&fs, "d/moved").size, 1);
    assert_eq!((stat(&fs, "a").kind(), stat(&fs, "a").rdev), (FileKind::CharDevice, 0));
    assert_eq!(rename("d", &find(&fs, "d"), "in", RenameFlags::empty()), Err(Errno::INVAL));
    assert_eq!(rename("none", &here, "x", RenameFlags::empty()), Err(Errno::NOENT));
    let other = Tree::new();
    let away: InodeRef = root(&other.plain());
    assert_eq!(rename("b", &away, "b", RenameFlags::empty()), Err(Errno::XDEV));
}

#[test]
fn removal_tells_files_from_directories() {
    let tree = Tree::new();
    std::fs::write(tree.path("f"), b"").unwrap();
    std::fs::create_dir_all(tree.path("d/e")).unwrap();
    let fs = tree.plain();
    let remove = |label: &str, kind| as_host(|me| root(&fs).remove(me, &name(label), kind));
    assert_eq!(remove("d", RemoveKind::File), Err(Errno::ISDIR));
    assert_eq!(remove("f", RemoveKind::Directory), Err(Errno::NOTDIR));
    assert_eq!(remove("d", RemoveKind::Directory), Err(Errno::NOTEMPTY));
    assert_eq!(remove("f", RemoveKind::File), Ok(()));
    assert_eq!(remove("f", RemoveKind::File), Err(Errno::NOENT));
    let e = find(&fs, "d/e");
    as_host(|me| find(&fs, "d").remove(me, &name("e"), RemoveKind::Directory)).unwrap();
    assert_eq!(e.read_dir().unwrap_err(), Errno::NOENT);
    assert_eq!(as_host(|me| e.create(me, &name("x"), &Creation::Regular { mode: 0 })).err(), Some(Errno::NOENT));
}

#[test]
fn attributes_change_on_the_host() {
    let tree = Tree::new();
    std::fs::write(tree.path("f"), b"12345").unwrap();
    std::os::unix::fs::symlink("f", tree.path("l")).unwrap();
    let fs = tree.plain();
    let set = |path: &str, change: SetAttr| as_host(|me| find(&fs, path).set_attr(me, &change));
    set("f", SetAttr { mode: Some(0o4710), ..SetAttr::default() }).unwrap();
    assert_eq!(std::fs::metadata(tree.path("f")).unwrap().mode(), 0o104_710);
    assert_eq!(set("l", SetAttr { mode: Some(0o700), ..SetAttr::default() }), Err(Errno::OPNOTSUPP));
    set("f", SetAttr { size: Some(2), ..SetAttr::default() }).unwrap();
    assert_eq!(std::fs::read(tree.path("f")).unwrap(), b"12");
    assert_eq!(set("f", SetAttr { size: Some(u64::MAX), ..SetAttr::default() }), Err(Errno::INVAL));
    assert_eq!(
        as_host(|me| root(&fs).set_attr(me, &SetAttr { size: Some(0), ..SetAttr::default() })),
        Err(Errno::ISDIR)
    );
    let then = Timestamp { seconds: -5, nanoseconds: 7 };
    for path in ["f", "l"] {
        set(path, SetAttr { mtime: SetTime::At(then), ..SetAttr::default() }).unwrap();
        assert_eq!(stat(&fs, path).mtime, then);
        assert_ne!(stat(&fs, path).atime, then);
    }
    set("f", SetAttr { mtime: SetTime::Now, ..SetAttr::default() }).unwrap();
    assert!(stat(&fs, "f").mtime > then);
    if !rustix::process::geteuid().is_root() {
        assert_eq!(set("f", SetAttr { uid: Some(0), ..SetAttr::default() }), Err(Errno::PERM));
    }
}

#[test]
fn extended_attributes_are_those_of_the_host() {
    let tree = Tree::new();
    std::fs::write(tree.path("f"), b"").unwrap();
    std::os::unix::fs::symlink("f", tree.path("l")).unwrap();
    let fs = tree.plain();
    let f = find(&fs, "f");
    let long = vec![b'v'; 1000];
    as_host(|me| {
        f.set_xattr(me, b"user.a", &long, XattrSet::Create).unwrap();
        f.set_xattr(me, b"user.b", b"", XattrSet::Any).unwrap();
        assert_eq!(f.set_xattr(me, b"user.a", b"", XattrSet::Create), Err(Errno::EXIST));
        assert_eq!(f.set_xattr(me, b"user.c", b"", XattrSet::Replace), Err(Errno::NODATA));
        assert_eq!(find(&fs, "l").set_xattr(me, b"user.a", b"", XattrSet::Any), Err(Errno::PERM));
    });
    assert_eq!(f.get_xattr(b"user.a").unwrap(), long);
    assert_eq!(f.get_xattr(b"user.b").unwrap(), b"");
    assert_eq!(f.get_xattr(&[b'x'; 300]).unwrap_err(), Errno::RANGE);
    let mut names = f.list_xattr().unwrap();
    names.retain(|name| name.starts_with(b"user."));
    names.sort();
    assert_eq!(names, [b"user.a", b"user.b"]);
    as_host(|me| f.remove_xattr(me, b"user.a")).unwrap();
    assert_eq!(f.get_xattr(b"user.a").unwrap_err(), Errno::NODATA);
}

#[test]
fn listings_are_whole() {
    let tree = Tree::new();
    for number in 0..3000 {
        std::fs::write(tree.path(&format!("file-with-a-longer-name-{number}")), b"").unwrap();
    }
    std::fs::create_dir(tree.path("d")).unwrap();
    let fs = tree.plain();
    let entries = root(&fs).read_dir().unwrap();
    assert_eq!(entries.len(), 3001);
    let d = entries.iter().find(|entry| &*entry.name == b"d").unwrap();
    assert_eq!((d.ino, d.dirent_type), (stat(&fs, "d").ino, FileKind::Directory.dirent_type()));
    assert_eq!(find(&fs, "file-with-a-longer-name-7").read_dir().unwrap_err(), Errno::NOTDIR);
    assert!(fs.statfs(&*root(&fs) as &dyn Inode).unwrap().blocks > 0);
}

#[test]
fn an_open_object_is_found_again() {
    let tree = Tree::new();
    let fs = tree.plain();
    let open = std::fs::File::create(tree.path("f")).unwrap();
    let ino = open.metadata().unwrap().ino();
    std::fs::remove_file(tree.path("f")).unwrap();
    let inode = fs.inode_of_open(open.into()).unwrap();
    assert_eq!(inode.id().unwrap().1, ino);
    as_host(|me| inode.set_attr(me, &SetAttr { mode: Some(0o600), ..SetAttr::default() })).unwrap();
    assert_eq!(inode.stat().unwrap().mode, 0o100_600);
    let foreign = std::fs::File::open("/etc/passwd").unwrap();
    assert_eq!(fs.inode_of_open(foreign.into()).err(), Some(Errno::NOENT));
}
