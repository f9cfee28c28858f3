//! Open descriptors: what they name after their files were copied up, renamed or removed.

mod bed;

use std::os::fd::{AsFd, AsRawFd};

use bed::{picture, Bed, Tree};
use umvu_interface::{InodeRef, OFlags, SetAttr};

fn inode(tree: &Tree, file: &std::fs::File) -> InodeRef {
    tree.filesystem.inode_of_open(file.as_fd().try_clone_to_owned().unwrap()).unwrap()
}

fn path(tree: &Tree, file: &std::fs::File) -> String {
    let host = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap();
    String::from_utf8(tree.filesystem.path_of_host(host.to_str().unwrap().as_bytes()).unwrap()).unwrap()
}

fn mode(mode: u32) -> SetAttr {
    SetAttr { mode: Some(mode), ..SetAttr::default() }
}

#[test]
fn a_change_through_a_descriptor_reaches_the_copy() {
    let bed = Bed::new();
    bed.file("lower/dir/file", "x");
    let tree = bed.cow();
    let low = tree.open("dir/file", OFlags::RDONLY).unwrap();
    inode(&tree, &low).set_attr(&tree.caller(), &mode(0o600)).unwrap();
    assert_eq!(tree.stat("dir/file").mode, 0o100_600);
    // The descriptor is of the lower file still, the inode of the one that is seen.
    inode(&tree, &low).set_attr(&tree.caller(), &mode(0o640)).unwrap();
    assert_eq!(tree.stat("dir/file").mode, 0o100_640);
    assert_eq!(path(&tree, &low), "dir/file");
    tree.mv("dir", "moved").unwrap();
    assert_eq!(path(&tree, &low), "moved/file");
    inode(&tree, &low).set_attr(&tree.caller(), &mode(0o644)).unwrap();
    assert_eq!(tree.stat("moved/file").mode, 0o100_644);
}

#[test]
fn a_change_through_a_descriptor_reaches_a_renamed_file() {
    let bed = Bed::new();
    bed.file("lower/file", "x").file("lower/dir/other", "y");
    let tree = bed.cow();
    let (low, other) = (tree.open("file", OFlags::RDONLY).unwrap(), tree.open("dir/other", OFlags::RDONLY).unwrap());
    tree.mv("file", "dir/moved").unwrap();
    inode(&tree, &low).set_attr(&tree.caller(), &mode(0o600)).unwrap();
    assert_eq!(tree.stat("dir/moved").mode, 0o100_600);
    assert_eq!(bed::fd_stat(&tree, &low).mode, 0o100_600);
    assert_eq!(path(&tree, &low), "dir/moved");
    // Once more, with the directory, and another file in the first place.
    tree.mv("dir", "away").unwrap();
    tree.mv("away/moved", "end").unwrap();
    tree.write("file", "another").unwrap();
    tree.mv("away/other", "away/moved").unwrap();
    inode(&tree, &low).set_attr(&tree.caller(), &mode(0o640)).unwrap();
    inode(&tree, &other).set_attr(&tree.caller(), &mode(0o604)).unwrap();
    assert_eq!((tree.stat("end").mode, tree.stat("away/moved").mode), (0o100_640, 0o100_604));
    assert_eq!((path(&tree, &low), path(&tree, &other)), ("end".to_string(), "away/moved".to_string()));
    // Removed at last, it is not changed: the kernel does not either.
    tree.rm("end").unwrap();
    assert!(inode(&tree, &low).set_attr(&tree.caller(), &mode(0o600)).is_err());
    assert_eq!(bed::fd_stat(&tree, &low).nlink, 1);
}

#[test]
fn a_removed_lower_file_that_is_open_is_not_changed() {
    let bed = Bed::new();
    bed.file("lower/file", "x");
    let before = picture(&bed.path("lower"));
    let tree = bed.cow();
    let low = tree.open("file", OFlags::RDONLY).unwrap();
    tree.rm("file").unwrap();
    assert!(inode(&tree, &low).set_attr(&tree.caller(), &mode(0o600)).is_err());
    tree.write("file", "another").unwrap();
    let another = tree.stat("file").mode;
    assert!(inode(&tree, &low).set_attr(&tree.caller(), &mode(0o600)).is_err());
    assert_eq!(tree.stat("file").mode, another);
    assert_eq!(picture(&bed.path("lower")), before);
    assert_eq!(bed::fd_stat(&tree, &low).ino, inode(&tree, &low).stat().unwrap().ino);
}

#[test]
fn a_descriptor_opened_before_the_copy_shows_what_became_of_the_file() {
    let bed = Bed::new();
    bed.file("lower/file", "x").file("lower/kept", "x");
    let tree = bed.cow();
    let low = tree.open("file", OFlags::RDONLY).unwrap();
    let kept = tree.open("kept", OFlags::RDONLY).unwrap();
    inode(&tree, &low).set_attr(&tree.caller(), &mode(0o600)).unwrap();
    tree.append("file", "yz").unwrap();
    let (open, named) = (bed::fd_stat(&tree, &low), tree.stat("file"));
    assert_eq!((open.mode, open.size, open.ino, open.dev), (0o100_600, 3, named.ino, named.dev));
    assert_eq!(bed::fd_stat(&tree, &kept).ino, tree.ino("kept"));
}

#[test]
fn a_removed_upper_file_that_is_open_can_be_changed() {
    let bed = Bed::new();
    bed.file("lower/file", "x");
    let tree = bed.cow();
    let high = tree.open("file", OFlags::RDWR).unwrap();
    tree.rm("file").unwrap();
    inode(&tree, &high).set_attr(&tree.caller(), &mode(0o600)).unwrap();
    assert_eq!(bed::fd_stat(&tree, &high).mode, 0o100_600);
    assert_eq!(bed::fd_stat(&tree, &high).ino, inode(&tree, &high).stat().unwrap().ino);
    assert_eq!(bed::fd_stat(&tree, &high).nlink, 0);
}

#[test]
fn a_file_with_several_names_is_known_by_the_one_that_was_opened() {
    let bed = Bed::new();
    bed.file("lower/dir/a", "x");
    std::fs::hard_link(bed.path("lower/dir/a"), bed.path("lower/b")).unwrap();
    let tree = bed.cow();
    tree.append("dir/a", "+").unwrap();
    let by_other_name = tree.open("b", OFlags::RDONLY).unwrap();
    assert_eq!(path(&tree, &by_other_name), "b");
    assert_eq!(inode(&tree, &by_other_name).path().unwrap(), b"b");
    let by_own_name = tree.open("dir/a", OFlags::RDONLY).unwrap();
    assert_eq!(path(&tree, &by_own_name), "dir/a");
}

#[test]
fn files_of_the_layers_are_told_apart_without_a_look_at_them_first() {
    let bed = Bed::new();
    bed.file("lower/file", "x").file("lower/other", "y");
    drop({
        let tree = bed.cow();
        tree.append("file", "+").unwrap();
        tree
    });
    let tree = bed.cow();
    // Opened by host paths, as descriptors are that a guest was born with.
    let open = |path: &str| std::fs::File::open(bed.path(path)).unwrap();
    let (upper, lower) = (open("upper/file"), open("lower/other"));
    assert_eq!(bed::fd_stat(&tree, &upper).ino, tree.ino("file"));
    assert_eq!(bed::fd_stat(&tree, &lower).ino, tree.ino("other"));
    assert_eq!(bed::fd_stat(&tree, &upper).dev, tree.stat("file").dev);
}
