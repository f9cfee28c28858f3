//! Archives as programs write them, and some that none writes.

use std::io::Write;

use umvu_interface::FileKind;

use crate::damage::{read, sums};
use crate::entry::Data;
use crate::format::Format;
use crate::open::{Contents, Form};
use crate::tree::What;

/// An entry to be written.
struct Made<'a> {
    name: &'a [u8],
    mode: u32,
    method: u16,
    content: &'a [u8],
    packed: Vec<u8>,
    extra: Vec<u8>,
}

fn made<'a>(name: &'a str, mode: u32, content: &'a [u8]) -> Made<'a> {
    Made { name: name.as_bytes(), mode, method: 0, content, packed: content.to_vec(), extra: Vec::new() }
}

fn deflated<'a>(name: &'a str, mode: u32, content: &'a [u8]) -> Made<'a> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(content).unwrap();
    Made { method: 8, packed: encoder.finish().unwrap(), ..made(name, mode, content) }
}

/// Writes an archive; `before` stands in front of it.
fn archive(before: &[u8], entries: &[Made<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut directory = Vec::new();
    for entry in entries {
        let mut sum = flate2::Crc::new();
        sum.update(entry.content);
        let size = |content: &[u8]| u32::try_from(content.len()).unwrap().to_le_bytes();
        let short = |content: &[u8]| u16::try_from(content.len()).unwrap().to_le_bytes();
        let common = [
            &[20, 0, 0, 8][..],
            &entry.method.to_le_bytes(),
            // 2020-02-03 04:05:06
            &(4u16 << 11 | 5 << 5 | 3).to_le_bytes(),
            &(40u16 << 9 | 2 << 5 | 3).to_le_bytes(),
            &sum.sum().to_le_bytes(),
            &size(&entry.packed),
            &size(entry.content),
            &short(entry.name),
        ]
        .concat();
        let at = u32::try_from(bytes.len()).unwrap().to_le_bytes();
        bytes.extend([&b"PK\x03\x04"[..], &common, &[0, 0], entry.name, &entry.packed].concat());
        directory.extend([&b"PK\x01\x02\x14\x03"[..], &common, &short(&entry.extra), &[0; 6]].concat());
        directory.extend([&(entry.mode << 16).to_le_bytes()[..], &at, entry.name, &entry.extra].concat());
    }
    let (count, at) = (u16::try_from(entries.len()).unwrap().to_le_bytes(), u32::try_from(bytes.len()).unwrap());
    let size = u32::try_from(directory.len()).unwrap().to_le_bytes();
    let end = [&b"PK\x05\x06\0\0\0\0"[..], &count, &count, &size, &at.to_le_bytes(), &[3, 0], b"end"].concat();
    [before, &bytes, &directory, &end].concat()
}

/// An archive with an entry of every kind.
pub fn sample() -> Vec<u8> {
    let text = b"a text that is there many times ".repeat(200);
    let mut owned = made("d/owned", 0o100_640, b"owned");
    owned.extra = b"UT\x05\x00\x01\x00\xca\x9a\x3bux\x0b\x00\x01\x04\x0c\0\0\0\x04\x22\0\0\0".to_vec();
    let mut named = made("name", 0o100_644, b"");
    let mut sum = flate2::Crc::new();
    sum.update(named.name);
    named.extra = [&b"up\x0a\x00\x01"[..], &sum.sum().to_le_bytes(), "näme".as_bytes()].concat();
    named.extra[2] = 10;
    archive(
        b"#!/bin/sh\n",
        &[
            made("d/", 0o40_750, b""),
            deflated("d/text", 0o100_755, &text),
            owned,
            made("d/link", 0o120_777, b"text"),
            deflated("long link", 0o120_777, &b"../".repeat(100)),
            made("fifo", 0o10_600, b""),
            made("plain", 0, b"plain"),
            named,
        ],
    )
}

fn zip(bytes: &[u8]) -> Result<Contents, String> {
    read(bytes, Form::Archive(Format::Zip))
}

#[test]
fn every_kind_of_entry_is_what_it_was() {
    let contents = zip(&sample()).unwrap();
    let node = |path: &str| contents.tree.node(contents.tree.find(path.as_bytes()).unwrap()).unwrap();
    let seen = |path: &str| (node(path).mode, (node(path).uid, node(path).gid), node(path).mtime.seconds);
    assert_eq!(seen("d"), (0o750, (5, 6), 1_580_702_706));
    assert_eq!(seen("d/owned"), (0o640, (12, 34), 1_000_000_000));
    assert_eq!(seen("plain"), (0o644, (5, 6), 1_580_702_706));
    assert_eq!(node("fifo").kind(), FileKind::Fifo);
    assert_eq!(node("näme").kind(), FileKind::Regular);
    let entries = contents.tree.node(contents.tree.find(b"d").unwrap()).unwrap().entries().unwrap();
    assert_eq!(entries.len(), 3);
    let link = |directory: &[u8], name: &[u8]| {
        let directory = contents.tree.find(directory).unwrap();
        let node = contents.tree.node(contents.tree.child(directory, name).unwrap()).unwrap();
        let What::Symlink(target) = &node.what else { panic!("{name:?}") };
        target.to_vec()
    };
    assert_eq!((link(b"d", b"link"), link(b"", b"long link")), (b"text".to_vec(), b"../".repeat(100)));
    let text = b"a text that is there many times ".repeat(200);
    assert_eq!(content(&contents, "d/text").unwrap(), text);
    assert_eq!(content(&contents, "plain").unwrap(), b"plain");
}

fn content(contents: &Contents, path: &str) -> Result<Vec<u8>, String> {
    let node = contents.tree.node(contents.tree.find(path.as_bytes()).unwrap()).unwrap();
    let What::Regular { data: Data::Packed(packed), .. } = &node.what else { panic!("{path}") };
    let mut content = Vec::new();
    packed.unpack(&contents.layers[0], &mut content).map(|()| content).map_err(|error| error.to_string())
}

#[test]
fn what_is_not_what_the_directory_says_is_refused() {
    let (text, noise) = (vec![b'x'; 5000], [b'y'; 4999]);
    let lies = |lie: &dyn Fn(&mut Made<'_>)| {
        let mut entry = deflated("f", 0o100_644, &text);
        lie(&mut entry);
        content(&zip(&archive(b"", &[entry])).unwrap(), "f").unwrap_err()
    };
    assert_eq!(lies(&|entry| entry.content = &[b'y'; 4999]), "it is longer than the directory says");
    assert_eq!(lies(&|entry| entry.packed = deflated("", 0, &noise).packed), "it is shorter than the directory says");
    assert_eq!(lies(&|entry| entry.packed = deflated("", 0, &vec![b'z'; 5000]).packed), "its checksum is wrong");
    assert_eq!(lies(&|entry| entry.method = 9), "compressed in a way that is not known (9)");
}

#[test]
fn archives_of_nothing_and_of_nonsense_are_told_apart() {
    assert!(zip(&archive(b"", &[])).is_ok());
    assert_eq!(zip(&[0; 4096]).unwrap_err(), "sample: not a zip archive");
    let whole = archive(b"", &[made("f", 0o100_644, b"content")]);
    assert_eq!(zip(&whole[..60]).unwrap_err(), "sample: truncated: a zip archive without its end");
    let climbs = zip(&archive(b"", &[made("../f", 0o100_644, b"")])).unwrap_err();
    assert_eq!(climbs, "sample: entry '../f': climbs out of the archive with '..'");
    let mut long = whole.clone();
    let at = long.len() - 25 + 12;
    long[at] = 0xff;
    assert_eq!(zip(&long).unwrap_err(), "sample: the directory is longer than the file");
}

#[test]
fn what_the_sample_holds_is_found_by_its_sums() {
    assert_eq!(sums(&zip(&sample()).unwrap()).len(), 4);
}
