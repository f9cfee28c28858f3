//! Archives with arbitrary damage: whatever bytes an archive holds, reading it ends, with a tree that holds together or
//! with a reason.

use std::fs::File;
use std::io::{Seek, Write};

use proptest::prelude::*;

use crate::entry::{Data, Extent};
use crate::format::Format;
use crate::open::{of_file, Contents, Form, Wanted};
use crate::tree::{What, ROOT};

/// One header, with its sum, and content.
fn entry(kind: u8, name: &str, link: &str, content: &[u8]) -> Vec<u8> {
    let mut block = vec![0; 512];
    let mut put = |at: usize, text: &[u8]| block[at..at + text.len()].copy_from_slice(text);
    put(0, name.as_bytes());
    put(100, b"0000755\0");
    put(108, b"0000001\0");
    put(116, b"0000002\0");
    put(124, format!("{:011o}\0", content.len()).as_bytes());
    put(136, b"14000000000\0");
    put(156, &[kind]);
    put(157, link.as_bytes());
    put(257, b"ustar\x0000");
    put(329, b"0000001\0");
    put(337, b"0000003\0");
    if kind == b'S' {
        put(386, b"00000000000\0");
        put(398, format!("{:011o}\0", content.len()).as_bytes());
        put(483, b"00000100000\0");
    }
    mend(&mut block);
    block.extend_from_slice(content);
    block.resize(block.len().next_multiple_of(512), 0);
    block
}

/// Makes the sum of a header right.
fn mend(block: &mut [u8]) {
    block[148..156].copy_from_slice(b"        ");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
    let digits = |length: usize| length.to_string().len();
    let length = rest.len() + digits(rest.len() + digits(rest.len()));
    [length.to_string().into_bytes(), rest].concat()
}

