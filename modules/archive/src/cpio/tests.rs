//! Archives as programs write them, and some that none writes.

use umvu_interface::FileKind;

use crate::damage::read;
use crate::entry::Data;
use crate::format::Format;
use crate::open::{Contents, Form};
use crate::tree::What;

/// An entry in SVR4's form.
fn new(ino: u32, mode: u32, links: u32, name: &str, content: &[u8]) -> Vec<u8> {
    let numbers = [ino, mode, 12, 34, links, 1_000_000_000, u32::try_from(content.len()).unwrap(), 8, 1, 1, 3];
    let length = u32::try_from(name.len() + 1).unwrap();
    let mut bytes = b"070701".to_vec();
    for number in numbers.into_iter().chain([length, 0]) {
        bytes.extend(format!("{number:08x}").bytes());
    }
    bytes.extend([name.as_bytes(), b"\0"].concat());
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes.extend(content);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// An entry in POSIX's form.
fn old(ino: u32, mode: u32, links: u32, name: &str, content: &[u8]) -> Vec<u8> {
    let start = format!("070707{:06o}{ino:06o}{mode:06o}{:06o}{:06o}{links:06o}{:06o}", 8, 12, 34, 0x103);
    let rest = format!("{:011o}{:06o}{:011o}{name}\0", 1_000_000_000, name.len() + 1, content.len());
    [start.as_bytes(), rest.as_bytes(), content].concat()
}

fn all(make: impl Fn(u32, u32, u32, &str, &[u8]) -> Vec<u8>) -> Vec<u8> {
    [
        make(1, 0o40_755, 2, ".", b""),
        make(2, 0o40_750, 2, "d", b""),
        make(3, 0o100_640, 3, "d/first", b""),
        make(4, 0o120_777, 1, "link", b"d/first"),
        make(3, 0o100_640, 3, "second", b"content"),
        make(3, 0o100_640, 3, "third", b""),
        make(5, 0o20_600, 1, "null", b""),
        make(6, 0o10_600, 1, "fifo", b""),
        make(7, 0o140_600, 1, "socket", b""),
        make(8, 0o100_600, 2, "empty", b""),
        make(8, 0o100_600, 2, "empty too", b""),
        make(9, 0o100_600, 1, "alone", b"alone"),
        make(0, 0, 1, "TRAILER!!!", b""),
    ]
    .concat()
}

/// Archives with an entry of every kind, in both forms.
pub fn samples() -> [Vec<u8>; 2] {
    [all(new), all(old)]
}

fn cpio(bytes: &[u8]) -> Result<Contents, String> {
    read(bytes, Form::Archive(Format::Cpio))
}

fn content(contents: &Contents, path: &str) -> Vec<u8> {
    let node = contents.tree.node(contents.tree.find(path.as_bytes()).unwrap()).unwrap();
    let What::Regular { layer, size, data: Data::Whole(at) } = &node.what else { panic!("{path}") };
    contents.layers[usize::try_from(*layer).unwrap()].part(*at, *size).unwrap().read_all(1000).unwrap()
}

#[test]
fn every_kind_of_entry_is_what_it_was() {
    for sample in samples() {
        let contents = read(&sample, Form::Any).unwrap();
        let tree = &contents.tree;
        let node = |path: &str| tree.node(tree.find(path.as_bytes()).unwrap()).unwrap();
        assert_eq!((node("d").mode, node("d").uid, node("d").mtime.seconds), (0o750, 12, 1_000_000_000));
        let number = |path: &str| tree.find(path.as_bytes());
        assert_eq!((number("d/first"), number("third"), node("second").links), (number("second"), number("second"), 3));
        assert_eq!((number("empty"), node("empty").links), (number("empty too"), 2));
        assert_eq!((content(&contents, "d/first"), content(&contents, "alone")), (b"content".into(), b"alone".into()));
        assert_eq!((content(&contents, "link"), content(&contents, "empty")), (b"content".into(), Vec::new()));
        let What::CharDevice(rdev) = node("null").what else { panic!() };
        assert_eq!((rdev, node("fifo").kind(), node("socket").kind()), (0x103, FileKind::Fifo, FileKind::Socket));
    }
}

#[test]
fn archives_one_behind_the_other_are_one_tree() {
    let last = [new(1, 0o100_644, 1, "late", b"late"), new(2, 0o100_644, 1, "alone", b"new")].concat();
    let last = [last, new(0, 0, 1, "TRAILER!!!", b"")].concat();
    let [first, _] = samples();
    let plain = [&first[..], &[0; 512], &last].concat();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, &last).unwrap();
    let packed = [&first[..], &[0; 512], &encoder.finish().unwrap()].concat();
    for bytes in [plain, packed] {
        let contents = cpio(&bytes).unwrap();
        assert_eq!((content(&contents, "late"), content(&contents, "alone")), (b"late".to_vec(), b"new".to_vec()));
        assert_eq!(content(&contents, "second"), b"content");
    }
    assert_eq!(content(&cpio(&[&first[..], b"something else"].concat()).unwrap(), "second"), b"content");
}

#[test]
fn what_is_broken_says_where() {
    let [new_form, _] = samples();
    assert_eq!(cpio(b"nothing").unwrap_err(), "sample: not a cpio archive");
    let cut = &new_form[..new_form.len() - 124];
    assert_eq!(cpio(cut).unwrap_err(), format!("sample: at byte {}: truncated: no end is marked", cut.len()));
    let half = new(1, 0o100_644, 1, "f", b"12345678");
    assert_eq!(cpio(&half[..116]).unwrap_err(), "sample: entry 'f': truncated: 4 of 8 bytes are there");
    let climbs = cpio(&[new(1, 0o100_644, 1, "a/../../f", b""), new(0, 0, 1, "TRAILER!!!", b"")].concat());
    assert_eq!(climbs.unwrap_err(), "sample: entry 'a/../../f': climbs out of the archive with '..'");
    let mut endless = half.clone();
    endless[94..102].copy_from_slice(b"ffffffff");
    assert_eq!(cpio(&endless).unwrap_err(), "sample: at byte 0: a name of an impossible length");
}
