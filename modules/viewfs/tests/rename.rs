//! Renames in a union: what moves, what is left behind, what holders of directories see.

mod bed;

use bed::{attribute, picture, Bed, Tree};
use umvu_interface::{Errno, FileKind, OFlags, RenameFlags};

fn sample() -> Bed {
    let bed = Bed::new();
    bed.file("lower/d/one", "1").file("lower/d/sub/two", "2").file("lower/f", "f").file("lower/g", "g");
    bed.dirs(&["lower/empty", "lower/other"]);
    bed
}

/// Runs a check on the union, and again on a new mount of the same layers.
fn twice(bed: &Bed, tree: Tree, check: impl Fn(&Tree)) {
    check(&tree);
    drop(tree);
    check(&bed.cow());
}

#[test]
fn a_moved_file_leaves_nothing_behind() {
    let bed = sample();
    let before = picture(&bed.path("lower"));
    let tree = bed.cow();
    let number = tree.ino("f");
    tree.append("f", "+").unwrap();
    tree.mv("f", "d/sub/f").unwrap();
    tree.mv("g", "h").unwrap();
    twice(&bed, tree, |tree| {
        assert!(!tree.exists("f") && !tree.exists("g"));
        assert_eq!(tree.read("d/sub/f").unwrap(), "f+");
        assert_eq!(tree.read("h").unwrap(), "g");
        assert_eq!(tree.ino("d/sub/f"), number);
        assert_eq!(tree.ls("").unwrap(), ["d", "empty", "h", "other"]);
        assert_eq!(tree.ls("d/sub").unwrap(), ["f", "two"]);
    });
    assert_eq!(picture(&bed.path("lower")), before);
}

#[test]
fn a_file_replaces_a_file_of_any_layer() {
    let bed = sample();
    let tree = bed.cow();
    tree.write("new", "new").unwrap();
    tree.mv("new", "f").unwrap();
    tree.mv("f", "g").unwrap();
    tree.mv("g", "d/one").unwrap();
    twice(&bed, tree, |tree| {
        assert_eq!(tree.read("d/one").unwrap(), "new");
        assert_eq!(tree.ls("").unwrap(), ["d", "empty", "other"]);
    });
}

#[test]
fn names_that_were_removed_can_be_renamed_to() {
    let bed = sample();
    let tree = bed.cow();
    tree.rm("f").unwrap();
    tree.rmdir("empty").unwrap();
    tree.mv("g", "f").unwrap();
    tree.mkdir("new").unwrap();
    tree.write("new/in", "in").unwrap();
    tree.mv("new", "empty").unwrap();
    twice(&bed, tree, |tree| {
        assert_eq!(tree.read("f").unwrap(), "g");
        assert_eq!(tree.ls("empty").unwrap(), ["in"]);
        assert_eq!(tree.ls("").unwrap(), ["d", "empty", "f", "other"]);
    });
}

#[test]
fn a_new_directory_over_a_removed_one_does_not_show_the_old_content() {
    let bed = sample();
    let tree = bed.cow();
    tree.rm_r("d").unwrap();
    tree.mkdir("new").unwrap();
    tree.mv("new", "d").unwrap();
    twice(&bed, tree, |tree| assert!(tree.ls("d").unwrap().is_empty()));
}

#[test]
fn a_new_directory_over_an_empty_lower_one_stays_apart_from_it() {
    let bed = sample();
    let tree = bed.cow();
    tree.mkdir("new").unwrap();
    tree.mv("new", "empty").unwrap();
    assert_eq!(attribute(&bed.path("upper/empty"), "user.overlay.opaque"), Some(b"y".to_vec()));
    tree.rm_r("d").unwrap();
    tree.mkdir("d").unwrap();
    tree.mkdir("src").unwrap();
    tree.write("src/x", "x").unwrap();
    tree.mv("src", "d").unwrap();
    twice(&bed, tree, |tree| assert_eq!(tree.ls("d").unwrap(), ["x"]));
}

