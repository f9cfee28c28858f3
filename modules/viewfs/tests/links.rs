//! Hard links of a lower layer: one file under several names, before and after copy-up.

mod bed;

use bed::{Bed, Tree};
use umvu_interface::OFlags;

fn sample() -> Bed {
    let bed = Bed::new();
    bed.file("lower/a", "one").dirs(&["lower/dir"]);
    for name in ["b", "dir/c"] {
        std::fs::hard_link(bed.path("lower/a"), bed.path(&format!("lower/{name}"))).unwrap();
    }
    bed
}

fn numbers(tree: &Tree, names: &[&str]) -> Vec<(u64, u32)> {
    names.iter().map(|name| (tree.ino(name), tree.stat(name).nlink)).collect()
}

#[test]
fn a_change_under_one_name_is_seen_under_all() {
    let bed = sample();
    let tree = bed.cow();
    let before = numbers(&tree, &["a", "b", "dir/c"]);
    assert_eq!(before, [before[0]; 3]);
    assert_eq!(before[0].1, 3);
    let early = tree.find("dir/c").unwrap();
    tree.append("a", "+").unwrap();
    let check = |tree: &Tree| {
        for name in ["a", "b", "dir/c"] {
            assert_eq!(tree.read(name).unwrap(), "one+", "{name}");
            let open = tree.open(name, OFlags::RDONLY).unwrap();
            assert_eq!(bed::fd_stat(tree, &open).nlink, 3);
            assert_eq!(bed::fd_stat(tree, &open).ino, before[0].0);
        }
        assert_eq!(numbers(tree, &["a", "b", "dir/c"]), before);
        tree.ls("").unwrap();
        tree.ls("dir").unwrap();
    };
    check(&tree);
    assert_eq!(early.id().unwrap().1, before[0].0);
    assert!(!bed.path("upper/b").exists());
    drop(tree);
    check(&bed.cow());
    let tree = bed.cow();
    tree.append("dir/c", "-").unwrap();
    assert_eq!(tree.read("b").unwrap(), "one+-");
    assert_eq!(std::fs::read_to_string(bed.path("lower/a")).unwrap(), "one");
}

#[test]
fn names_are_counted_as_they_come_and_go() {
    let bed = sample();
    let tree = bed.cow();
    tree.append("a", "+").unwrap();
    tree.link("b", "d").unwrap();
    assert_eq!(numbers(&tree, &["a", "b", "d", "dir/c"])[..], [numbers(&tree, &["a"])[0]; 4]);
    assert_eq!(tree.stat("d").nlink, 4);
    tree.rm("b").unwrap();
    assert_eq!(tree.stat("a").nlink, 3);
    tree.mv("dir/c", "moved").unwrap();
    assert_eq!(tree.stat("a").nlink, 3);
    assert_eq!(tree.ino("a"), tree.ino("moved"));
    tree.write("other", "").unwrap();
    tree.mv("other", "d").unwrap();
    assert_eq!(tree.stat("a").nlink, 2);
    tree.append("moved", "-").unwrap();
    assert_eq!(tree.read("a").unwrap(), "one+-");
    drop(tree);
    let tree = bed.cow();
    assert_eq!(tree.stat("moved").nlink, 2);
    tree.rm("a").unwrap();
    let held = tree.find("moved").unwrap();
    tree.rm("moved").unwrap();
    assert_eq!(held.stat().unwrap().nlink, 0);
    assert_eq!(std::fs::read_dir(bed.path("upper/.wh..wh.umvu/links")).unwrap().count(), 0, "the copy is gone");
    assert_eq!(tree.ls("").unwrap(), ["d", "dir"]);
}

#[test]
fn a_name_that_was_only_read_can_be_removed_and_renamed_onto() {
    let bed = sample();
    let tree = bed.cow();
    tree.rm("b").unwrap();
    assert_eq!(tree.read("a").unwrap(), "one");
    tree.append("a", "+").unwrap();
    assert_eq!(tree.stat("a").nlink, 3, "what was removed before the copy is not counted");
    tree.write("new", "new").unwrap();
    tree.mv("new", "dir/c").unwrap();
    assert_eq!(tree.stat("a").nlink, 2);
    assert_eq!(tree.read("dir/c").unwrap(), "new");
    assert_eq!(tree.read("a").unwrap(), "one+");
}

#[test]
fn two_names_renamed_onto_each_other_stay() {
    let bed = sample();
    let tree = bed.cow();
    tree.append("a", "+").unwrap();
    tree.mv("a", "b").unwrap();
    tree.mv("b", "dir/c").unwrap();
    assert_eq!(tree.stat("a").nlink, 3);
    assert!(tree.exists("a") && tree.exists("b") && tree.exists("dir/c"));
}

#[test]
fn truncation_reaches_all_names() {
    let bed = sample();
    let tree = bed.cow();
    tree.write("b", "2").unwrap();
    assert_eq!(tree.read("dir/c").unwrap(), "2");
    assert_eq!(tree.read("a").unwrap(), "2");
}
