//! Files against mtools, random changes against a model, and fsck.fat after each.

use std::collections::BTreeMap;
use std::path::Path;

use super::*;
use crate::contained::Contained;
use crate::testing::{driver_tree, find, image, image_of, noise, read_whole, run, who, Bed};

fn open(path: &Path, is_read_only: bool) -> Contained {
    let image = image(path, is_read_only);
    let owner = Owner { mounter: (5, 6), default_mask: 0o022, ..Owner::default() };
    let fat = Fat::open(image.clone(), owner).unwrap();
    Contained::new(image, fat)
}

fn check(path: &Path) {
    run("fsck.fat", &["-n", path.to_str().unwrap()]);
}

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).unwrap()
}

fn create(driver: &dyn Driver, directory: NodeId, text: &str, what: &NewNode<'_>) -> Result<NodeId> {
    who(|who| driver.create(who, directory, &name(text), what)).map(|found| found.node)
}

/// Sizes for which mkfs.fat makes each width.
const WIDTHS: [(&str, &str, &str); 3] = [("12", "4096", "4"), ("16", "20480", "2"), ("32", "70000", "1")];

#[test]
fn files_of_mtools_are_read() {
    for (width, size, sectors) in WIDTHS {
        let bed = Bed::new(&format!("fat-read-{width}"));
        let to = bed.text("image");
        run("mkfs.fat", &["-C", "-F", width, "-s", sectors, &to, size]);
        std::fs::create_dir_all(bed.path("Directory with a name/sub")).unwrap();
        let content = noise(3, 700_001);
        std::fs::write(bed.path("Directory with a name/sub/A long name, in Größe.txt"), &content).unwrap();
        std::fs::write(bed.path("lower.txt"), b"lower").unwrap();
        let (directory, lower) = (bed.text("Directory with a name"), bed.text("lower.txt"));
        run("env", &["TZ=UTC", "LC_ALL=C.UTF-8", "mcopy", "-s", "-m", "-i", &to, &directory, &lower, "::"]);
        let before = std::fs::read(bed.path("image")).unwrap();
        let tree = driver_tree(&open(&bed.path("image"), true));
        let paths: Vec<String> = tree.keys().map(|path| String::from_utf8(path.clone()).unwrap()).collect();
        let long = "Directory with a name/sub/A long name, in Größe.txt";
        assert_eq!(paths, ["", "Directory with a name", "Directory with a name/sub", long, "lower.txt"]);
        let seen = &tree[long.as_bytes()];
        assert!(seen.content.0 == content);
        assert_eq!((seen.mode, seen.owner), (0o100_755, (5, 6)));
        let host = std::fs::metadata(bed.path(long)).unwrap().modified().unwrap();
        let seconds = host.duration_since(UNIX_EPOCH).unwrap().as_secs();
        assert!(u64::try_from(seen.mtime.seconds).unwrap().abs_diff(seconds) <= 2);
        assert!(before == std::fs::read(bed.path("image")).unwrap(), "a mount for reading changed the image");
    }
}

#[test]
fn a_removed_file_that_is_open_at_the_end_is_freed_once() {
    let bed = Bed::new("fat-removed");
    run("mkfs.fat", &["-C", "-F", "16", &bed.text("image"), "20480"]);
    let fat = Fat::open(image(&bed.path("image"), false), Owner::default()).unwrap();
    let free = || who(|who| fat.statfs(who)).unwrap().blocks_free;
    let before = free();
    let node = create(&*fat, ROOT, "file", &NewNode::Regular { mode: 0o644 }).unwrap();
    let opened = who(|who| fat.open(who, node, OFlags::RDWR)).unwrap();
    opened.write_at(0, &noise(3, 100_000)).unwrap();
    who(|who| fat.remove(who, ROOT, &name("file"), RemoveKind::File)).unwrap();
    assert!(free() < before, "it is open");
    fat.unmount().unwrap();
    assert_eq!(free(), before);
    {
        let state = &mut fat.state.lock();
        let known = state.nodes.get_mut(&node).unwrap();
        (known.lookups, known.opens) = (0, 0);
        assert_eq!(state.let_go(node), Ok(()));
    }
    drop(opened);
    assert_eq!(free(), before);
    check(&bed.path("image"));
}