#[test]
fn a_renamed_lower_directory_keeps_its_content_and_number() {
    let bed = sample();
    let before = picture(&bed.path("lower"));
    let tree = bed.cow();
    let numbers = (tree.ino("d"), tree.ino("d/sub"), tree.ino("d/one"));
    tree.mv("d", "other/moved").unwrap();
    assert_eq!(attribute(&bed.path("upper/other/moved"), "user.overlay.redirect"), Some(b"/d".to_vec()));
    twice(&bed, tree, |tree| {
        assert!(!tree.exists("d"));
        assert_eq!(tree.ls("other/moved").unwrap(), ["one", "sub"]);
        assert_eq!(tree.read("other/moved/sub/two").unwrap(), "2");
        let now = (tree.ino("other/moved"), tree.ino("other/moved/sub"), tree.ino("other/moved/one"));
        assert_eq!(now, numbers);
        tree.ls("other").unwrap();
    });
    assert_eq!(picture(&bed.path("lower")), before);
}

#[test]
fn directories_can_be_renamed_again_and_changed_inside() {
    let bed = sample();
    let tree = bed.cow();
    tree.mv("d", "e").unwrap();
    tree.mv("e/sub", "e/bus").unwrap();
    tree.mv("e", "other/e").unwrap();
    tree.append("other/e/bus/two", "+").unwrap();
    tree.rm("other/e/one").unwrap();
    tree.mkdir("d").unwrap();
    tree.write("d/fresh", "fresh").unwrap();
    twice(&bed, tree, |tree| {
        assert_eq!(tree.read("other/e/bus/two").unwrap(), "2+");
        assert_eq!(tree.ls("other/e").unwrap(), ["bus"]);
        assert_eq!(tree.ls("d").unwrap(), ["fresh"]);
        assert_eq!(tree.ls("").unwrap(), ["d", "empty", "f", "g", "other"]);
    });
    let tree = bed.cow();
    tree.rm_r("other/e").unwrap();
    twice(&bed, tree, |tree| assert!(tree.ls("other").unwrap().is_empty()));
}

#[test]
fn who_holds_a_directory_moves_with_it() {
    let bed = sample();
    let tree = bed.cow();
    let held = tree.find("d/sub").unwrap();
    tree.mv("d", "other/moved").unwrap();
    assert_eq!(held.path().unwrap(), b"other/moved/sub");
    assert_eq!(held.parent().unwrap().path().unwrap(), b"other/moved");
    held.create(&tree.caller(), &bed::name("new"), &umvu_interface::Creation::Regular { mode: 0o600 }).unwrap();
    assert_eq!(tree.ls("other/moved/sub").unwrap(), ["new", "two"]);
    tree.mv("other", "last").unwrap();
    assert_eq!(held.path().unwrap(), b"last/moved/sub");
}

#[test]
fn what_a_renamed_directory_held_is_found_by_its_host_path() {
    let bed = sample();
    let tree = bed.cow();
    tree.mv("d", "other/moved").unwrap();
    for _ in 0..2 {
        let lower = bed.path("lower/d/sub/two");
        let found = tree.filesystem.path_of_host(lower.to_str().unwrap().as_bytes());
        assert_eq!(found.unwrap(), b"other/moved/sub/two");
    }
    let upper = bed.path("upper/other/moved");
    let found = tree.filesystem.path_of_host(upper.to_str().unwrap().as_bytes());
    assert_eq!(found.unwrap(), b"other/moved");
}

#[test]
fn without_redirects_lower_directories_are_not_renamed() {
    let bed = sample();
    bed.dirs(&["upper"]);
    let tree = bed.mount("/upper", "/lower", &["cow", "redirect_dir=off"]);
    assert_eq!(tree.mv("d", "e"), Err(Errno::XDEV));
    tree.mkdir("new").unwrap();
    tree.mv("new", "newer").unwrap();
    assert_eq!(tree.ls("").unwrap(), ["d", "empty", "f", "g", "newer", "other"]);
}

