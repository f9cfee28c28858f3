//! A copy-on-write union: changes are seen in it, land in the upper layer and never reach the lower one.

mod bed;

use bed::{attribute, picture, Bed};
use umvu_interface::{Creation, Errno, FileKind, OFlags};

fn sample() -> Bed {
    let bed = Bed::new();
    bed.file("lower/etc/hosts", "localhost\n").file("lower/etc/deep/er/file", "x").file("lower/top", "top");
    bed
}

#[test]
fn the_lower_tree_shows_through_an_empty_upper() {
    let bed = sample();
    let tree = bed.cow();
    assert_eq!(tree.ls("").unwrap(), ["etc", "top"]);
    assert_eq!(tree.ls("etc").unwrap(), ["deep", "hosts"]);
    assert_eq!(tree.read("etc/deep/er/file").unwrap(), "x");
    assert_eq!(tree.find("etc/none").err(), Some(Errno::NOENT));
    assert_eq!(tree.find("top/none").err(), Some(Errno::NOTDIR));
    assert_eq!(picture(&bed.path("upper")).len(), 1, "only the work directory");
}

#[test]
fn what_is_written_is_read_and_the_lower_layer_stays() {
    let bed = sample();
    let before = picture(&bed.path("lower"));
    let tree = bed.cow();
    tree.append("etc/hosts", "more\n").unwrap();
    tree.write("top", "new").unwrap();
    tree.write("etc/deep/er/other", "other").unwrap();
    tree.mkdir("etc/deep/dir").unwrap();
    tree.symlink("hosts", "etc/link").unwrap();
    tree.rm("etc/deep/er/file").unwrap();
    assert_eq!(tree.read("etc/hosts").unwrap(), "localhost\nmore\n");
    assert_eq!(tree.read("top").unwrap(), "new");
    assert_eq!(tree.ls("etc/deep").unwrap(), ["dir", "er"]);
    assert_eq!(tree.ls("etc/deep/er").unwrap(), ["other"]);
    assert_eq!(tree.find("etc/link").unwrap().readlink().unwrap(), b"hosts");
    assert_eq!(picture(&bed.path("lower")), before);
}

#[test]
fn a_later_mount_with_the_same_upper_shows_everything() {
    let bed = sample();
    {
        let tree = bed.cow();
        tree.write("etc/hosts", "changed").unwrap();
        tree.rm("top").unwrap();
        tree.rm_r("etc/deep").unwrap();
        tree.mkdir("etc/deep").unwrap();
    }
    let tree = bed.cow();
    assert_eq!(tree.ls("").unwrap(), ["etc"]);
    assert_eq!(tree.read("etc/hosts").unwrap(), "changed");
    assert!(tree.ls("etc/deep").unwrap().is_empty());
}

#[test]
fn a_directory_that_is_removed_and_made_again_is_empty() {
    let bed = sample();
    let tree = bed.cow();
    tree.rm_r("etc").unwrap();
    assert!(!tree.exists("etc"));
    tree.mkdir("etc").unwrap();
    assert!(tree.ls("etc").unwrap().is_empty());
    assert!(!tree.exists("etc/hosts"));
    tree.write("etc/hosts", "mine").unwrap();
    assert_eq!(tree.ls("etc").unwrap(), ["hosts"]);
    assert_eq!(attribute(&bed.path("upper/etc"), "user.overlay.opaque"), Some(b"y".to_vec()));
}

