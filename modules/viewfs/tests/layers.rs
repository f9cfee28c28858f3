//! Several lower layers: overlayfs's and OCI's ways to hide, redirect and merge.

mod bed;

use bed::{set_attribute, whiteout, Bed, Tree};
use umvu_interface::{Errno, FileKind, MountFlags};

fn overlay(bed: &Bed, lower: &str) -> Tree {
    bed.dirs(&["upper"]);
    bed.overlay(&[&format!("lowerdir={lower}"), "upperdir=/upper"])
}

fn read_only(bed: &Bed, lower: &str) -> Tree {
    bed.overlay(&[&format!("lowerdir={lower}")])
}

#[test]
fn the_first_layer_covers_the_others_and_directories_merge() {
    let bed = Bed::new();
    bed.file("a/dir/x", "ax").file("b/dir/x", "bx").file("b/dir/y", "by").file("c/dir/z", "cz").file("c/file", "c");
    bed.file("a/file/in", "not a file here").file("c/deep/er/still", "c");
    let tree = read_only(&bed, "/a:/b:/c");
    assert_eq!(tree.ls("dir").unwrap(), ["x", "y", "z"]);
    assert_eq!(tree.read("dir/x").unwrap(), "ax");
    assert_eq!(tree.read("dir/y").unwrap(), "by");
    assert_eq!(tree.read("deep/er/still").unwrap(), "c");
    assert_eq!(tree.ls("file").unwrap(), ["in"]);
    assert_eq!(tree.flags, MountFlags::READ_ONLY);
    assert_eq!(tree.write("dir/x", "no"), Err(Errno::ROFS));
    assert_eq!(tree.rm("dir/x"), Err(Errno::ROFS));
    assert_eq!(tree.mkdir("new"), Err(Errno::ROFS));
    assert_eq!(tree.mkdir("dir"), Err(Errno::EXIST));
    assert_eq!(tree.mv("dir", "rid"), Err(Errno::ROFS));
    assert_eq!(tree.chmod("dir", 0o700), Err(Errno::ROFS));
}

#[test]
fn a_file_between_directories_keeps_them_apart() {
    let bed = Bed::new();
    bed.file("a/n/1", "").file("b/n", "file").file("c/n/3", "");
    assert_eq!(read_only(&bed, "/a:/b:/c").ls("n").unwrap(), ["1"]);
}

#[test]
fn whiteouts_and_opaque_directories_of_lower_layers_hide_what_is_below_them() {
    let bed = Bed::new();
    bed.file("b/gone", "").file("b/dir/gone", "").file("b/dir/stays", "").file("b/opaque/hidden", "");
    bed.dirs(&["a/dir", "a/opaque"]);
    whiteout(&bed.path("a/gone"));
    whiteout(&bed.path("a/dir/gone"));
    set_attribute(&bed.path("a/opaque"), "user.overlay.opaque", b"y");
    bed.file("a/opaque/shown", "");
    let tree = read_only(&bed, "/a:/b");
    assert_eq!(tree.ls("").unwrap(), ["dir", "opaque"]);
    assert_eq!(tree.ls("dir").unwrap(), ["stays"]);
    assert_eq!(tree.ls("opaque").unwrap(), ["shown"]);
    assert_eq!(tree.find("gone").err(), Some(Errno::NOENT));
    assert_eq!(tree.find("opaque/hidden").err(), Some(Errno::NOENT));
}

#[test]
fn whiteouts_of_the_last_layer_are_not_shown_either() {
    let bed = Bed::new();
    bed.file("a/dir/x", "").file("b/y", "");
    whiteout(&bed.path("a/dir/gone"));
    whiteout(&bed.path("b/gone"));
    for tree in [read_only(&bed, "/a"), read_only(&bed, "/b:/a"), read_only(&bed, "/a:/b")] {
        assert!(!tree.exists("gone"));
        if tree.exists("dir") {
            assert_eq!(tree.ls("dir").unwrap(), ["x"]);
            assert!(!tree.exists("dir/gone"));
        }
        assert!(!tree.ls("").unwrap().contains(&"gone".into()));
    }
}

#[test]
fn names_of_oci_layers_hide_and_are_hidden() {
    let bed = Bed::new();
    bed.file("c/gone", "").file("c/dir/gone", "").file("c/dir/stays", "").file("c/opaque/hidden", "");
    bed.file("b/.wh.gone", "").file("b/dir/.wh.gone", "").file("b/opaque/.wh..wh..opq", "").file("b/opaque/shown", "");
    // The same layer may remove a name and have it again.
    bed.file("c/again/old", "").file("b/.wh.again", "").file("b/again/new", "");
    bed.file("a/top", "").dirs(&["a/dir"]);
    for tree in [read_only(&bed, "/b:/c"), read_only(&bed, "/a:/b:/c"), overlay(&bed, "/a:/b:/c")] {
        assert!(!tree.exists("gone") && !tree.exists(".wh.gone"));
        assert_eq!(tree.ls("dir").unwrap(), ["stays"]);
        assert!(!tree.exists("dir/gone") && !tree.exists("dir/.wh.gone"));
        assert_eq!(tree.ls("opaque").unwrap(), ["shown"]);
        assert!(!tree.exists("opaque/hidden"));
        assert!(!tree.ls("").unwrap().iter().any(|name| name.starts_with(".wh.") || name == "gone"));
    }
}

#[test]
fn a_name_removed_and_made_again_in_one_oci_layer_starts_anew() {
    let bed = Bed::new();
    bed.file("c/again/old", "").file("b/.wh.again", "").file("b/again/new", "");
    for tree in [read_only(&bed, "/b:/c"), overlay(&bed, "/b:/c")] {
        assert_eq!(tree.ls("again").unwrap(), ["new"]);
        assert!(!tree.exists("again/old"));
    }
}

