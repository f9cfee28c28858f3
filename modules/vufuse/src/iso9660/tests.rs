//! Whole trees against the ones that genisoimage and xorriso were given.

use super::*;
use crate::contained::Contained;
use crate::testing::{
    compare, driver_tree, find, host_tree, image, image_of, read_whole, run, who, Bed, Content, Seen,
};

const ALL: Wanted = Wanted { rock_ridge: true, joliet: true };

fn open(path: &std::path::Path, wanted: Wanted) -> Contained {
    let image = image(path, true);
    let iso = Iso::open(image.clone(), wanted, Owner { mounter: (5, 6), ..Owner::default() }).unwrap();
    Contained::new(image, iso)
}

/// What iso9660 cannot say.
fn differ(path: &[u8], seen: &mut Seen) {
    seen.xattrs.clear();
    let kind = seen.mode & 0o170_000;
    if path.is_empty() || kind == FileKind::Directory.bits() || kind == FileKind::Fifo.bits() {
        seen.links = 0;
        seen.size = 0;
    }
    if path.is_empty() {
        seen.mtime = Default::default();
    }
    if kind == FileKind::Socket.bits() {
        seen.size = 0;
    }
}

#[test]
fn rock_ridge_shows_the_tree_it_was_made_of() {
    let bed = Bed::new("iso-rock");
    let tree = bed.small_tree();
    run("genisoimage", &["-quiet", "-R", "-J", "-o", &bed.text("image"), &bed.text("small")]);
    let mut shown = driver_tree(&open(&bed.path("image"), ALL));
    // Where deep directories really are.
    assert!(shown.remove(&b"rr_moved"[..]).is_some());
    compare(host_tree(&tree), shown, |path, seen| {
        differ(path, seen);
        // genisoimage does not write how many links there are.
        seen.links = 0;
    });
}

#[test]
fn rock_ridge_of_xorriso_shows_the_tree_it_was_made_of() {
    let bed = Bed::new("iso-xorriso");
    let tree = bed.tree();
    // xorriso 1.5.4 fails on some attributes, even if it is told to leave them.
    for (name, attribute) in
        [("one", "user.short"), ("one", "user.empty"), ("text", "user.long"), ("a", "user.of a directory")]
    {
        rustix::fs::removexattr(tree.join(name), attribute).unwrap();
    }
    let options = ["-xattr", "off", "-hardlinks", "on", "-outdev", &bed.text("image"), "-map", &bed.text("tree"), "/"];
    run("xorriso", &options);
    let shown = driver_tree(&open(&bed.path("image"), ALL));
    compare(host_tree(&tree), shown, |path, seen| {
        differ(path, seen);
        seen.links = 0;
    });
}

#[test]
fn joliet_shows_names_and_contents() {
    let bed = Bed::new("iso-joliet");
    std::fs::create_dir_all(bed.path("tree/Directory")).unwrap();
    std::fs::write(bed.path("tree/Directory/Größe of a file.txt"), b"joliet").unwrap();
    run("genisoimage", &["-quiet", "-input-charset", "utf-8", "-J", "-o", &bed.text("image"), &bed.text("tree")]);
    let shown = driver_tree(&open(&bed.path("image"), ALL));
    let file = &shown["Directory/Größe of a file.txt".as_bytes()];
    assert_eq!((file.mode, file.owner, &file.content), (0o100_444, (5, 6), &Content(b"joliet".to_vec())));
    let plain = driver_tree(&open(&bed.path("image"), Wanted { joliet: false, ..ALL }));
    let names: Vec<String> = plain.keys().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
    assert_eq!(names.len(), 3, "{names:?}");
    assert_eq!(names[1], "director");
}

#[test]
fn a_compressed_file_is_unpacked() {
    let bed = Bed::new("iso-zisofs");
    std::fs::create_dir(bed.path("tree")).unwrap();
    let content = [b"compresses well ".repeat(20_000), vec![0; 100_000], crate::testing::noise(3, 50_000)].concat();
    std::fs::write(bed.path("tree/big"), &content).unwrap();
    let options = ["-zisofs", "level=6:block_size=32k", "-outdev", &bed.text("image")];
    run("xorriso", &[&options[..], &["-map", &bed.text("tree"), "/", "-set_filter_r", "--zisofs", "/", "--"]].concat());
    assert!(std::fs::metadata(bed.path("image")).unwrap().len() < 900_000);
    let driver = open(&bed.path("image"), ALL);
    let big = find(&driver, "big").unwrap();
    let stat = who(|who| driver.stat(who, big)).unwrap().stat;
    assert_eq!(stat.size, content.len() as u64);
    let file = who(|who| driver.open(who, big, OFlags::RDONLY)).unwrap();
    assert!(read_whole(&*file, stat.size, 10_000).unwrap() == content);
}

#[test]
fn what_is_no_iso_is_refused() {
    let errno = |bytes: &[u8]| Iso::open(image_of(bytes), ALL, Owner::default()).err();
    assert_eq!(errno(b""), Some(Errno::INVAL));
    assert_eq!(errno(&[0; 65_536]), Some(Errno::INVAL));
}
