//! Images with arbitrary damage: whatever bytes an image holds, reading it ends, with a tree or with a reason. Each format
//! starts from a sound image of a few files.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use umvu_driver::{Driver, ROOT};
use umvu_interface::{Name, OFlags, RemoveKind};

use crate::contained::{contain, Contained};
use crate::erofs::Erofs;
use crate::examine::read_all;
use crate::ext::{Ext, Mode};
use crate::fat::Fat;
use crate::image::Image;
use crate::iso9660::{self, Iso};
use crate::owner::Owner;
use crate::squashfs::Squashfs;
use crate::testing::{image_of, run, who, Bed};

/// Makes an image, once for each format.
fn made(cell: &'static OnceLock<Vec<u8>>, name: &str, make: impl Fn(&str, &str)) -> &'static [u8] {
    cell.get_or_init(|| {
        let bed = Bed::new(&format!("damage-{name}"));
        bed.small_tree();
        make(&bed.text("small"), &bed.text("image"));
        std::fs::read(bed.path("image")).unwrap()
    })
}

/// A change to some bytes. Most hit the beginning, where what leads to all else is.
#[derive(Clone, Debug)]
enum Change {
    Byte(usize, u8),
    Word(usize, u32),
    Early(usize, Vec<u8>),
    Copy(usize, usize, usize),
    Cut(usize),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let word = prop_oneof![Just(0), Just(u32::MAX), Just(0x7fff_ffff), 0u32..5000, any::<u32>()];
    let one = prop_oneof![
        4 => (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Change::Byte(at, byte)),
        4 => (any::<usize>(), word).prop_map(|(at, word)| Change::Word(at, word)),
        4 => (any::<usize>(), proptest::collection::vec(any::<u8>(), 1..8)).prop_map(|(at, bytes)| Change::Early(at, bytes)),
        2 => (any::<usize>(), any::<usize>(), 1usize..600).prop_map(|(from, to, count)| Change::Copy(from, to, count)),
        1 => any::<usize>().prop_map(Change::Cut),
    ];
    proptest::collection::vec(one, 1..10)
}

/// Does the changes; `places` are the parts of the image that are not empty.
fn damaged(sound: &[u8], changes: &[Change]) -> Vec<u8> {
    let mut bytes = sound.to_vec();
    // Only where there is something to damage: images of ext are mostly zeros.
    let blocks: Vec<usize> =
        (0..sound.len() / 512).filter(|block| sound[block * 512..][..512].iter().any(|byte| *byte != 0)).collect();
    let place = |at: usize| blocks[at / 512 % blocks.len()] * 512 + at % 512;
    let put = |bytes: &mut Vec<u8>, at: usize, what: &[u8]| {
        for (offset, byte) in what.iter().enumerate() {
            if let Some(place) = bytes.get_mut(at + offset) {
                *place = *byte;
            }
        }
    };
    for change in changes {
        match change {
            Change::Byte(at, byte) => put(&mut bytes, place(*at), &[*byte]),
            Change::Word(at, word) => put(&mut bytes, place(*at) & !3, &word.to_le_bytes()),
            Change::Early(at, what) => put(&mut bytes, place(at % 4096), what),
            Change::Copy(from, to, count) => {
                let piece: Vec<u8> = bytes.iter().skip(place(*from)).take(*count).copied().collect();
                put(&mut bytes, place(*to), &piece);
            }
            Change::Cut(at) => bytes.truncate(at % (bytes.len() + 1)),
        }
    }
    bytes
}

/// Whose the parser is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Parser {
    /// Ours: it never panics.
    Own,
    /// A library's: its panics are contained.
    Library,
}

/// Opens an image, reads it, and checks that neither took long.
fn check<D: Driver + 'static>(bytes: &[u8], parser: Parser, open: impl Fn(Arc<Image>) -> Option<Arc<D>>) {
    let start = Instant::now();
    let image = image_of(bytes);
    let opened = contain(&image, || Ok(open(image.clone())));
    assert!(parser == Parser::Library || opened.is_ok(), "the driver panics at opening");
    if let Ok(Some(driver)) = opened {
        let driver = Contained::new(image, driver);
        read_all(&driver);
        assert!(parser == Parser::Library || !driver.is_broken(), "the driver panics");
    }
    assert!(start.elapsed() < Duration::from_secs(20), "it takes {:?}", start.elapsed());
}