/// An archive with an entry of every kind.
fn sample() -> Vec<u8> {
    let pax = [
        record("path", "a/long name".as_bytes()),
        record("mtime", b"-1.5"),
        record("uid", b"70000"),
        record("SCHILY.xattr.user.a", b"1\n2"),
    ];
    let sparse = [
        record("GNU.sparse.major", b"1"),
        record("GNU.sparse.minor", b"0"),
        record("GNU.sparse.name", b"sparse"),
        record("GNU.sparse.realsize", b"100000"),
    ];
    let mut map = b"2\n0\n10\n99990\n10\n".to_vec();
    map.resize(512, 0);
    map.extend_from_slice(&[7; 20]);
    let older = [record("GNU.sparse.size", b"4000"), record("GNU.sparse.map", b"0,4,3990,5")];
    let manifest = br#"[{"Config":"c.json","RepoTags":["a:b"],"Layers":["l/layer.tar"]}]"#;
    let layer = [entry(b'0', "d/.wh.a", "", b""), entry(b'0', "e", "", b"x"), vec![0; 1024]].concat();
    [
        entry(b'5', "./", "", b""),
        entry(b'5', "d/", "", b""),
        entry(b'0', "d/f", "", b"content"),
        entry(b'2', "l", "d", b""),
        entry(b'0', "l/g", "", &[1; 600]),
        entry(b'1', "h", "d/f", b""),
        entry(b'3', "null", "", b""),
        entry(b'6', "fifo", "", b""),
        entry(b'g', "g", "", &record("gid", b"5")),
        entry(b'x', "x", "", &pax.concat()),
        entry(b'0', "short", "", b"long"),
        entry(b'L', "././@LongLink", "", b"gnu/long/name\0"),
        entry(b'0', "gnu", "", b""),
        entry(b'S', "old-sparse", "", &[9; 100]),
        entry(b'x', "x", "", &sparse.concat()),
        entry(b'0', "GNUSparseFile.0/sparse", "", &map),
        entry(b'x', "x", "", &older.concat()),
        entry(b'0', "older", "", b"123456789"),
        entry(b'0', "c.json", "", br#"{"config":{"Cmd":["sh"]}}"#),
        entry(b'0', "manifest.json", "", manifest),
        entry(b'0', "l/layer.tar", "", &layer),
        vec![0; 1024],
    ]
    .concat()
}

fn file(bytes: &[u8]) -> File {
    let fd = rustix::fs::memfd_create("archive", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let mut file = File::from(fd);
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    file
}

pub fn read(bytes: &[u8], form: Form) -> core::result::Result<Contents, String> {
    let wanted = Wanted { name: "sample".to_owned(), form, tag: None, limit: 1 << 20, owner: (5, 6) };
    of_file(file(bytes), &wanted).map_err(|error| error.message)
}

/// Checks that a tree holds together.
fn check(contents: &Contents) {
    let Contents { tree, layers, .. } = contents;
    let mut directories = vec![ROOT];
    let mut seen = 0;
    while let Some(directory) = directories.pop() {
        for (name, id) in tree.node(directory).unwrap().entries().unwrap() {
            seen += 1;
            assert!(seen < 100_000, "a directory is in itself");
            assert!(!name.is_empty() && !name.contains(&b'/') && !name.contains(&0));
            let node = tree.node(*id).unwrap();
            assert!(node.links > 0 && tree.path(*id).len() < 1 << 20);
            match &node.what {
                What::Directory(_) => directories.push(*id),
                What::Regular { layer, size, data } => {
                    let layer = &layers[usize::try_from(*layer).unwrap()];
                    let whole =
                        [Extent { logical: 0, at: if let Data::Whole(at) = data { *at } else { 0 }, length: *size }];
                    if let Data::Packed(_) = data {
                        continue;
                    }
                    let extents = if let Data::Sparse(extents) = data { &extents[..] } else { &whole };
                    for extent in extents {
                        assert!(layer.part(extent.at, extent.length).is_some());
                        assert!(extent.logical + extent.length <= *size);
                    }
                }
                _ => {}
            }
        }
    }
}

/// What the files of a zip archive unpack to, as far as they do, by their sums.
pub fn sums(contents: &Contents) -> Vec<u32> {
    let mut sums = Vec::new();
    for id in 0..contents.tree.len() {
        let node = contents.tree.node(id.try_into().unwrap()).unwrap();
        let What::Regular { size, data: Data::Packed(packed), .. } = &node.what else { continue };
        let mut content = Vec::new();
        if *size < 1 << 20 && packed.unpack(&contents.layers[0], &mut content).is_ok() {
            let mut sum = flate2::Crc::new();
            sum.update(&content);
            assert_eq!((content.len() as u64, sum.sum()), (*size, packed.crc));
            sums.push(sum.sum());
        }
    }
    sums
}

#[test]
fn the_sample_is_read_whole() {
    let contents = read(&sample(), Form::Archive(Format::Tar)).unwrap();
    check(&contents);
    for path in ["d/f", "d/g", "h", "null", "fifo", "a/long name", "gnu/long/name", "old-sparse", "sparse", "older"] {
        assert!(contents.tree.find(path.as_bytes()).is_some(), "{path}");
    }
    let image = read(&sample(), Form::Any).unwrap();
    assert_eq!(image.config.unwrap().command, ["sh"]);
    assert!(image.tree.find(b"e").is_some());
}

/// A change to some bytes.
#[derive(Clone, Debug)]
enum Change {
    Byte(usize, u8),
    Cut(usize),
    Move(usize, usize),
    Field(usize, usize, Vec<u8>),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let one = prop_oneof![
        (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Change::Byte(at, byte)),
        any::<usize>().prop_map(Change::Cut),
        (any::<usize>(), any::<usize>()).prop_map(|(from, to)| Change::Move(from, to)),
        (any::<usize>(), 0usize..400, proptest::collection::vec(any::<u8>(), 1..24))
            .prop_map(|(block, at, bytes)| Change::Field(block, at, bytes)),
    ];
    proptest::collection::vec(one, 1..12)
}

/// Does the changes; every block that is a header has a right sum afterwards, so that what is behind it is reached.
fn damaged(changes: &[Change]) -> Vec<u8> {
    let mut bytes = sample();
    for change in changes {
        let blocks = bytes.len() / 512;
        if blocks == 0 {
            break;
        }
        match change {
            Change::Byte(at, byte) => {
                let at = at % bytes.len();
                bytes[at] = *byte;
                if at / 512 < blocks {
                    mend(&mut bytes[at / 512 * 512..][..512]);
                }
            }
            Change::Cut(at) => bytes.truncate(at % (bytes.len() + 1)),
            Change::Move(from, to) => {
                let block = bytes[from % blocks * 512..][..512].to_vec();
                bytes[to % blocks * 512..][..512].copy_from_slice(&block);
            }
            Change::Field(block, at, field) => {
                let block = &mut bytes[block % blocks * 512..][..512];
                block[*at..at + field.len()].copy_from_slice(field);
                mend(block);
            }
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damage_never_goes_further_than_a_reason(changes in changes()) {
        let bytes = damaged(&changes);
        for form in [Form::Archive(Format::Tar), Form::Any] {
            match read(&bytes, form) {
                Ok(contents) => check(&contents),
                Err(reason) => prop_assert!(reason.starts_with("sample: ") && !reason.contains('\n'), "{reason:?}"),
            }
        }
    }

    #[test]
    fn damaged_zip_and_cpio_never_go_further_than_a_reason(
        which in 0usize..3, changes in proptest::collection::vec((any::<usize>(), any::<u8>(), any::<bool>()), 1..8),
        cut in any::<usize>()
    ) {
        let [new, old] = crate::cpio::tests::samples();
        let mut bytes = [crate::zip::tests::sample(), new, old][which].clone();
        for (at, byte, is_digit) in changes {
            let length = bytes.len();
            // Digits, so that what they say is looked at.
            bytes[at % length] = if is_digit && which > 0 { b"0123456789abcdef"[usize::from(byte % 16)] } else { byte };
        }
        if cut % 4 == 0 {
            bytes.truncate(cut % bytes.len());
        }
        for form in [Form::Any, Form::Archive(Format::Zip), Form::Archive(Format::Cpio)] {
            match read(&bytes, form) {
                Ok(contents) => {
                    check(&contents);
                    sums(&contents);
                }
                Err(reason) => prop_assert!(reason.starts_with("sample: ") && !reason.contains('\n'), "{reason:?}"),
            }
        }
    }

    #[test]
    fn damaged_compressed_data_never_goes_further_than_a_reason(
        compressor in 0usize..4, changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..6), cut in any::<usize>()
    ) {
        let mut bytes = PACKED[compressor].to_vec();
        for (at, byte) in changes {
            let length = bytes.len();
            bytes[at % length] = byte;
        }
        if cut % 3 == 0 {
            bytes.truncate(cut % bytes.len());
        }
        match read(&bytes, Form::Archive(Format::Tar)) {
            Ok(contents) => check(&contents),
            Err(reason) => prop_assert!(reason.starts_with("sample: ") && !reason.contains('\n'), "{reason:?}"),
        }
    }
}

/// A small archive, compressed in each of the ways: the decoders must not panic either.
const PACKED: [&[u8]; 4] = [
    include_bytes!("../tests/packed.tar.gz"),
    include_bytes!("../tests/packed.tar.bz2"),
    include_bytes!("../tests/packed.tar.xz"),
    include_bytes!("../tests/packed.tar.zst"),
];
