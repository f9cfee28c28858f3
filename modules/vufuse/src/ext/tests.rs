//! Whole trees against the ones that mke2fs was given; random changes against the host's own file system; crashes.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{symlink, FileExt, PermissionsExt};
use std::path::Path;

use umvu_driver::{Storage, ROOT};

use super::*;
use crate::contained::Contained;
use crate::testing::{compare, driver_tree, find, host_tree, image, noise, run, run_any, who, Bed, Seen};

fn open(path: &Path, mode: Mode) -> Contained {
    let image = image(path, mode != Mode::ReadWrite);
    let ext = Ext::open(image.clone(), mode).unwrap_or_else(|(errno, why)| panic!("{errno}: {why}"));
    Contained::new(image, ext)
}

fn check(path: &Path) {
    run("e2fsck", &["-fn", path.to_str().unwrap()]);
}

fn without_lost_and_found(driver: &dyn Driver) -> crate::testing::Tree {
    let mut tree = driver_tree(driver);
    assert!(tree.remove(&b"lost+found"[..]).is_some());
    tree.get_mut(&b""[..]).unwrap().links -= 1;
    tree
}

fn round_trip(name: &str, options: &[&str]) {
    let bed = Bed::new(&format!("ext-{name}"));
    let tree = bed.tree();
    let (from, to) = (bed.text("tree"), bed.text("image"));
    run("mke2fs", &[&["-q", "-F", "-d", &from], options, &[&to, "24M"]].concat());
    let before = fs::read(bed.path("image")).unwrap();
    for mode in [Mode::ReadOnly, Mode::NoReplay] {
        let driver = open(&bed.path("image"), mode);
        let differ = |path: &[u8], seen: &mut Seen| {
            // mke2fs makes the root itself.
            if path.is_empty() {
                seen.mtime = Default::default();
                seen.mode = 0;
                seen.owner = (0, 0);
            }
            // And gives a fifo a block's size.
            if seen.mode & 0o170_000 == 0o010_000 {
                seen.size = 0;
            }
        };
        compare(host_tree(&tree), without_lost_and_found(&driver), differ);
        driver.unmount().unwrap();
    }
    assert!(before == fs::read(bed.path("image")).unwrap(), "a mount for reading changed the image");
}

#[test]
fn ext4_shows_the_tree_it_was_made_of() {
    round_trip("4", &["-t", "ext4"]);
}

#[test]
fn ext4_of_small_blocks_shows_the_tree_it_was_made_of() {
    round_trip("4-1k", &["-t", "ext4", "-b", "1024", "-O", "^metadata_csum,^64bit"]);
}

#[test]
fn ext3_shows_the_tree_it_was_made_of() {
    round_trip("3", &["-t", "ext3"]);
}

#[test]
fn ext2_shows_the_tree_it_was_made_of() {
    round_trip("2", &["-t", "ext2", "-b", "1024"]);
}

/// The same call to a driver and to the host.
struct Twins<'a> {
    driver: &'a dyn Driver,
    host: &'a Path,
    random: u64,
}

