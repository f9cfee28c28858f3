//! Whole trees against the ones that mkfs.erofs was given.

use super::*;
use crate::contained::Contained;
use crate::testing::{compare, driver_tree, host_tree, image, image_of, run, Bed};

fn round_trip(name: &str, options: &[&str]) {
    let bed = Bed::new(&format!("erofs-{name}"));
    let tree = bed.tree();
    run("mkfs.erofs", &[&["--quiet"], options, &[&bed.text("image"), &bed.text("tree")]].concat());
    let image = image(&bed.path("image"), true);
    let driver = Contained::new(image.clone(), Erofs::open(image).unwrap());
    compare(host_tree(&tree), driver_tree(&driver), |_, _| {});
}

#[test]
fn plain_erofs_shows_the_tree_it_was_made_of() {
    round_trip("plain", &[]);
}

#[test]
fn lz4_shows_the_tree_it_was_made_of() {
    round_trip("lz4", &["-zlz4hc", "-C65536", "-Efragments,ztailpacking"]);
}

#[test]
fn compact_inodes_show_the_tree_they_were_made_of() {
    let bed = Bed::new("erofs-compact");
    let tree = bed.tree();
    run("mkfs.erofs", &["--quiet", "-Eforce-inode-compact", "-T0", &bed.text("image"), &bed.text("tree")]);
    let image = image(&bed.path("image"), true);
    let driver = Contained::new(image.clone(), Erofs::open(image).unwrap());
    compare(host_tree(&tree), driver_tree(&driver), |_, seen| seen.mtime = Default::default());
}

#[test]
fn what_is_no_erofs_is_refused() {
    let errno = |bytes: &[u8]| Erofs::open(image_of(bytes)).err();
    assert_eq!(errno(b""), Some(Errno::INVAL));
    assert_eq!(errno(&[0; 65_536]), Some(Errno::INVAL));
}
