//! Changes that look random, and everything that can be seen of a tree.

use std::collections::BTreeMap;

use umvu_interface::{Errno, FileKind, OFlags, RenameFlags};

use super::{fd_stat, Bed, Tree};

/// The seeds of a test; more than one run needs find what is rare: `UMVU_TEST_SEEDS=1000`.
pub fn seeds(from: u64, usual: u64) -> std::ops::Range<u64> {
    let count = std::env::var("UMVU_TEST_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(usual);
    from..from + count
}

/// Numbers that look random and are the same every time (xorshift).
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    pub fn path(&mut self) -> String {
        const NAMES: [&str; 4] = ["a", "b", "c", "d"];
        let depth = 1 + self.below(3);
        (0..depth).map(|_| NAMES[usize::try_from(self.below(4)).unwrap()]).collect::<Vec<_>>().join("/")
    }
}

/// Makes the same tree twice.
pub fn populate(bed: &Bed, base: &str) {
    for path in ["a/a/f", "a/b", "a/c/a", "b/a/a", "b/b/c", "b/c", "c", "d/d/d"] {
        bed.file(&format!("{base}/{path}"), path);
    }
    let link = |old: &str, new: &str| {
        std::fs::hard_link(bed.path(&format!("{base}/{old}")), bed.path(&format!("{base}/{new}"))).unwrap();
    };
    link("a/b", "d/b");
    link("a/b", "d/d/c");
    link("c", "a/d");
    std::os::unix::fs::symlink("target", bed.path(&format!("{base}/d/a"))).unwrap();
}

/// One change, as words and as the outcome of making it.
pub fn change(tree: &Tree, random: &mut Random) -> (String, Result<(), Errno>) {
    let (path, other) = (random.path(), random.path());
    let text = format!("{}", random.below(1000));
    match random.below(16) {
        0 | 1 => (format!("write {path} {text}"), tree.write(&path, &text)),
        2 => {
            let done = match tree.find(&path).and_then(|inode| inode.kind()) {
                Ok(FileKind::Regular) => tree.append(&path, &text),
                Ok(_) => Ok(()),
                Err(errno) => Err(errno),
            };
            (format!("append {path} {text}"), done)
        }
        3 | 4 => (format!("mkdir {path}"), tree.mkdir(&path)),
        5 => (format!("rm {path}"), tree.rm(&path)),
        6 => (format!("rmdir {path}"), tree.rmdir(&path)),
        7 => (format!("rm -r {path}"), tree.rm_r(&path)),
        8..=10 => (format!("mv {path} {other}"), tree.mv(&path, &other)),
        11 => (format!("exchange {path} {other}"), tree.rename(&path, &other, RenameFlags::EXCHANGE)),
        12 => (format!("mv -n {path} {other}"), tree.rename(&path, &other, RenameFlags::NOREPLACE)),
        13 => (format!("ln {path} {other}"), tree.link(&path, &other)),
        14 => (format!("ln -s {text} {path}"), tree.symlink(&text, &path)),
        _ => {
            let done = match tree.find(&path).and_then(|inode| inode.kind()) {
                Ok(FileKind::Symlink) => Ok(()),
                Ok(_) => tree.chmod(&path, 0o700 | u32::try_from(random.below(64)).unwrap()),
                Err(errno) => Err(errno),
            };
            (format!("chmod {path}"), done)
        }
    }
}

/// Everything in a tree: kind, mode, links, content, and which names are one file.
pub fn look(tree: &Tree) -> BTreeMap<String, String> {
    let mut seen = BTreeMap::new();
    let mut groups = BTreeMap::new();
    let mut todo = vec![String::new()];
    while let Some(directory) = todo.pop() {
        for name in tree.ls(&directory).unwrap() {
            let path = if directory.is_empty() { name } else { format!("{directory}/{name}") };
            let stat = tree.stat(&path);
            let line = match stat.kind() {
                FileKind::Directory => {
                    todo.push(path.clone());
                    format!("directory {:o}", stat.mode)
                }
                FileKind::Symlink => format!("link {:?}", tree.find(&path).unwrap().readlink().unwrap()),
                _ => {
                    let open = tree.open(&path, OFlags::RDONLY).unwrap();
                    let by_fd = fd_stat(tree, &open);
                    assert_eq!((by_fd.ino, by_fd.nlink), (stat.ino, stat.nlink), "{path}");
                    groups.entry(stat.ino).or_insert_with(Vec::new).push(path.clone());
                    format!("{:o} {:?}", stat.mode, tree.read(&path).unwrap())
                }
            };
            seen.insert(path, line);
        }
    }
    for mut group in groups.into_values() {
        group.sort();
        let first = group[0].clone();
        for path in group {
            seen.entry(path).and_modify(|line| line.push_str(&format!(" is {first}")));
        }
    }
    seen
}