#[test]
fn exchanged_names_change_places() {
    let bed = sample();
    let tree = bed.cow();
    let held = tree.find("d/sub").unwrap();
    tree.rename("f", "d/sub", RenameFlags::EXCHANGE).unwrap();
    tree.mkdir("fresh").unwrap();
    tree.rename("empty", "fresh", RenameFlags::EXCHANGE).unwrap();
    assert_eq!(held.path().unwrap(), b"f");
    twice(&bed, tree, |tree| {
        assert_eq!(tree.read("d/sub").unwrap(), "f");
        assert_eq!(tree.read("f/two").unwrap(), "2");
        assert_eq!(tree.ls("").unwrap(), ["d", "empty", "f", "fresh", "g", "other"]);
    });
    let tree = bed.cow();
    assert_eq!(tree.rename("g", "none", RenameFlags::EXCHANGE), Err(Errno::NOENT));
    assert_eq!(tree.rename("d", "d/sub", RenameFlags::EXCHANGE), Err(Errno::INVAL));
}

#[test]
fn renames_are_refused_as_the_kernel_refuses_them() {
    let bed = sample();
    let tree = bed.cow();
    assert_eq!(tree.mv("none", "x"), Err(Errno::NOENT));
    assert_eq!(tree.rename("f", "g", RenameFlags::NOREPLACE), Err(Errno::EXIST));
    assert_eq!(tree.mv("f", "empty"), Err(Errno::ISDIR));
    assert_eq!(tree.mv("empty", "f"), Err(Errno::NOTDIR));
    assert_eq!(tree.mv("empty", "d"), Err(Errno::NOTEMPTY));
    assert_eq!(tree.mv("d", "d/sub/d"), Err(Errno::INVAL));
    assert_eq!(tree.mv("d/sub", "d"), Err(Errno::NOTEMPTY));
    let replace_and_exchange = RenameFlags::NOREPLACE | RenameFlags::EXCHANGE;
    assert_eq!(tree.rename("f", "g", replace_and_exchange), Err(Errno::INVAL));
    tree.rename("f", "n", RenameFlags::NOREPLACE).unwrap();
    assert_eq!(tree.read("n").unwrap(), "f");
}

#[test]
fn a_directory_of_whiteouts_counts_as_empty() {
    let bed = sample();
    let tree = bed.cow();
    tree.rm("d/one").unwrap();
    tree.rm_r("d/sub").unwrap();
    tree.mv("other", "d").unwrap();
    twice(&bed, tree, |tree| {
        assert!(tree.ls("d").unwrap().is_empty());
        assert!(!tree.exists("other"));
    });
    let tree = bed.cow();
    tree.rmdir("d").unwrap();
    twice(&bed, tree, |tree| assert!(!tree.exists("d")));
}

#[test]
fn other_file_systems_are_other_devices() {
    let bed = sample();
    let tree = bed.cow();
    let caller = tree.caller();
    let done = tree.root.rename(&caller, &bed::name("f"), &bed.inode("/"), &bed::name("x"), RenameFlags::empty());
    assert_eq!(done, Err(Errno::XDEV));
    assert_eq!(tree.root.link(&caller, &bed::name("x"), &bed.inode("/lower/f")), Err(Errno::XDEV));
}

#[test]
fn two_names_of_one_file_stay_when_renamed_onto_each_other() {
    let bed = sample();
    let tree = bed.cow();
    tree.link("f", "same").unwrap();
    tree.mv("f", "same").unwrap();
    assert!(tree.exists("f") && tree.exists("same"));
}

#[test]
fn a_pure_upper_rename_moves_open_files_too() {
    let bed = sample();
    let tree = bed.cow();
    tree.mkdir("a").unwrap();
    tree.write("a/x", "x").unwrap();
    let open = tree.open("a/x", OFlags::RDONLY).unwrap();
    tree.mv("a", "b").unwrap();
    assert_eq!(bed::fd_stat(&tree, &open).ino, tree.ino("b/x"));
    assert_eq!(tree.find("b").unwrap().kind(), Ok(FileKind::Directory));
    assert!(!tree.exists("a"));
}
