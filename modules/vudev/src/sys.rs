//! What sysfs tells of a disk: `block/genhd.c`, `block/blk-sysfs.c` and `block/partitions/core.c`. A tree of texts, and
//! links to it from the lists of devices. Knows nothing of inodes.

use std::collections::BTreeMap;

use crate::disk::{Disk, Part};
use crate::partition::SECTOR;

/// An object of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A directory.
    Directory,
    /// A file.
    Text(Vec<u8>),
    /// A symbolic link.
    Link(Vec<u8>),
}

/// Objects by their absolute paths.
pub type Tree = BTreeMap<Vec<u8>, Entry>;

/// A directory of the host in which something is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    /// Where the tree itself is.
    Devices,
    /// Disks.
    Block,
    /// Disks and partitions.
    Class,
    /// Disks and partitions by number.
    Number,
}

impl List {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Devices, Self::Block, Self::Class, Self::Number];

    /// Its path.
    pub fn path(self) -> &'static str {
        match self {
            Self::Devices => "/sys/devices",
            Self::Block => "/sys/block",
            Self::Class => "/sys/class/block",
            Self::Number => "/sys/dev/block",
        }
    }
}

/// A disk as sysfs is to show it.
pub struct Shown<'a> {
    /// The disk.
    pub disk: &'a Disk,
    /// Its name.
    pub name: &'a [u8],
    /// Names of its partitions, by their numbers.
    pub part_name: &'a dyn Fn(u32) -> Vec<u8>,
    /// Major and first minor number.
    pub numbers: (u32, u32),
}