#[test]
fn what_is_written_is_read_by_mtools() {
    for (width, size, sectors) in WIDTHS {
        let bed = Bed::new(&format!("fat-write-{width}"));
        let to = bed.text("image");
        run("mkfs.fat", &["-C", "-F", width, "-s", sectors, &to, size]);
        let driver = open(&bed.path("image"), false);
        let content = noise(7, 333_333);
        let directory = create(&driver, ROOT, "A new Directory", &NewNode::Directory { mode: 0o755 }).unwrap();
        let file = create(&driver, directory, "ä file.data", &NewNode::Regular { mode: 0o644 }).unwrap();
        let open_file = who(|who| driver.open(who, file, OFlags::RDWR)).unwrap();
        for (number, piece) in content.chunks(10_000).enumerate() {
            open_file.write_at(number as u64 * 10_000, piece).unwrap();
        }
        drop(open_file);
        driver.unmount().unwrap();
        check(&bed.path("image"));
        let out = bed.text("out");
        run("env", &["LC_ALL=C.UTF-8", "mcopy", "-i", &to, "::A new Directory/ä file.data", &out]);
        assert!(std::fs::read(out).unwrap() == content);
    }
}

#[test]
fn random_changes_are_those_of_a_model() {
    for (width, size, sectors) in WIDTHS {
        let bed = Bed::new(&format!("fat-stress-{width}"));
        run("mkfs.fat", &["-C", "-F", width, "-s", sectors, &bed.text("image"), size]);
        let mut model: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        let mut state = 99u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        for _ in 0..3 {
            let driver = open(&bed.path("image"), false);
            for _ in 0..250 {
                let path = format!("A file whose name is long {}", random(15));
                let node = find(&driver, &path);
                assert_eq!(node.is_ok(), model.contains_key(&path));
                match (node, random(6)) {
                    (Err(_), _) => {
                        create(&driver, ROOT, &path, &NewNode::Regular { mode: 0o644 }).unwrap();
                        model.insert(path, Vec::new());
                    }
                    (Ok(node), 0..=2) => {
                        let file = who(|who| driver.open(who, node, OFlags::RDWR)).unwrap();
                        let (at, count) =
                            (usize::try_from(random(60_000)).unwrap(), usize::try_from(random(9_000)).unwrap());
                        let bytes = noise(random(1_000), count);
                        file.write_at(at as u64, &bytes).unwrap();
                        let content = model.get_mut(&path).unwrap();
                        if !bytes.is_empty() {
                            content.resize(content.len().max(at + count), 0);
                            content[at..at + count].copy_from_slice(&bytes);
                        } else if at > content.len() {
                            content.resize(at, 0);
                        }
                    }
                    (Ok(node), 3) => {
                        let size = random(50_000);
                        let change = SetAttr { size: Some(size), ..SetAttr::default() };
                        who(|who| driver.set_attr(who, node, &change)).unwrap();
                        model.get_mut(&path).unwrap().resize(usize::try_from(size).unwrap(), 0);
                    }
                    (Ok(_), 4) => {
                        let new = format!("A file whose name is long {}", random(15));
                        let flags = RenameFlags::empty();
                        who(|who| driver.rename(who, ROOT, &name(&path), ROOT, &name(&new), flags)).unwrap();
                        let content = model.remove(&path).unwrap();
                        model.insert(new, content);
                    }
                    (Ok(_), _) => {
                        who(|who| driver.remove(who, ROOT, &name(&path), RemoveKind::File)).unwrap();
                        model.remove(&path);
                    }
                }
            }
            let mut tree = driver_tree(&driver);
            tree.remove(&b""[..]);
            assert_eq!(tree.keys().collect::<Vec<_>>(), model.keys().map(|path| path.as_bytes()).collect::<Vec<_>>());
            for (path, content) in &model {
                assert!(&tree[path.as_bytes()].content.0 == content, "{path}");
            }
            driver.unmount().unwrap();
            check(&bed.path("image"));
        }
    }
}