impl Twins<'_> {
    fn random(&mut self, below: usize) -> usize {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.random >> 33).unwrap() % below
    }

    fn name(&mut self) -> String {
        format!("n{}", self.random(12))
    }

    /// A directory, by its path.
    fn directory(&mut self) -> (String, NodeId) {
        let mut path = String::new();
        let mut node = ROOT;
        for _ in 0..self.random(3) {
            let name = self.name();
            let found = who(|who| self.driver.lookup(who, node, &Name::new(name.as_bytes()).unwrap()));
            match found {
                Ok(found) if found.told.stat.is_dir() => {
                    path = format!("{path}{name}/");
                    node = found.node;
                }
                _ => break,
            }
        }
        (path, node)
    }

    fn step(&mut self) {
        let (path, directory) = self.directory();
        let text = self.name();
        let (at, name) = (self.host.join(&path).join(&text), Name::new(text.as_bytes()).unwrap());
        let full = format!("{path}{text}");
        let node = find(self.driver, &full);
        let from_host = |error: std::io::Error| Errno::from_io_error(&error).unwrap();
        let (mine, hosts) = match self.random(14) {
            0..=2 => {
                let what = NewNode::Regular { mode: 0o644 };
                let mine = who(|who| self.driver.create(who, directory, &name, &what)).map(|_| ());
                let hosts = fs::File::options().create_new(true).write(true).open(&at).map(|_| ());
                (mine, hosts.map_err(from_host))
            }
            3..=6 => {
                let file = node.and_then(|node| who(|who| self.driver.open(who, node, OFlags::RDWR)));
                let hosts = fs::File::options().write(true).open(&at).map_err(from_host);
                let (Ok(file), Ok(host)) = (file, hosts) else { return };
                let count = self.random(20_000);
                let (offset, bytes) = (self.random(200_000) as u64, noise(self.random, count));
                let mine = file.write_at(offset, &bytes);
                (mine, host.write_all_at(&bytes, offset).map_err(from_host))
            }
            7 => {
                let size = self.random(150_000) as u64;
                let Ok(host) = fs::File::options().write(true).open(&at) else { return };
                let change = SetAttr { size: Some(size), ..SetAttr::default() };
                (
                    who(|who| self.driver.set_attr(who, node.unwrap(), &change)).map(|_| ()),
                    host.set_len(size).map_err(from_host),
                )
            }
            8 => {
                let what = NewNode::Directory { mode: 0o755 };
                let mine = who(|who| self.driver.create(who, directory, &name, &what)).map(|_| ());
                (mine, fs::create_dir(&at).map_err(from_host))
            }
            9 => {
                let kind = if at.is_dir() { RemoveKind::Directory } else { RemoveKind::File };
                let hosts = if at.is_dir() { fs::remove_dir(&at) } else { fs::remove_file(&at) };
                (who(|who| self.driver.remove(who, directory, &name, kind)), hosts.map_err(from_host))
            }
            10 => {
                let (to, new_directory) = self.directory();
                let new = self.name();
                if format!("{to}{new}/").starts_with(&format!("{full}/")) || full.starts_with(&format!("{to}{new}/")) {
                    // Into itself, or onto what it is in: refused before a driver is asked.
                    return;
                }
                let new_name = Name::new(new.as_bytes()).unwrap();
                let mine = who(|who| {
                    self.driver.rename(who, directory, &name, new_directory, &new_name, RenameFlags::empty())
                });
                (mine, fs::rename(&at, self.host.join(to).join(new)).map_err(from_host))
            }
            11 => {
                let Ok(node) = node.and_then(|node| if at.is_file() { Ok(node) } else { Err(Errno::PERM) }) else {
                    return;
                };
                let (to, new_directory) = self.directory();
                let new = self.name();
                let mine = who(|who| self.driver.link(who, node, new_directory, &Name::new(new.as_bytes()).unwrap()));
                (mine.map(|_| ()), fs::hard_link(&at, self.host.join(to).join(new)).map_err(from_host))
            }
            12 => {
                let target = "t".repeat(1 + self.random(100));
                let what = NewNode::Symlink { target: target.as_bytes() };
                let mine = who(|who| self.driver.create(who, directory, &name, &what)).map(|_| ());
                (mine, symlink(&target, &at).map_err(from_host))
            }
            _ => {
                let Ok(node) = node.and_then(|node| if at.is_file() { Ok(node) } else { Err(Errno::PERM) }) else {
                    return;
                };
                let mode = 0o600 + u32::try_from(self.random(0o100)).unwrap();
                let change = SetAttr { mode: Some(mode), ..SetAttr::default() };
                who(|who| self.driver.set_attr(who, node, &change)).unwrap();
                fs::set_permissions(&at, fs::Permissions::from_mode(mode)).unwrap();
                let count = self.random(300);
                let value = noise(self.random, count);
                let mine = who(|who| self.driver.set_xattr(who, node, b"user.x", &value, XattrSet::Any));
                let flags = rustix::fs::XattrFlags::empty();
                (mine, rustix::fs::setxattr(&at, "user.x", &value, flags))
            }
        };
        assert_eq!(mine, hosts, "{full}");
    }
}