#[test]
fn removed_names_can_be_made_again_as_anything() {
    let bed = sample();
    let tree = bed.cow();
    tree.rm("top").unwrap();
    assert_eq!(tree.rm("top"), Err(Errno::NOENT));
    tree.mkdir("top").unwrap();
    tree.write("top/in", "in").unwrap();
    tree.rm_r("top").unwrap();
    tree.symlink("elsewhere", "top").unwrap();
    assert_eq!(tree.find("top").unwrap().kind(), Ok(FileKind::Symlink));
    tree.rm("top").unwrap();
    tree.create("top", Creation::Fifo { mode: 0o600 }).unwrap();
    assert_eq!(tree.find("top").unwrap().kind(), Ok(FileKind::Fifo));
    tree.rm("top").unwrap();
    tree.write("top", "again").unwrap();
    assert_eq!(tree.read("top").unwrap(), "again");
    assert_eq!(std::fs::read_to_string(bed.path("lower/top")).unwrap(), "top");
}

#[test]
fn only_empty_directories_are_removed() {
    let bed = sample();
    let tree = bed.cow();
    assert_eq!(tree.rmdir("etc"), Err(Errno::NOTEMPTY));
    assert_eq!(tree.rmdir("top"), Err(Errno::NOTDIR));
    assert_eq!(tree.rm("etc"), Err(Errno::ISDIR));
    assert_eq!(tree.mkdir("etc"), Err(Errno::EXIST));
    assert_eq!(tree.create("etc/hosts", Creation::Regular { mode: 0o644 }).err(), Some(Errno::EXIST));
}

#[test]
fn a_removed_directory_that_is_still_held_takes_nothing() {
    let bed = sample();
    bed.dirs(&["lower/empty"]);
    let tree = bed.cow();
    let held = tree.find("empty").unwrap();
    tree.rmdir("empty").unwrap();
    assert_eq!(
        held.create(&tree.caller(), &bed::name("x"), &Creation::Regular { mode: 0o600 }).err(),
        Some(Errno::NOENT)
    );
    assert_eq!(held.read_dir().err(), Some(Errno::NOENT));
    assert_eq!(held.path().err(), Some(Errno::NOENT));
    assert_eq!(held.stat().unwrap().nlink, 0);
    tree.mkdir("empty").unwrap();
    assert_eq!(held.lookup(&bed::name("x")).err(), Some(Errno::NOENT));
}

#[test]
fn whiteouts_are_devices_that_overlayfs_knows() {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let bed = sample();
    let tree = bed.cow();
    tree.rm("top").unwrap();
    tree.rm_r("etc/deep").unwrap();
    for path in ["upper/top", "upper/etc/deep"] {
        let meta = bed.path(path).symlink_metadata().unwrap();
        assert!(meta.file_type().is_char_device() && meta.rdev() == 0, "{path}");
    }
}

#[test]
fn whiteouts_are_one_object_while_any_is_left() {
    use std::os::unix::fs::MetadataExt;
    let bed = Bed::new();
    for name in ["a", "b", "c", "d"] {
        bed.file(&format!("lower/{name}"), "");
    }
    let tree = bed.cow();
    let ino = |name: &str| bed.path(&format!("upper/{name}")).symlink_metadata().unwrap().ino();
    tree.rm("a").unwrap();
    tree.rm("b").unwrap();
    assert_eq!(ino("a"), ino("b"));
    tree.write("a", "").unwrap();
    tree.write("b", "").unwrap();
    tree.rm("c").unwrap();
    tree.rm("d").unwrap();
    assert_eq!(ino("c"), ino("d"));
    tree.rm("a").unwrap();
    assert_eq!(tree.ls("").unwrap(), ["b"]);
}

#[test]
fn nobody_makes_a_whiteout_by_hand() {
    let bed = sample();
    let tree = bed.cow();
    assert_eq!(tree.create("x", Creation::CharDevice { mode: 0o600, rdev: 0 }).err(), Some(Errno::PERM));
}

#[test]
fn inode_numbers_survive_copy_up_and_a_new_mount() {
    let bed = sample();
    let numbers = |tree: &bed::Tree| [tree.ino(""), tree.ino("etc"), tree.ino("etc/hosts"), tree.ino("top")];
    let tree = bed.cow();
    let before = numbers(&tree);
    let device = tree.stat("").dev;
    for path in ["etc", "etc/hosts", "top"] {
        assert_eq!(tree.stat(path).dev, device);
    }
    tree.append("etc/hosts", "x").unwrap();
    tree.chmod("top", 0o600).unwrap();
    assert_eq!(numbers(&tree), before);
    tree.ls("etc").unwrap();
    drop(tree);
    let tree = bed.cow();
    assert_eq!(numbers(&tree), before);
    tree.ls("").unwrap();
}