#[test]
fn whiteouts_that_are_files_are_known_where_the_directory_says_so() {
    let bed = Bed::new();
    bed.file("b/dir/gone", "").file("b/dir/stays", "").file("a/dir/gone", "");
    set_attribute(&bed.path("a/dir/gone"), "user.overlay.whiteout", b"");
    let tree = read_only(&bed, "/a:/b");
    assert_eq!(tree.ls("dir").unwrap(), ["gone", "stays"]);
    drop(tree);
    set_attribute(&bed.path("a/dir"), "user.overlay.opaque", b"x");
    let tree = read_only(&bed, "/a:/b");
    assert_eq!(tree.ls("dir").unwrap(), ["stays"]);
    assert!(!tree.exists("dir/gone"));
}

#[test]
fn an_earlier_upper_is_a_good_lower() {
    let bed = Bed::new();
    bed.file("base/d/one", "1").file("base/d/sub/two", "2").file("base/f", "f").file("base/gone", "");
    bed.dirs(&["middle", "upper"]);
    {
        let tree = bed.overlay(&["lowerdir=/base", "upperdir=/middle"]);
        tree.mv("d", "e").unwrap();
        tree.rm("e/one").unwrap();
        tree.rm("gone").unwrap();
        tree.append("f", "+").unwrap();
        tree.mkdir("fresh").unwrap();
        tree.mv("e/sub", "fresh/sub").unwrap();
    }
    let check = |tree: &Tree| {
        assert_eq!(tree.ls("").unwrap(), ["e", "f", "fresh"]);
        assert!(tree.ls("e").unwrap().is_empty());
        assert_eq!(tree.ls("fresh/sub").unwrap(), ["two"]);
        assert_eq!(tree.read("fresh/sub/two").unwrap(), "2");
        assert_eq!(tree.read("f").unwrap(), "f+");
    };
    check(&read_only(&bed, "/middle:/base"));
    let tree = bed.overlay(&["lowerdir=/middle:/base", "upperdir=/upper"]);
    check(&tree);
    tree.append("fresh/sub/two", "+").unwrap();
    tree.mv("fresh", "stale").unwrap();
    assert_eq!(tree.read("stale/sub/two").unwrap(), "2+");
    assert_eq!(tree.ls("").unwrap(), ["e", "f", "stale"]);
    drop(tree);
    let tree = bed.overlay(&["lowerdir=/middle:/base", "upperdir=/upper"]);
    assert_eq!(tree.read("stale/sub/two").unwrap(), "2+");
    tree.rm_r("stale").unwrap();
    assert_eq!(tree.ls("").unwrap(), ["e", "f"]);
}

#[test]
fn redirects_that_lead_out_are_not_followed() {
    let bed = Bed::new();
    bed.file("base/secret/x", "").dirs(&["a/d", "a/e"]);
    set_attribute(&bed.path("a/d"), "user.overlay.redirect", b"/../base/secret");
    set_attribute(&bed.path("a/e"), "user.overlay.redirect", b"x/y");
    let tree = read_only(&bed, "/a:/base");
    assert!(tree.ls("d").unwrap().is_empty());
    assert!(tree.ls("e").unwrap().is_empty());
}

#[test]
fn changes_to_merged_directories_land_in_the_upper_one() {
    let bed = Bed::new();
    bed.file("a/dir/x", "a").file("b/dir/y", "b").file("b/dir/sub/z", "z");
    let tree = overlay(&bed, "/a:/b");
    let number = tree.ino("dir");
    tree.append("dir/y", "+").unwrap();
    tree.rm("dir/x").unwrap();
    tree.write("dir/sub/n", "n").unwrap();
    assert_eq!(tree.ls("dir").unwrap(), ["sub", "y"]);
    assert_eq!(tree.ls("dir/sub").unwrap(), ["n", "z"]);
    assert_eq!(tree.ino("dir"), number);
    tree.rm_r("dir").unwrap();
    tree.mkdir("dir").unwrap();
    assert!(tree.ls("dir").unwrap().is_empty());
    drop(tree);
    assert!(overlay(&bed, "/a:/b").ls("dir").unwrap().is_empty());
    assert_eq!(std::fs::read_to_string(bed.path("b/dir/y")).unwrap(), "b");
}

#[test]
fn a_lower_layer_that_is_a_union_shows_what_the_union_shows() {
    let bed = Bed::new();
    bed.file("lower/dir/x", "x").file("lower/gone", "");
    let inner = bed.cow();
    inner.rm("gone").unwrap();
    inner.write("dir/y", "y").unwrap();
    // The upper layer of the outer union lies in the inner one: marks are nested, whiteouts take the OCI form.
    inner.mkdir("outer").unwrap();
    let outer = bed::nested(&inner, "outer", "dir");
    assert_eq!(outer.ls("").unwrap(), ["x", "y"]);
    outer.append("x", "+").unwrap();
    outer.rm("y").unwrap();
    outer.mkdir("y").unwrap();
    outer.rmdir("y").unwrap();
    outer.write("new", "new").unwrap();
    outer.rm("new").unwrap();
    outer.mkdir("d").unwrap();
    outer.mv("d", "y").unwrap();
    assert_eq!(outer.ls("").unwrap(), ["x", "y"]);
    assert_eq!(outer.read("x").unwrap(), "x+");
    drop(outer);
    let outer = bed::nested(&inner, "outer", "dir");
    assert_eq!(outer.ls("").unwrap(), ["x", "y"]);
    assert!(outer.ls("y").unwrap().is_empty());
    assert_eq!(inner.ls("dir").unwrap(), ["x", "y"]);
    assert_eq!(inner.find("dir/y").unwrap().kind(), Ok(FileKind::Regular));
}