/// As many cases, or as PROPTEST_CASES says.
fn cases(count: u32) -> ProptestConfig {
    let count = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(count);
    ProptestConfig { cases: count, failure_persistence: None, max_shrink_iters: 50, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn damaged_squashfs_never_goes_further_than_a_reason(changes in changes()) {
        static PLAIN: OnceLock<Vec<u8>> = OnceLock::new();
        let sound = made(&PLAIN, "squashfs", |from, to| {
            run("mksquashfs", &[from, to, "-no-progress", "-quiet", "-noI", "-noX", "-b", "4096"]);
        });
        check(&damaged(sound, &changes), Parser::Own, |image| Squashfs::open(image).ok());
    }

    #[test]
    fn damaged_compressed_squashfs_never_goes_further_than_a_reason(changes in changes()) {
        static PACKED: OnceLock<Vec<u8>> = OnceLock::new();
        let sound = made(&PACKED, "squashfs-packed", |from, to| {
            run("mksquashfs", &[from, to, "-no-progress", "-quiet"]);
        });
        check(&damaged(sound, &changes), Parser::Own, |image| Squashfs::open(image).ok());
    }

    #[test]
    fn damaged_fat_never_goes_further_than_a_reason(changes in changes()) {
        static SOUND: OnceLock<Vec<u8>> = OnceLock::new();
        let sound = made(&SOUND, "fat", |from, to| {
            run("mkfs.fat", &["-C", "-F", "12", to, "400"]);
            run("mcopy", &["-i", to, "-s", &format!("{from}/a/b"), &format!("{from}/a/text"), "::"]);
        });
        check(&damaged(sound, &changes), Parser::Own, |image| {
            let fat = Fat::open(image, Owner::default()).ok()?;
            who(|who| {
                // Writing must not go astray either.
                let name = Name::new(b"new").unwrap();
                if let Ok((_, file)) = fat.create_open(who, ROOT, &name, 0o644, OFlags::RDWR) {
                    let _ = file.write_at(3_000, &[1; 5_000]);
                }
                let _ = fat.remove(who, ROOT, &Name::new(b"text").unwrap(), RemoveKind::File);
            });
            Some(fat)
        });
    }

    #[test]
    fn damaged_iso9660_never_goes_further_than_a_reason(changes in changes()) {
        static SOUND: OnceLock<Vec<u8>> = OnceLock::new();
        let sound = made(&SOUND, "iso", |from, to| {
            run("genisoimage", &["-quiet", "-R", "-J", "-o", to, from]);
        });
        for joliet in [true, false] {
            let wanted = iso9660::Wanted { rock_ridge: !joliet, joliet };
            check(&damaged(sound, &changes), Parser::Own, |image| Iso::open(image, wanted, Owner::default()).ok());
        }
    }
}

proptest! {
    #![proptest_config(cases(150))]

    #[test]
    fn damaged_erofs_never_goes_further_than_a_reason(changes in changes()) {
        static SOUND: OnceLock<Vec<u8>> = OnceLock::new();
        let sound = made(&SOUND, "erofs", |from, to| {
            run("mkfs.erofs", &["--quiet", "-zlz4hc", to, from]);
        });
        check(&damaged(sound, &changes), Parser::Library, |image| Erofs::open(image).ok());
    }

    #[test]
    fn damaged_ext4_never_goes_further_than_a_reason(changes in changes()) {
        static SOUND: OnceLock<Vec<u8>> = OnceLock::new();
        let sound = made(&SOUND, "ext4", |from, to| {
            run("mke2fs", &["-q", "-F", "-t", "ext4", "-b", "1024", "-O", "^metadata_csum", "-d", from, to, "2M"]);
        });
        check(&damaged(sound, &changes), Parser::Library, |image| Ext::open(image, Mode::ReadOnly).ok());
    }

    #[test]
    fn damaged_ext2_never_goes_further_than_a_reason(changes in changes()) {
        static SOUND: OnceLock<Vec<u8>> = OnceLock::new();
        let sound = made(&SOUND, "ext2", |from, to| {
            run("mke2fs", &["-q", "-F", "-t", "ext2", "-b", "1024", "-d", from, to, "1M"]);
        });
        check(&damaged(sound, &changes), Parser::Library, |image| Ext::open(image, Mode::ReadWrite).ok());
    }
}