#[test]
fn directories_come_move_and_go() {
    let bed = Bed::new("fat-directories");
    run("mkfs.fat", &["-C", "-F", "16", "-s", "1", &bed.text("image"), "20480"]);
    let driver = open(&bed.path("image"), false);
    let mode = NewNode::Directory { mode: 0o755 };
    let (one, two) = (create(&driver, ROOT, "one", &mode).unwrap(), create(&driver, ROOT, "two", &mode).unwrap());
    for number in 0..60 {
        create(&driver, one, &format!("a rather long name {number}"), &NewNode::Regular { mode: 0o644 }).unwrap();
    }
    assert_eq!(create(&driver, one, "A RATHER long name 7", &mode), Err(Errno::EXIST));
    let go = |from: NodeId, old: &str, to: NodeId, new: &str, flags: RenameFlags| {
        who(|who| driver.rename(who, from, &name(old), to, &name(new), flags))
    };
    go(ROOT, "one", two, "moved", RenameFlags::empty()).unwrap();
    assert_eq!(find(&driver, "two/moved/a rather long name 59").err(), None);
    go(two, "moved", two, "MOVED", RenameFlags::empty()).unwrap();
    assert_eq!(who(|who| driver.read_dir(who, two)).unwrap()[0].name[..], b"MOVED"[..]);
    assert_eq!(who(|who| driver.remove(who, two, &name("moved"), RemoveKind::Directory)), Err(Errno::NOTEMPTY));
    assert_eq!(who(|who| driver.remove(who, two, &name("moved"), RemoveKind::File)), Err(Errno::ISDIR));
    create(&driver, two, "file", &NewNode::Regular { mode: 0o644 }).unwrap();
    assert_eq!(go(two, "file", two, "moved", RenameFlags::empty()), Err(Errno::ISDIR));
    assert_eq!(go(two, "moved", two, "file", RenameFlags::empty()), Err(Errno::NOTDIR));
    assert_eq!(go(two, "file", two, "moved", RenameFlags::NOREPLACE), Err(Errno::EXIST));
    assert_eq!(create(&driver, two, "link", &NewNode::Symlink { target: b"x" }), Err(Errno::PERM));
    assert_eq!(create(&driver, two, "a?b", &mode), Err(Errno::INVAL));
    driver.unmount().unwrap();
    check(&bed.path("image"));
}

#[test]
fn a_full_image_takes_what_fits() {
    let bed = Bed::new("fat-full");
    run("mkfs.fat", &["-C", "-F", "12", &bed.text("image"), "1440"]);
    let driver = open(&bed.path("image"), false);
    let node = create(&driver, ROOT, "big", &NewNode::Regular { mode: 0o644 }).unwrap();
    let file = who(|who| driver.open(who, node, OFlags::RDWR)).unwrap();
    let content = noise(1, 1_000_000);
    file.write_at(0, &content).unwrap();
    assert_eq!(file.write_at(1_000_000, &content), Err(Errno::NOSPC));
    assert!(read_whole(&*file, 2_000_000, 4_096).unwrap() == content);
    let free = who(|who| driver.statfs(who)).unwrap().blocks_free;
    assert!(free > 100, "{free} clusters are free");
    drop(file);
    driver.unmount().unwrap();
    check(&bed.path("image"));
}

#[test]
fn permissions_are_those_that_fat_has() {
    let bed = Bed::new("fat-modes");
    run("mkfs.fat", &["-C", "-F", "16", &bed.text("image"), "20480"]);
    let driver = open(&bed.path("image"), false);
    let node = create(&driver, ROOT, "f", &NewNode::Regular { mode: 0o644 }).unwrap();
    let set = |change: SetAttr| who(|who| driver.set_attr(who, node, &change)).map(|told| told.stat.mode & 0o777);
    assert_eq!(set(SetAttr { mode: Some(0o555), ..SetAttr::default() }), Ok(0o555));
    assert_eq!(set(SetAttr { mode: Some(0o755), ..SetAttr::default() }), Ok(0o755));
    assert_eq!(set(SetAttr { mode: Some(0o600), ..SetAttr::default() }), Err(Errno::PERM));
    assert_eq!(set(SetAttr { uid: Some(5), ..SetAttr::default() }), Ok(0o755));
    assert_eq!(set(SetAttr { uid: Some(0), ..SetAttr::default() }), Err(Errno::PERM));
}

#[test]
fn what_is_no_fat_is_refused() {
    let errno = |bytes: &[u8]| Fat::open(image_of(bytes), Owner::default()).err();
    assert_eq!(errno(b""), Some(Errno::INVAL));
    assert_eq!(errno(&[0; 65_536]), Some(Errno::INVAL));
}