/// The tree of a disk; `more` are the files of a directory of its kind's own.
pub fn tree(shown: &Shown<'_>, more: Option<&(&'static str, Vec<(&'static str, String)>)>) -> Tree {
    let mut tree = Tree::new();
    let device = [b"umvu-", shown.name].concat();
    let top = [b"/sys/devices/", &device[..]].concat();
    let block = [&top[..], b"/block"].concat();
    let disk = [&block[..], b"/", shown.name].concat();
    for directory in [&top, &block] {
        tree.insert(directory.clone(), Entry::Directory);
    }
    let inside = [&b"devices/"[..], &device, b"/block/", shown.name].concat();
    one(&mut tree, shown, Part::Whole, &disk);
    links(&mut tree, shown, Part::Whole, shown.name, &inside);
    for part in shown.disk.parts() {
        let name = (shown.part_name)(part.number);
        let at = [&disk[..], b"/", &name].concat();
        one(&mut tree, shown, Part::Number(part.number), &at);
        let more = [("partition", u64::from(part.number)), ("start", part.start / SECTOR)];
        for (file, value) in more {
            text(&mut tree, &at, file, &value.to_string());
        }
        links(&mut tree, shown, Part::Number(part.number), &name, &[&inside[..], b"/", &name].concat());
    }
    let whole = [
        ("removable", "0"),
        ("range", "256"),
        ("ext_range", "256"),
        ("hidden", "0"),
        ("capability", "0"),
        ("diskseq", "1"),
    ];
    for (file, value) in whole {
        text(&mut tree, &disk, file, value);
    }
    directory(&mut tree, &disk, "slaves");
    if let Some((name, files)) = more {
        let at = directory(&mut tree, &disk, name);
        files.iter().for_each(|(file, value)| text(&mut tree, &at, file, value));
    }
    let queue = directory(&mut tree, &disk, "queue");
    const QUEUE: [(&str, &str); 20] = [
        ("logical_block_size", "512"),
        ("physical_block_size", "512"),
        ("hw_sector_size", "512"),
        ("minimum_io_size", "512"),
        ("optimal_io_size", "0"),
        ("rotational", "0"),
        ("discard_granularity", "512"),
        ("discard_max_bytes", "4294966784"),
        ("discard_zeroes_data", "0"),
        ("write_same_max_bytes", "0"),
        ("write_zeroes_max_bytes", "4294966784"),
        ("nr_requests", "128"),
        ("scheduler", "[none]"),
        ("read_ahead_kb", "128"),
        ("max_sectors_kb", "1280"),
        ("max_hw_sectors_kb", "1280"),
        ("zoned", "none"),
        ("add_random", "0"),
        ("dax", "0"),
        ("write_cache", "write back"),
    ];
    for (file, value) in QUEUE {
        text(&mut tree, &queue, file, value);
    }
    tree
}

fn text(tree: &mut Tree, at: &[u8], file: &str, value: &str) {
    tree.insert([at, b"/", file.as_bytes()].concat(), Entry::Text(format!("{value}\n").into_bytes()));
}

fn directory(tree: &mut Tree, at: &[u8], name: &str) -> Vec<u8> {
    let path = [at, b"/", name.as_bytes()].concat();
    tree.insert(path.clone(), Entry::Directory);
    path
}

fn minor(shown: &Shown<'_>, part: Part) -> u32 {
    match part {
        Part::Whole => shown.numbers.1,
        Part::Number(number) => shown.numbers.1.saturating_add(number),
    }
}

/// What disks and partitions have in common.
fn one(tree: &mut Tree, shown: &Shown<'_>, part: Part, at: &[u8]) {
    tree.insert(at.to_vec(), Entry::Directory);
    let name = String::from_utf8_lossy(at.rsplit(|b| *b == b'/').next().unwrap_or_default()).into_owned();
    let (major, minor) = (shown.numbers.0, minor(shown, part));
    let length = shown.disk.window(part).map_or(0, |window| window.length);
    let kind = if part == Part::Whole { "disk" } else { "partition" };
    text(tree, at, "dev", &format!("{major}:{minor}"));
    text(tree, at, "size", &(length / SECTOR).to_string());
    text(tree, at, "ro", if shown.disk.is_read_only() { "1" } else { "0" });
    text(tree, at, "alignment_offset", "0");
    text(tree, at, "discard_alignment", "0");
    text(tree, at, "inflight", "       0        0");
    text(tree, at, "stat", &"        0".repeat(17));
    let number = if let Part::Number(number) = part { format!("\nPARTN={number}") } else { String::new() };
    text(tree, at, "uevent", &format!("MAJOR={major}\nMINOR={minor}\nDEVNAME={name}\nDEVTYPE={kind}{number}"));
    directory(tree, at, "holders");
    let depth = at.iter().filter(|b| **b == b'/').count() - 1;
    let target = ["../".repeat(depth).into_bytes(), b"class/block".to_vec()].concat();
    tree.insert([at, b"/subsystem"].concat(), Entry::Link(target));
}

/// The links to a disk or a partition from the lists.
fn links(tree: &mut Tree, shown: &Shown<'_>, part: Part, name: &[u8], inside: &[u8]) {
    let number = format!("{}:{}", shown.numbers.0, minor(shown, part));
    let mut link = |list: List, name: &[u8]| {
        let up = "../".repeat(list.path().matches('/').count() - 1);
        let target = [up.as_bytes(), inside].concat();
        tree.insert([list.path().as_bytes(), b"/", name].concat(), Entry::Link(target));
    };
    if part == Part::Whole {
        link(List::Block, name);
    }
    link(List::Class, name);
    link(List::Number, number.as_bytes());
}

/// The directory that an object is in, and its name there.
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::sync::Arc;

    use umvu_driver::FileStorage;

    use super::*;
    use crate::partition::Partition;

    #[test]
    fn every_link_leads_to_a_directory_of_the_tree() {
        let fd = rustix::fs::memfd_create("disk", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let file = File::from(fd);
        file.set_len(100 * SECTOR).unwrap();
        let disk = Disk::new(Arc::new(FileStorage::new(file, 0, 100 * SECTOR, false)));
        disk.add(Partition { number: 1, start: 10 * SECTOR, length: SECTOR }).unwrap();
        let part_name = |number| format!("hda{number}").into_bytes();
        let tree = tree(&Shown { disk: &disk, name: b"hda", part_name: &part_name, numbers: (3, 64) }, None);
        let links = tree.iter().filter_map(|(path, entry)| match entry {
            Entry::Link(target) => Some((path.clone(), target.clone())),
            _ => None,
        });
        let links = links.collect::<Vec<_>>();
        assert_eq!(links.len(), 7);
        for (path, target) in links {
            let mut at = split(&path).0.to_vec();
            for part in target.split(|b| *b == b'/') {
                match part {
                    b".." => at = split(&at).0.to_vec(),
                    name => at = [&at[..], b"/", name].concat(),
                }
            }
            let is_class = at == b"/sys/class/block";
            assert!(is_class || tree.get(&at) == Some(&Entry::Directory), "{}", at.escape_ascii());
        }
        assert_eq!(tree[&b"/sys/devices/umvu-hda/block/hda/hda1/start"[..]], Entry::Text(b"10\n".to_vec()));
        assert_eq!(tree[&b"/sys/dev/block/3:65"[..]], Entry::Link(b"../../devices/umvu-hda/block/hda/hda1".to_vec()));
    }
}