fn stress(name: &str, options: &[&str]) {
    let bed = Bed::new(&format!("ext-stress-{name}"));
    let (path, host) = (bed.path("image"), bed.path("host"));
    fs::create_dir(&host).unwrap();
    run("mke2fs", &[&["-q", "-F"], options, &[&bed.text("image"), "32M"]].concat());
    let differ = |_: &[u8], seen: &mut Seen| {
        seen.owner = (0, 0);
        seen.mtime = Default::default();
        if seen.mode & 0o170_000 == FileKind::Directory.bits() {
            seen.mode = 0;
        }
    };
    for round in 0..3 {
        let driver = open(&path, Mode::ReadWrite);
        let mut twins = Twins { driver: &driver, host: &host, random: 77 + round };
        for step in 0..500 {
            twins.step();
            if step % 100 == 99 {
                driver.sync().unwrap();
            }
        }
        compare(host_tree(&host), without_lost_and_found(&driver), differ);
        driver.unmount().unwrap();
        check(&path);
    }
    compare(host_tree(&host), without_lost_and_found(&open(&path, Mode::ReadOnly)), differ);
}

#[test]
fn random_changes_leave_ext4_as_the_host_has_it() {
    stress("4", &["-t", "ext4"]);
}

#[test]
fn random_changes_leave_ext4_of_small_blocks_as_the_host_has_it() {
    stress("4-1k", &["-t", "ext4", "-b", "1024"]);
}

#[test]
fn random_changes_leave_ext3_as_the_host_has_it() {
    stress("3", &["-t", "ext3"]);
}

#[test]
fn random_changes_leave_ext2_as_the_host_has_it() {
    stress("2", &["-t", "ext2"]);
}

/// A storage that knows in which order it was written.
struct Recorder {
    bytes: Mutex<Vec<u8>>,
    log: Mutex<Vec<Event>>,
}

#[derive(Clone)]
enum Event {
    Write(u64, Vec<u8>),
    Flush,
    /// So many files were synced.
    Synced(usize),
}

impl Storage for Recorder {
    fn size(&self) -> u64 {
        self.bytes.lock().len() as u64
    }

    fn is_read_only(&self) -> bool {
        false
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let at = usize::try_from(offset).unwrap();
        buffer.copy_from_slice(&self.bytes.lock()[at..at + buffer.len()]);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let at = usize::try_from(offset).unwrap();
        self.bytes.lock()[at..at + bytes.len()].copy_from_slice(bytes);
        self.log.lock().push(Event::Write(offset, bytes.to_vec()));
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        self.log.lock().push(Event::Flush);
        Ok(())
    }
}

fn content(number: usize) -> Vec<u8> {
    noise(number as u64, 500 + number * 1_931 % 30_000)
}

/// Writes files, syncing each, and gives the image before and all that was done to it.
fn recorded(bed: &Bed) -> (Vec<u8>, Vec<Event>) {
    run("mke2fs", &["-q", "-F", "-t", "ext4", "-b", "1024", &bed.text("image"), "8M"]);
    let before = fs::read(bed.path("image")).unwrap();
    let recorder = Arc::new(Recorder { bytes: Mutex::new(before.clone()), log: Mutex::default() });
    let image = Arc::new(Image::new(recorder.clone(), "image"));
    let driver = Contained::new(image.clone(), Ext::open(image, Mode::ReadWrite).unwrap());
    for number in 0..40 {
        who(|who| {
            let name = Name::new(format!("f{number}").as_bytes()).unwrap();
            let (_, file) = driver.create_open(who, ROOT, &name, 0o644, OFlags::RDWR).unwrap();
            file.write_at(0, &content(number)).unwrap();
            if number % 4 == 3 {
                // Names go and come, too.
                let old = Name::new(format!("f{}", number - 1).as_bytes()).unwrap();
                driver.rename(who, ROOT, &old, ROOT, &Name::new(b"moved").unwrap(), RenameFlags::empty()).unwrap();
                driver.remove(who, ROOT, &Name::new(b"moved").unwrap(), RemoveKind::File).unwrap();
            }
            file.sync().unwrap();
            recorder.log.lock().push(Event::Synced(number + 1));
        });
    }
    let log = recorder.log.lock().clone();
    (before, log)
}