#[test]
fn an_open_file_shows_what_its_path_shows() {
    let bed = sample();
    let tree = bed.cow();
    let low = tree.open("etc/hosts", OFlags::RDONLY).unwrap();
    assert_eq!(bed::fd_stat(&tree, &low).ino, tree.ino("etc/hosts"));
    assert_eq!(bed::fd_stat(&tree, &low).dev, tree.stat("etc/hosts").dev);
    let high = tree.open("etc/hosts", OFlags::RDWR).unwrap();
    assert_eq!(bed::fd_stat(&tree, &high).ino, tree.ino("etc/hosts"));
    // Both are one file, whichever layer they are in.
    assert_eq!(bed::fd_stat(&tree, &low).ino, bed::fd_stat(&tree, &high).ino);
    tree.write("new", "x").unwrap();
    let new = tree.open("new", OFlags::RDONLY).unwrap();
    assert_eq!(bed::fd_stat(&tree, &new).ino, tree.ino("new"));
    assert_eq!(bed::fd_stat(&tree, &new).size, 1);
}

#[test]
fn attributes_of_the_union_are_hidden_and_can_be_nested() {
    use umvu_interface::XattrSet;
    let bed = sample();
    let tree = bed.cow();
    tree.append("etc/hosts", "x").unwrap();
    let hosts = tree.find("etc/hosts").unwrap();
    assert!(!hosts.list_xattr().unwrap().iter().any(|name| name.starts_with(b"user.overlay")));
    let opaque = b"user.overlay.opaque";
    assert_eq!(hosts.get_xattr(opaque).err(), Some(Errno::NODATA));
    hosts.set_xattr(&tree.caller(), opaque, b"y", XattrSet::Create).unwrap();
    assert_eq!(hosts.get_xattr(opaque).unwrap(), b"y");
    assert_eq!(hosts.list_xattr().unwrap(), [opaque.to_vec()]);
    assert_eq!(attribute(&bed.path("upper/etc/hosts"), "user.overlay.overlay.opaque"), Some(b"y".to_vec()));
    hosts.remove_xattr(&tree.caller(), opaque).unwrap();
    assert_eq!(hosts.get_xattr(opaque).err(), Some(Errno::NODATA));
}

#[test]
fn links_lead_to_one_file() {
    let bed = sample();
    let tree = bed.cow();
    tree.link("top", "etc/second").unwrap();
    tree.append("etc/second", "!").unwrap();
    assert_eq!(tree.read("top").unwrap(), "top!");
    assert_eq!(tree.ino("top"), tree.ino("etc/second"));
    assert_eq!(tree.link("etc", "x"), Err(Errno::PERM));
    assert_eq!(tree.link("top", "etc/hosts"), Err(Errno::EXIST));
    tree.rm("etc/hosts").unwrap();
    tree.link("top", "etc/hosts").unwrap();
    assert_eq!(tree.read("etc/hosts").unwrap(), "top!");
}

#[test]
fn unnamed_files_lie_in_the_upper_layer() {
    let bed = sample();
    let tree = bed.cow();
    let etc = tree.find("etc").unwrap();
    let fd = etc.tmpfile(&tree.caller(), 0o600, OFlags::RDWR).and_then(umvu_interface::Opened::into_file).unwrap();
    assert_eq!(rustix::io::write(&fd, b"x").unwrap(), 1);
    assert!(bed.path("upper/etc").is_dir());
    assert_eq!(tree.ls("etc").unwrap(), ["deep", "hosts"]);
}
