//! Whole trees against the ones that mksquashfs was given.

use super::*;
use crate::contained::Contained;
use crate::testing::{compare, driver_tree, find, host_tree, image, noise, run, who, Bed};

fn open(path: &std::path::Path) -> Contained {
    let image = image(path, true);
    let squashfs = Squashfs::open(image.clone()).unwrap();
    Contained::new(image, squashfs)
}

fn round_trip(name: &str, options: &[&str]) {
    let bed = Bed::new(&format!("squashfs-{name}"));
    let tree = bed.tree();
    let (from, to) = (bed.text("tree"), bed.text("image"));
    let fixed = [from.as_str(), &to, "-no-progress", "-quiet", "-processors", "1"];
    let devices = ["-p", "null c 666 3 4 1 3", "-p", "disk b 640 0 6 259 70000"];
    run("mksquashfs", &[&fixed[..], &devices, options].concat());
    let driver = open(&bed.path("image"));
    let mut shown = driver_tree(&driver);
    let null = shown.remove(&b"null"[..]).unwrap();
    assert_eq!((null.mode, null.owner, null.rdev), (0o20_666, (3, 4), rustix::fs::makedev(1, 3)));
    let disk = shown.remove(&b"disk"[..]).unwrap();
    assert_eq!((disk.mode, disk.rdev), (0o60_640, rustix::fs::makedev(259, 70000)));
    let differ = |path: &[u8], seen: &mut crate::testing::Seen| {
        // A pseudo definition makes mksquashfs change the time of the directory; and squashfs does not count names of it.
        if path.is_empty() {
            seen.mtime = Default::default();
        }
    };
    compare(host_tree(&tree), shown, differ);
}

#[test]
fn gzip_shows_the_tree_it_was_made_of() {
    round_trip("gzip", &[]);
}

#[test]
fn xz_shows_the_tree_it_was_made_of() {
    round_trip("xz", &["-comp", "xz", "-Xbcj", "x86"]);
}

#[test]
fn lzma_shows_the_tree_it_was_made_of() {
    round_trip("lzma", &["-comp", "lzma"]);
}

#[test]
fn lzo_shows_the_tree_it_was_made_of() {
    round_trip("lzo", &["-comp", "lzo"]);
}

#[test]
fn lz4_shows_the_tree_it_was_made_of() {
    round_trip("lz4", &["-comp", "lz4"]);
}

#[test]
fn zstd_shows_the_tree_it_was_made_of() {
    round_trip("zstd", &["-comp", "zstd", "-b", "1M"]);
}

#[test]
fn plain_small_blocks_show_the_tree_they_were_made_of() {
    round_trip("plain", &["-noI", "-noD", "-noF", "-noX", "-b", "4096", "-always-use-fragments"]);
}

#[test]
fn without_fragments_the_tree_is_the_same() {
    round_trip("nofrag", &["-no-fragments", "-no-duplicates"]);
}

#[test]
fn a_file_of_many_blocks_is_read_anywhere() {
    let bed = Bed::new("squashfs-blocks");
    std::fs::create_dir(bed.path("tree")).unwrap();
    // More blocks than a stride, with a hole in the middle.
    let mut content = noise(5, 20 << 20);
    content[9 << 20..11 << 20].fill(0);
    std::fs::write(bed.path("tree/big"), &content).unwrap();
    let (from, to) = (bed.text("tree"), bed.text("image"));
    run("mksquashfs", &[&from, &to, "-no-progress", "-quiet", "-b", "4096"]);
    let driver = open(&bed.path("image"));
    let big = find(&driver, "big").unwrap();
    let file = who(|who| driver.open(who, big, OFlags::RDONLY)).unwrap();
    let mut offset = 1;
    for step in 0..200 {
        offset = (offset * 7_919 + step) % content.len();
        let mut buffer = vec![1; 10_000];
        let count = file.read_at(offset as u64, &mut buffer).unwrap();
        assert_eq!(count, buffer.len().min(content.len() - offset));
        assert!(buffer[..count] == content[offset..offset + count], "{offset}");
    }
}

#[test]
fn what_is_no_squashfs_is_refused() {
    let errno = |bytes: &[u8]| Squashfs::open(crate::testing::image_of(bytes)).err();
    assert_eq!(errno(b""), Some(Errno::INVAL));
    assert_eq!(errno(&[0; 4096]), Some(Errno::INVAL));
}

#[test]
fn a_truncated_image_is_refused() {
    let bed = Bed::new("squashfs-short");
    bed.tree();
    let (from, to) = (bed.text("tree"), bed.text("image"));
    run("mksquashfs", &[&from, &to, "-no-progress", "-quiet"]);
    let file = std::fs::File::options().write(true).open(bed.path("image")).unwrap();
    file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    assert_eq!(Squashfs::open(image(&bed.path("image"), true)).err(), Some(Errno::UCLEAN));
}