/// Checks an image after a crash: it can be repaired without a question, and has all that was synced.
fn check_crash(bed: &Bed, bytes: &[u8], synced: usize, what: &str) {
    let path = bed.path("crashed");
    fs::write(&path, bytes).unwrap();
    // What we replay ourselves must be right too.
    let mounted = Ext::open(image(&path, false), Mode::ReadWrite).unwrap_or_else(|why| panic!("{what}: {why:?}"));
    let all = |driver: &dyn Driver| {
        for number in (0..synced).filter(|number| number % 4 != 2) {
            let node = find(driver, &format!("f{number}")).unwrap_or_else(|errno| panic!("{what}: f{number}: {errno}"));
            let file = who(|who| driver.open(who, node, OFlags::RDONLY)).unwrap();
            let found = crate::testing::read_whole(&*file, 1 << 20, 65_536).unwrap();
            assert!(found == content(number), "{what}: f{number} has other content");
        }
    };
    all(&*mounted);
    mounted.unmount().unwrap();
    check(&path);
    fs::write(&path, bytes).unwrap();
    let (_, said) = run_any("e2fsck", &["-fp", path.to_str().unwrap()], b"");
    assert!(!said.contains("UNEXPECTED"), "{what}: {said}");
    check(&path);
    all(&*Ext::open(image(&path, true), Mode::ReadOnly).unwrap());
}

#[test]
fn whoever_is_killed_between_two_writes_leaves_all_that_was_synced() {
    let bed = Bed::new("ext-killed");
    let (before, log) = recorded(&bed);
    for point in (0..log.len()).step_by(log.len() / 25) {
        let (mut bytes, mut synced) = (before.clone(), 0);
        for event in &log[..point] {
            match event {
                Event::Write(offset, piece) => {
                    let at = usize::try_from(*offset).unwrap();
                    bytes[at..at + piece.len()].copy_from_slice(piece);
                }
                Event::Flush => {}
                Event::Synced(count) => synced = *count,
            }
        }
        check_crash(&bed, &bytes, synced, &format!("killed after {point} of {}", log.len()));
    }
}

#[test]
fn a_power_cut_that_loses_what_was_not_flushed_loses_nothing_that_was_synced() {
    let bed = Bed::new("ext-power");
    let (before, log) = recorded(&bed);
    for point in (1..log.len()).step_by(log.len() / 25) {
        let (mut bytes, mut synced) = (before.clone(), 0);
        let mut unsure = BTreeMap::new();
        let put = |bytes: &mut Vec<u8>, (offset, piece): (u64, Vec<u8>)| {
            let at = usize::try_from(offset).unwrap();
            bytes[at..at + piece.len()].copy_from_slice(&piece);
        };
        for (number, event) in log[..point].iter().enumerate() {
            match event {
                Event::Write(offset, piece) => {
                    unsure.insert(number, (*offset, piece.clone()));
                }
                Event::Flush => std::mem::take(&mut unsure).into_values().for_each(|write| put(&mut bytes, write)),
                Event::Synced(count) => synced = *count,
            }
        }
        let kept = unsure.into_iter().filter(|(number, _)| (number * 7 + point) % 3 == 0).map(|(_, write)| write);
        kept.for_each(|write| put(&mut bytes, write));
        check_crash(&bed, &bytes, synced, &format!("power cut after {point} of {}", log.len()));
    }
}

#[test]
fn a_large_directory_in_pieces_counts_its_blocks() {
    for (name, options) in [("large", "^resize_inode"), ("large-plain", "^metadata_csum,^resize_inode")] {
        let bed = Bed::new(&format!("ext-{name}"));
        let to = bed.text("image");
        // Bitmaps with an end that stands for no inode, and groups whose bitmaps were not used.
        run("mke2fs", &["-q", "-F", "-t", "ext4", "-b", "1024", "-O", options, "-N", "6000", &to, "40M"]);
        let driver = open(&bed.path("image"), Mode::ReadWrite);
        let make = |directory, name: &str, what: &NewNode<'_>| {
            who(|who| driver.create(who, directory, &Name::new(name.as_bytes()).unwrap(), what)).unwrap().node
        };
        let directory = make(ROOT, "directory", &NewNode::Directory { mode: 0o755 });
        for number in 0..4000 {
            let long = format!("{number:0>200}");
            let node = make(directory, &long, &NewNode::Regular { mode: 0o644 });
            if number % 3 == 0 {
                // Its block lies between those of the directory.
                who(|who| driver.open(who, node, OFlags::RDWR)).unwrap().write_at(0, b"content").unwrap();
            }
        }
        driver.unmount().unwrap();
        check(&bed.path("image"));
    }
}

