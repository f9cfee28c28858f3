//! What guests write, and when the driver has it.

mod bed;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bed::{at, by, content, make, name, open, Memory};
use umvu_driver::ROOT;
use umvu_interface::{Errno, Filesystem, OFlags, RemoveKind, RenameFlags, SetAttr, SetTime, Timestamp};

fn write(fd: &OwnedFd, at: u64, bytes: &[u8]) {
    let mut done = 0;
    while done < bytes.len() {
        done += rustix::io::pwrite(fd, &bytes[done..], at + done as u64).unwrap();
    }
}

/// Waits for what comes without being asked for.
fn until(what: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !what() {
        assert!(Instant::now() < deadline, "it never came");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_file_is_written_back_when_it_is_closed() {
    let memory = Memory::new();
    let fs = memory.mount();
    let fd = make(&fs, "", "f").unwrap();
    write(&fd, 0, b"text");
    assert_eq!(fs.stat_open(fd.as_fd()).unwrap().size, 4);
    assert_eq!(at(&fs, "f").unwrap().stat().unwrap().size, 4);
    assert_eq!(memory.content("f").unwrap(), b"");
    let mtime = at(&fs, "f").unwrap().stat().unwrap().mtime;
    drop(fd);
    until(|| memory.content("f").unwrap() == b"text");
    until(|| memory.lock().objects.values().any(|object| object.mtime == mtime));
    assert_eq!(content(&fs, "f").unwrap(), b"text");
    assert_eq!(at(&fs, "f").unwrap().stat().unwrap().mtime, mtime);
}

#[test]
fn an_open_file_is_written_back_by_fsync() {
    let memory = Memory::new();
    memory.put(ROOT, b"f", b"old text");
    let fs = memory.mount();
    let fd = open(&fs, "f", OFlags::RDWR).unwrap();
    write(&fd, 0, b"new");
    fs.sync_object(&*at(&fs, "f").unwrap()).unwrap();
    assert_eq!(memory.content("f").unwrap(), b"new text");
    assert_eq!(memory.syncs.load(Ordering::Relaxed), 1);
    write(&fd, 4, b"words");
    fs.sync().unwrap();
    assert_eq!(memory.content("f").unwrap(), b"new words");
}

#[test]
fn only_what_has_changed_is_written() {
    let memory = Memory::new();
    let bytes: Vec<u8> = (0..4_000_000u32).map(|at| (at / 7).to_le_bytes()[0]).collect();
    memory.put(ROOT, b"f", &bytes);
    let fs = memory.mount();
    let fd = open(&fs, "f", OFlags::RDWR).unwrap();
    fs.sync().unwrap();
    assert_eq!(memory.written.load(Ordering::Relaxed), 0);
    write(&fd, 1_000_000, b"x");
    write(&fd, 3_999_999, b"yz");
    fs.sync().unwrap();
    assert!(memory.written.load(Ordering::Relaxed) <= 2 << 16);
    let now = memory.content("f").unwrap();
    assert_eq!((now.len(), now[1_000_000], &now[3_999_999..]), (4_000_001, b'x', &b"yz"[..]));
    let before = memory.written.load(Ordering::Relaxed);
    fs.sync().unwrap();
    assert_eq!(memory.written.load(Ordering::Relaxed), before);
}

#[test]
fn a_file_may_shrink_and_grow_and_have_holes() {
    let memory = Memory::new();
    memory.put(ROOT, b"f", &[9; 500_000]);
    let fs = memory.mount();
    let fd = open(&fs, "f", OFlags::RDWR).unwrap();
    let mut model = vec![9; 500_000];
    let mut check = |step: &str, change: &dyn Fn(&mut Vec<u8>)| {
        change(&mut model);
        fs.sync().unwrap();
        assert!(memory.content("f").unwrap() == model, "{step}");
    };
    rustix::fs::ftruncate(&fd, 100_000).unwrap();
    check("cut", &|model| model.truncate(100_000));
    rustix::fs::ftruncate(&fd, 300_000).unwrap();
    check("grown", &|model| model.resize(300_000, 0));
    write(&fd, 299_999, b"x");
    check("written at the end", &|model| model[299_999] = b'x');
    rustix::fs::ftruncate(&fd, 10).unwrap();
    rustix::fs::ftruncate(&fd, 200_000).unwrap();
    check("cut and grown at once", &|model| {
        model.truncate(10);
        model.resize(200_000, 0);
    });
    write(&fd, 70_000, &[3; 100_000]);
    check("written in the middle", &|model| model[70_000..170_000].fill(3));
    use rustix::fs::FallocateFlags as F;
    rustix::fs::fallocate(&fd, F::PUNCH_HOLE | F::KEEP_SIZE, 65_536, 65_536).unwrap();
    check("punched", &|model| model[65_536..131_072].fill(0));
    write(&fd, 3_000_000, b"far");
    check("far away", &|model| {
        model.resize(3_000_000, 0);
        model.extend_from_slice(b"far");
    });
    let before = memory.written.load(Ordering::Relaxed);
    rustix::fs::ftruncate(&fd, 1 << 40).unwrap();
    rustix::fs::ftruncate(&fd, 3_000_003).unwrap();
    check("and back", &|_| {});
    assert!(memory.written.load(Ordering::Relaxed) - before <= 1 << 16);
}

#[test]
fn opening_with_truncation_empties_at_once() {
    let memory = Memory::new();
    memory.put(ROOT, b"f", &[1; 100_000]);
    let fs = memory.mount();
    let reads = open(&fs, "f", OFlags::RDONLY).unwrap();
    let fd = open(&fs, "f", OFlags::WRONLY | OFlags::TRUNC).unwrap();
    assert_eq!(memory.content("f").unwrap(), b"");
    assert_eq!(bed::read(&reads), b"");
    write(&fd, 0, b"ab");
    drop(fd);
    until(|| memory.content("f").unwrap() == b"ab");
    drop(open(&fs, "f", OFlags::RDONLY | OFlags::TRUNC).unwrap());
    assert_eq!((memory.content("f").unwrap(), content(&fs, "f").unwrap()), (Vec::new(), Vec::new()));
    let fd = open(&fs, "f", OFlags::WRONLY | OFlags::APPEND).unwrap();
    rustix::io::write(&fd, b"one").unwrap();
    rustix::io::write(&fd, b"two").unwrap();
    fs.sync().unwrap();
    assert_eq!(memory.content("f").unwrap(), b"onetwo");
}

#[test]
fn truncate_by_name_reaches_descriptors_and_driver() {
    let memory = Memory::new();
    memory.put(ROOT, b"f", &[1; 100]);
    let fs = memory.mount();
    let set = |size| {
        let change = SetAttr { size: Some(size), ..SetAttr::default() };
        by(|caller| at(&fs, "f").unwrap().set_attr(caller, &change)).unwrap();
    };
    set(90);
    let reads = open(&fs, "f", OFlags::RDONLY).unwrap();
    set(80);
    assert_eq!((bed::read(&reads).len(), memory.content("f").unwrap().len()), (80, 80));
    let fd = open(&fs, "f", OFlags::RDWR).unwrap();
    write(&fd, 0, &[2; 85]);
    set(70);
    assert_eq!((bed::read(&reads), at(&fs, "f").unwrap().stat().unwrap().size), (vec![2; 70], 70));
    fs.sync().unwrap();
    assert_eq!(memory.content("f").unwrap(), [2; 70]);
}

#[test]
fn times_that_are_set_stay() {
    let memory = Memory::new();
    let fs = memory.mount();
    let fd = make(&fs, "", "f").unwrap();
    write(&fd, 0, b"x");
    let time = Timestamp { seconds: 12345, nanoseconds: 678 };
    let change = SetAttr { mtime: SetTime::At(time), ..SetAttr::default() };
    by(|caller| at(&fs, "f").unwrap().set_attr(caller, &change)).unwrap();
    assert_eq!(fs.stat_open(fd.as_fd()).unwrap().mtime, time);
    drop(fd);
    until(|| memory.content("f").unwrap() == b"x");
    fs.sync().unwrap();
    assert_eq!(at(&fs, "f").unwrap().stat().unwrap().mtime, time);
    assert!(memory.lock().objects.values().any(|object| object.mtime == time));
}

#[test]
fn a_removed_file_is_used_on_and_then_gone() {
    let memory = Memory::new();
    let fs = memory.mount();
    let fd = make(&fs, "", "f").unwrap();
    let reads = open(&fs, "f", OFlags::RDONLY).unwrap();
    by(|caller| fs.root().remove(caller, &name("f"), RemoveKind::File)).unwrap();
    write(&fd, 0, b"still there");
    let stat = fs.stat_open(fd.as_fd()).unwrap();
    assert_eq!((stat.size, stat.nlink), (11, 0));
    drop(fd);
    assert_eq!(bed::read(&reads), b"still there");
    assert_eq!(fs.stat_open(reads.as_fd()).unwrap().size, 11);
    drop(make(&fs, "", "f").unwrap());
    assert_eq!(memory.lock().objects.len(), 3);
    drop(reads);
    until(|| memory.lock().objects.len() == 2);
    assert_eq!(content(&fs, "f").unwrap(), b"");
}

#[test]
fn a_file_that_replaces_another_has_its_content() {
    let memory = Memory::new();
    memory.put(ROOT, b"f", b"old");
    let fs = memory.mount();
    let fd = make(&fs, "", "new").unwrap();
    write(&fd, 0, b"new");
    at(&fs, "f").unwrap();
    let root = fs.root();
    by(|caller| root.rename(caller, &name("new"), &root, &name("f"), RenameFlags::empty())).unwrap();
    assert_eq!(memory.content("f").unwrap(), b"new");
}

#[test]
fn a_full_storage_is_told_at_fsync_and_nothing_is_lost_that_fits_later() {
    let memory = Memory::new();
    memory.lock().room = Some(100);
    let fs = memory.mount();
    let fd = make(&fs, "", "f").unwrap();
    write(&fd, 0, &[1; 200]);
    assert_eq!(fs.sync_object(&*at(&fs, "f").unwrap()), Err(Errno::NOSPC));
    assert_eq!(fs.sync(), Err(Errno::NOSPC));
    drop(fd);
    assert_eq!(content(&fs, "f").unwrap(), [1; 200]);
    memory.lock().room = None;
    fs.sync().unwrap();
    assert_eq!(memory.content("f").unwrap(), [1; 200]);
}

#[test]
fn what_cannot_be_written_at_the_end_is_told() {
    let memory = Memory::new();
    memory.lock().room = Some(100);
    let fs = memory.mount();
    let fd = make(&fs, "", "f").unwrap();
    write(&fd, 0, &[1; 200]);
    let ending = fs.ending().unwrap();
    drop((fd, fs));
    assert_eq!(ending.wait(Duration::from_secs(60)), Some(Err(Errno::NOSPC)));
}

#[test]
fn everything_is_written_at_the_end() {
    let memory = Memory::new();
    let fs = memory.mount();
    let fd = make(&fs, "", "f").unwrap();
    write(&fd, 0, b"text");
    let ending = fs.ending().unwrap();
    drop(fs);
    assert_eq!(ending.wait(Duration::from_secs(60)), Some(Ok(())));
    assert_eq!(memory.content("f").unwrap(), b"text");
    assert_eq!(memory.lookups(), 0);
}
