//! Long random sequences of changes, in a union and in a plain directory: every call ends the same way, and both
//! look the same at the end, after remounts and from several threads.

mod bed;

use std::collections::BTreeMap;

use bed::{Bed, Tree};
use umvu_interface::{Errno, FileKind, OFlags, RenameFlags};

/// Numbers that look random and are the same every time (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    fn path(&mut self) -> String {
        const NAMES: [&str; 4] = ["a", "b", "c", "d"];
        let depth = 1 + self.below(3);
        (0..depth).map(|_| NAMES[usize::try_from(self.below(4)).unwrap()]).collect::<Vec<_>>().join("/")
    }
}

/// Makes the same tree twice.
fn populate(bed: &Bed, base: &str) {
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
fn change(tree: &Tree, random: &mut Random) -> (String, Result<(), Errno>) {
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
fn look(tree: &Tree) -> BTreeMap<String, String> {
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
                    let by_fd = bed::fd_stat(tree, &open);
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

/// More than one test run needs to find what is rare: `UMVU_TEST_SEEDS=1000`.
fn seeds(from: u64) -> std::ops::Range<u64> {
    let count = std::env::var("UMVU_TEST_SEEDS").ok().and_then(|count| count.parse().ok()).unwrap_or(20);
    from..from + count
}

fn compare(bed: Bed, mount: impl Fn(&Bed) -> Tree, layers: impl Fn(&Bed), seed: u64, steps: u32) {
    layers(&bed);
    bed.dirs(&["upper", "plain"]);
    populate(&bed, "plain");
    let plain = bed.mount("/plain", "/", &["bind"]);
    let mut tree = mount(&bed);
    assert_eq!(look(&tree), look(&plain));
    let mut history = Vec::new();
    let mut random = Random(seed);
    for step in 1..=steps {
        let mut same = Random(random.0);
        let (words, theirs) = change(&plain, &mut same);
        let (_, ours) = change(&tree, &mut random);
        history.push(words);
        assert_eq!(ours, theirs, "seed {seed}: {history:#?}");
        if step % 20 == 0 {
            assert_eq!(look(&tree), look(&plain), "seed {seed}: {history:#?}");
        }
        if step % 50 == 0 {
            drop(tree);
            tree = mount(&bed);
            assert_eq!(look(&tree), look(&plain), "seed {seed}, mounted again: {history:#?}");
        }
    }
}

#[test]
fn a_union_of_two_is_a_directory() {
    for seed in seeds(1) {
        compare(Bed::new(), Bed::cow, |bed| populate(bed, "lower"), seed, 200);
    }
}

#[test]
fn a_union_is_a_directory_for_root_of_the_view() {
    let mount = |bed: &Bed| Tree { who: bed::faked(0), ..bed.cow() };
    for seed in seeds(10_000) {
        // Owners are kept in memory here: they do not outlast a mount, the objects do.
        compare(Bed::faked(), mount, |bed| populate(bed, "lower"), seed, 49);
    }
}

#[test]
fn a_union_in_a_union_is_a_directory() {
    // The upper layer takes neither devices nor all attributes.
    let mount = |bed: &Bed| {
        let outer = bed.mount("/changes", "/", &["cow"]);
        bed::nested(&outer, "upper", "lower")
    };
    let layers = |bed: &Bed| {
        populate(bed, "lower");
        bed.dirs(&["upper", "changes"]);
    };
    for seed in seeds(20_000) {
        compare(Bed::new(), mount, layers, seed, 200);
    }
}

#[test]
fn a_union_of_three_is_a_directory() {
    // The middle layer hides what the lowest has too much.
    let layers = |bed: &Bed| {
        populate(bed, "low");
        bed.file("low/b/extra", "").file("low/extra/x", "").file("low/c2", "").dirs(&["high/b"]);
        std::fs::rename(bed.path("low/d"), bed.path("high/d")).unwrap();
        for path in ["high/b/extra", "high/extra", "high/c2"] {
            bed::whiteout(&bed.path(path));
        }
    };
    let mount = |bed: &Bed| bed.overlay(&["lowerdir=/high:/low", "upperdir=/upper"]);
    for seed in seeds(30_000) {
        compare(Bed::new(), mount, layers, seed, 200);
    }
}

#[test]
fn threads_do_not_disturb_each_other() {
    let bed = Bed::new();
    populate(&bed, "lower");
    for name in 0..4 {
        populate(&bed, &format!("lower/own{name}"));
    }
    populate(&bed, "plain");
    let tree = bed.cow();
    std::thread::scope(|scope| {
        for number in 0..4u64 {
            let (bed, tree) = (&bed, &tree);
            scope.spawn(move || {
                // Each thread changes a directory of its own, and stirs the common ones.
                let own = Tree { root: tree.find(&format!("own{number}")).unwrap(), ..tree.again() };
                let mut random = Random(7 + number);
                for _ in 0..300 {
                    let _ = change(&own, &mut random);
                    let stirring = Random(random.below(1 << 40) + 1);
                    let _ = change(tree, &mut { stirring });
                    let _ = tree.root.lookup_path(format!("own{number}/a/b").as_bytes());
                }
                let _ = bed;
            });
        }
    });
    look(&tree);
    let before = look(&tree);
    drop(tree);
    assert_eq!(look(&bed.cow()), before);
}
