//! Large files, which are filled as they are read.

mod bed;

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;

use bed::{at, by, Memory};
use proptest::prelude::*;
use umvu_cached::CachedFs;
use umvu_driver::ROOT;
use umvu_interface::{Attendant, Filesystem, OFlags, Opened, SetAttr};

const MIB: usize = 1 << 20;

fn bytes(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at / 1000 + at / MIB * 7 + 1).to_le_bytes()[0]).collect()
}

fn open(fs: &Arc<CachedFs>, path: &str, flags: OFlags) -> (OwnedFd, Option<Arc<dyn Attendant>>) {
    match by(|caller| at(fs, path).unwrap().open(caller, flags)).unwrap() {
        Opened::Attended(fd, attendant) => (fd, Some(attendant)),
        opened => (opened.into_file().unwrap(), None),
    }
}

fn read(fd: &OwnedFd, start: usize, end: usize) -> Vec<u8> {
    let mut buffer = vec![0; end - start];
    let mut at = 0;
    while at < buffer.len() {
        match rustix::io::pread(fd, &mut buffer[at..], (start + at) as u64).unwrap() {
            0 => break,
            more => at += more,
        }
    }
    buffer.truncate(at);
    buffer
}

#[test]
fn the_first_block_of_a_large_file_does_not_copy_it() {
    let memory = Memory::new();
    let content = bytes(64 * MIB);
    memory.put(ROOT, b"f", &content);
    let fs = memory.mount();
    let (fd, attendant) = open(&fs, "f", OFlags::RDONLY);
    let attendant = attendant.unwrap();
    assert_eq!(memory.reads.load(Ordering::Relaxed), 0);
    attendant.fill(0, 4096).unwrap();
    assert!(read(&fd, 0, 4096) == content[..4096]);
    assert!(rustix::fs::fstat(&fd).unwrap().st_blocks < 9000);
    assert_eq!(at(&fs, "f").unwrap().stat().unwrap().size, content.len() as u64);
    attendant.fill(40 * MIB as u64 - 10, 40 * MIB as u64 + 10).unwrap();
    assert!(read(&fd, 40 * MIB - 10, 40 * MIB + 10) == content[40 * MIB - 10..40 * MIB + 10]);
    assert!(!attendant.is_done());
    for start in (0..64).map(|at| at * MIB as u64) {
        attendant.fill(start, start + 1).unwrap();
    }
    assert!(attendant.is_done());
    assert!(read(&fd, 0, content.len()) == content);
    let (fd, none) = open(&fs, "f", OFlags::RDONLY);
    assert!(none.is_none());
    assert!(read(&fd, 0, content.len()) == content);
}

#[test]
fn who_executes_a_large_file_has_all_of_it() {
    let memory = Memory::new();
    let content = bytes(20 * MIB);
    memory.put(ROOT, b"f", &content);
    let fs = memory.mount();
    let inode = at(&fs, "f").unwrap();
    let path = umvu_interface::path_of_open(inode.host_fd().unwrap()).unwrap();
    assert!(std::fs::read(std::str::from_utf8(&path).unwrap()).unwrap() == content);
}

#[test]
fn what_cannot_be_brought_fails_and_is_asked_for_again() {
    let memory = Memory::new();
    memory.put(ROOT, b"f", &bytes(20 * MIB));
    let fs = memory.mount();
    let attendant = open(&fs, "f", OFlags::RDONLY).1.unwrap();
    memory.lock().fails = Some(umvu_interface::Errno::NOTCONN);
    assert_eq!(attendant.fill(0, 10), Err(umvu_interface::Errno::NOTCONN));
    memory.lock().fails = None;
    attendant.fill(0, u64::MAX).unwrap();
    assert!(attendant.is_done());
}

#[derive(Clone, Debug)]
enum Step {
    Write(usize, usize, u8),
    Read(usize, usize),
    Append(usize, u8),
    Cut(usize),
    CutByName(usize),
    Sync,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let place = 0..24 * MIB;
    let length = prop_oneof![1..10usize, 1..3 * MIB];
    prop_oneof![
        3 => (place.clone(), length.clone(), any::<u8>()).prop_map(|(at, n, byte)| Step::Write(at, n, byte)),
        3 => (place.clone(), length.clone()).prop_map(|(at, n)| Step::Read(at, n)),
        1 => (length, any::<u8>()).prop_map(|(n, byte)| Step::Append(n, byte)),
        1 => place.clone().prop_map(Step::Cut),
        1 => place.prop_map(Step::CutByName),
        2 => Just(Step::Sync),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_file_that_is_partly_there_is_written_and_read_as_any_other(steps in prop::collection::vec(step(), 1..14)) {
        let memory = Memory::new();
        let mut model = bytes(20 * MIB + 12345);
        memory.put(ROOT, b"f", &model);
        let fs = memory.mount();
        let mut file = open(&fs, "f", OFlags::RDWR);
        // As the hypervisor does before each call.
        let bring = |attendant: &Option<Arc<dyn Attendant>>, start: usize, end: usize| {
            if let Some(attendant) = attendant {
                attendant.fill(start as u64, end as u64).unwrap();
            }
        };
        for step in steps {
            match step {
                Step::Write(at, length, byte) => {
                    bring(&file.1, at, at + length);
                    let mut done = 0;
                    let bytes = vec![byte; length];
                    while done < length {
                        done += rustix::io::pwrite(&file.0, &bytes[done..], (at + done) as u64).unwrap();
                    }
                    model.resize(model.len().max(at + length), 0);
                    model[at..at + length].fill(byte);
                }
                Step::Append(length, byte) => {
                    let at = model.len();
                    let bytes = vec![byte; length];
                    let mut done = 0;
                    while done < length {
                        done += rustix::io::pwrite(&file.0, &bytes[done..], (at + done) as u64).unwrap();
                    }
                    model.resize(at + length, byte);
                }
                Step::Read(at, length) => {
                    bring(&file.1, at, at + length);
                    let end = (at + length).min(model.len());
                    prop_assert!(read(&file.0, at, at + length) == model[at.min(end)..end]);
                }
                Step::Cut(size) => {
                    bring(&file.1, 0, usize::MAX);
                    rustix::fs::ftruncate(&file.0, size as u64).unwrap();
                    model.resize(size, 0);
                }
                Step::CutByName(size) => {
                    let change = SetAttr { size: Some(size as u64), ..SetAttr::default() };
                    by(|caller| at(&fs, "f").unwrap().set_attr(caller, &change)).unwrap();
                    model.resize(size, 0);
                }
                Step::Sync => {
                    fs.sync().unwrap();
                    prop_assert!(memory.content("f").unwrap() == model);
                }
                Step::Reopen => {
                    drop(std::mem::replace(&mut file, open(&fs, "f", OFlags::RDONLY)));
                    fs.sync().unwrap();
                    file = open(&fs, "f", OFlags::RDWR);
                }
            }
        }
        bring(&file.1, 0, usize::MAX);
        prop_assert!(read(&file.0, 0, model.len() + 1) == model);
        drop(file);
        let ending = fs.ending().unwrap();
        drop(fs);
        prop_assert_eq!(ending.wait(Duration::from_secs(60)), Some(Ok(())));
        prop_assert!(memory.content("f").unwrap() == model);
    }
}