#[test]
fn a_symbolic_link_of_terabytes_is_damage() {
    let bed = Bed::new("ext-link");
    let (to, path) = (bed.text("image"), bed.path("image"));
    run("mke2fs", &["-q", "-F", "-t", "ext2", "-b", "1024", &to, "2M"]);
    run("debugfs", &["-w", "-R", &format!("symlink l {}", "long/".repeat(30)), &to]);
    run("debugfs", &["-w", "-R", "set_inode_field l size 15298673508510", &to]);
    let driver = open(&path, Mode::ReadOnly);
    let link = find(&driver, "l").unwrap();
    assert_eq!(who(|who| driver.readlink(who, link)), Err(Errno::UCLEAN));
}

#[test]
fn a_full_image_refuses_writes_and_stays_sound() {
    for (kind, size) in [("ext4", "4M"), ("ext2", "4M")] {
        let bed = Bed::new(&format!("full-{kind}"));
        let to = bed.text("image");
        run("mke2fs", &["-q", "-F", "-t", kind, "-b", "1024", &to, size]);
        let driver = open(&bed.path("image"), Mode::ReadWrite);
        let name = |text: &str| Name::new(text.as_bytes()).unwrap();
        let create = |text: &str| {
            who(|who| driver.create(who, ROOT, &name(text), &NewNode::Regular { mode: 0o644 })).unwrap().node
        };
        let write = |node| {
            let file = who(|who| driver.open(who, node, OFlags::RDWR)).unwrap();
            let bytes = noise(7, 64 << 10);
            (0..100u64).map(|piece| file.write_at(piece * bytes.len() as u64, &bytes)).find(Result::is_err)
        };
        assert_eq!(write(create("all")), Some(Err(Errno::NOSPC)));
        // What is there can be written, and what was removed makes room.
        let all = find(&driver, "all").unwrap();
        who(|who| driver.open(who, all, OFlags::RDWR)).unwrap().write_at(0, b"other bytes").unwrap();
        assert_eq!(write(create("more")), Some(Err(Errno::NOSPC)));
        who(|who| driver.remove(who, ROOT, &name("all"), RemoveKind::File)).unwrap();
        driver.forget(all, u64::MAX);
        let again = create("again");
        let file = who(|who| driver.open(who, again, OFlags::RDWR)).unwrap();
        file.write_at(0, &noise(9, 1 << 20)).unwrap();
        drop(file);
        driver.unmount().unwrap();
        check(&bed.path("image"));
    }
}

#[test]
fn times_are_kept_to_the_nanosecond() {
    let bed = Bed::new("ext-times");
    run("mke2fs", &["-q", "-F", "-t", "ext4", &bed.text("image"), "8M"]);
    let times = |seconds| Timestamp { seconds, nanoseconds: 123_456_789 };
    let driver = open(&bed.path("image"), Mode::ReadWrite);
    let name = Name::new(b"f").unwrap();
    let made = who(|who| driver.create(who, ROOT, &name, &NewNode::Regular { mode: 0o600 })).unwrap();
    let now = made.told.stat.btime.unwrap();
    assert!(now.nanoseconds != 0 && made.told.stat.mtime == now);
    let change =
        SetAttr { atime: SetTime::At(times(5)), mtime: SetTime::At(times(5_000_000_000)), ..SetAttr::default() };
    let told = who(|who| driver.set_attr(who, made.node, &change)).unwrap();
    assert_eq!((told.stat.atime, told.stat.mtime), (times(5), times(5_000_000_000)));
    driver.unmount().unwrap();
    drop(driver);
    let driver = open(&bed.path("image"), Mode::ReadOnly);
    let stat = who(|who| driver.stat(who, find(&driver, "f").unwrap())).unwrap().stat;
    assert_eq!((stat.atime, stat.mtime, stat.btime), (times(5), times(5_000_000_000), Some(now)));
}

