//! Trees of a few entries, right and wrong.

use super::*;

fn entry(path: &str, what: Object) -> Entry {
    let (mode, mtime) = (0o644, Timestamp::default());
    Entry { path: path.as_bytes().to_vec(), mode, uid: 1, gid: 2, mtime, xattrs: Vec::new(), what }
}

fn file(path: &str) -> Entry {
    entry(path, Object::Regular { size: 0, data: Data::Whole(0) })
}

fn link(path: &str, target: &str) -> Entry {
    entry(path, Object::Symlink(target.as_bytes().to_vec()))
}

fn tree(entries: Vec<Entry>) -> core::result::Result<Tree, String> {
    let mut tree = Tree::default();
    for entry in entries {
        tree.add("t", entry, Marks::None).map_err(|error| error.message)?;
    }
    tree.finish();
    Ok(tree)
}

#[test]
fn directories_that_no_entry_tells_of_are_made() {
    let tree = tree(vec![file("./a/b/c"), file("/a/d"), entry("a/e/", Object::Directory)]).unwrap();
    let a = tree.find(b"a").unwrap();
    assert_eq!((tree.node(a).unwrap().mode, tree.node(a).unwrap().links), (0o755, 4));
    assert_eq!(tree.path(tree.find(b"a/b/c").unwrap()), b"a/b/c");
}

#[test]
fn nothing_climbs_out() {
    let says = |entries| tree(entries).unwrap_err();
    assert!(says(vec![file("a/../../x")]).ends_with("entry 'a/../../x': climbs out of the archive with '..'"));
    assert!(says(vec![link("a", "../.."), file("a/x")]).contains("climbs out"));
    assert!(says(vec![link("a", "a"), file("a/x")]).contains("leads to no end"));
    assert!(says(vec![link("a", "/etc"), file("a/x")]).contains("leads nowhere"));
    assert!(says(vec![file("a"), file("a/x")]).contains("its parent 'a' is not a directory"));
    assert!(says(vec![entry("h", Object::HardLink(b"../x".to_vec()))]).contains("climbs out"));
    assert!(says(vec![entry("h", Object::HardLink(b"x".to_vec()))]).contains("which is not there"));
}

#[test]
fn a_parent_that_is_a_link_is_followed_inside() {
    let entries = vec![file("usr/lib/one"), link("lib", "usr/lib"), file("lib/two"), link("x", "/lib"), file("x/3")];
    let tree = tree(entries).unwrap();
    assert_eq!(tree.find(b"usr/lib/two"), tree.find(b"/lib/two"));
    assert!(tree.find(b"usr/lib/3").is_some());
}

#[test]
fn hard_links_are_counted() {
    let entries = vec![file("a"), entry("b", Object::HardLink(b"./a".to_vec())), file("c"), file("c")];
    let tree = tree(entries).unwrap();
    assert_eq!(tree.node(tree.find(b"b").unwrap()).unwrap().links, 2);
    assert_eq!(tree.node(tree.find(b"c").unwrap()).unwrap().links, 1);
}

#[test]
fn whiteouts_hide_earlier_layers_alone() {
    let mut tree = Tree::default();
    let add = |tree: &mut Tree, entry| tree.add("t", entry, Marks::Oci).unwrap();
    for path in ["a", "d/old", "d/e/old", "o/1", "o/s/2"] {
        add(&mut tree, file(path));
    }
    tree.next_layer();
    for path in ["d/new", "o/s/3", ".wh.a", ".wh.d", "o/.wh..wh..opq", ".wh..wh.plnk", "o/4"] {
        add(&mut tree, file(path));
    }
    for (path, there) in [("a", false), ("d/old", false), ("d/e", false), ("d/new", true), ("o/1", false)] {
        assert_eq!(tree.find(path.as_bytes()).is_some(), there, "{path}");
    }
    for (path, there) in [("o/s/2", false), ("o/s/3", true), ("o/4", true), (".wh.a", false)] {
        assert_eq!(tree.find(path.as_bytes()).is_some(), there, "{path}");
    }
}

#[test]
fn depth_and_names_have_limits() {
    let deep = "a/".repeat(2047) + "f";
    assert!(tree(vec![file(&deep)]).is_ok());
    let entries = vec![file(&deep), link("l", &deep[..4000]), file(&("l/".to_owned() + &deep[..1000] + "/f"))];
    assert!(tree(entries).unwrap_err().contains("nested too deeply"));
    assert!(tree(vec![file(&"a".repeat(256))]).unwrap_err().contains("too long"));
}