#[test]
fn a_file_without_a_name_stays_while_it_is_open() {
    let bed = Bed::new("ext-nameless");
    run("mke2fs", &["-q", "-F", "-t", "ext4", &bed.text("image"), "8M"]);
    let driver = open(&bed.path("image"), Mode::ReadWrite);
    let name = Name::new(b"f").unwrap();
    let free = || who(|who| driver.statfs(who)).unwrap().files_free;
    let before = free();
    who(|who| {
        let (found, file) = driver.create_open(who, ROOT, &name, 0o600, OFlags::RDWR).unwrap();
        file.write_at(0, b"still there").unwrap();
        driver.remove(who, ROOT, &name, RemoveKind::File).unwrap();
        driver.forget(found.node, 1);
        let mut buffer = [0; 11];
        assert_eq!(file.read_at(0, &mut buffer), Ok(11));
        assert_eq!(&buffer, b"still there");
        assert_eq!(free(), before - 1);
        drop(file);
    });
    assert_eq!(free(), before);
    driver.unmount().unwrap();
    check(&bed.path("image"));
}

#[test]
fn special_files_come_and_go() {
    let bed = Bed::new("ext-special");
    for kind in ["ext2", "ext4"] {
        run("mke2fs", &["-q", "-F", "-t", kind, &bed.text("image"), "8M"]);
        let driver = open(&bed.path("image"), Mode::ReadWrite);
        let numbers = [(0o020_644, (1, 3)), (0o060_600, (259, 70_000)), (0o010_640, (0, 0)), (0o140_755, (0, 0))];
        for (mode, (major, minor)) in numbers {
            let rdev = rustix::fs::makedev(major, minor);
            let (one, two) = (Name::new(b"one").unwrap(), Name::new(b"two").unwrap());
            who(|who| {
                let what = NewNode::Special { mode, rdev };
                let stat = driver.create(who, ROOT, &one, &what).unwrap().told.stat;
                assert_eq!((stat.mode, stat.rdev), (mode, rdev));
                driver.create(who, ROOT, &two, &what).unwrap();
                driver.rename(who, ROOT, &one, ROOT, &two, RenameFlags::empty()).unwrap();
                let node = driver.lookup(who, ROOT, &two).unwrap().node;
                driver.link(who, node, ROOT, &one).unwrap();
                driver.remove(who, ROOT, &two, RemoveKind::File).unwrap();
                assert_eq!(driver.stat(who, node).unwrap().stat.rdev, rdev);
                driver.remove(who, ROOT, &one, RemoveKind::File).unwrap();
            });
        }
        driver.unmount().unwrap();
        check(&bed.path("image"));
    }
}

#[test]
fn features_that_are_not_supported_are_named() {
    let bed = Bed::new("ext-features");
    for (feature, named, read_only) in [
        ("inline_data", "inline_data", false),
        ("casefold", "casefold", false),
        ("quota", "quota", true),
        ("bigalloc", "bigalloc", false),
    ] {
        run("mke2fs", &["-q", "-F", "-t", "ext4", "-O", feature, &bed.text("image"), "16M"]);
        let before = fs::read(bed.path("image")).unwrap();
        let (errno, why) = Ext::open(image(&bed.path("image"), false), Mode::ReadWrite).err().unwrap();
        assert_eq!(errno, Errno::OPNOTSUPP, "{feature}: {why}");
        assert!(why.contains(named), "{why}");
        assert!(before == fs::read(bed.path("image")).unwrap());
        assert_eq!(Ext::open(image(&bed.path("image"), true), Mode::ReadOnly).is_ok(), read_only, "{feature}");
    }
}

#[test]
fn what_is_no_ext_is_refused() {
    let why = |bytes: &[u8]| Ext::open(crate::testing::image_of(bytes), Mode::ReadOnly).err().map(|(errno, _)| errno);
    assert_eq!(why(b""), Some(Errno::INVAL));
    assert_eq!(why(&[0; 65_536]), Some(Errno::INVAL));
}
