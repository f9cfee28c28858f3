//! Random sequences of what guests do, against the same done to a model.

mod bed;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use bed::{at, by, make, name, open, Memory};
use proptest::prelude::*;
use umvu_cached::{CachedFs, Limits};
use umvu_interface::{Creation, Filesystem, OFlags, RemoveKind, RenameFlags, SetAttr};

#[derive(Clone, Debug)]
enum Step {
    Make(u8),
    Open(u8, u8),
    Close(u8),
    Write(u8, u32, u32, u8),
    Cut(u8, u32),
    CutByName(u8, u32),
    Rename(u8, u8),
    Link(u8, u8),
    Remove(u8),
    Directory(u8),
    Sync,
    Look(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let name = 0..12u8;
    let slot = 0..4u8;
    let at = prop_oneof![0..300u32, 0..200_000u32];
    prop_oneof![
        name.clone().prop_map(Step::Make),
        (name.clone(), slot.clone()).prop_map(|(name, slot)| Step::Open(name, slot)),
        slot.clone().prop_map(Step::Close),
        (slot.clone(), at.clone(), at.clone(), any::<u8>()).prop_map(|(s, at, n, b)| Step::Write(s, at, n, b)),
        (slot, at.clone()).prop_map(|(slot, size)| Step::Cut(slot, size)),
        (name.clone(), at).prop_map(|(name, size)| Step::CutByName(name, size)),
        (name.clone(), name.clone()).prop_map(|(from, to)| Step::Rename(from, to)),
        (name.clone(), name.clone()).prop_map(|(from, to)| Step::Link(from, to)),
        name.clone().prop_map(Step::Remove),
        name.clone().prop_map(Step::Directory),
        Just(Step::Sync),
        name.prop_map(Step::Look),
    ]
}

/// The same tree, by paths; files by number, so that links are one.
#[derive(Default)]
struct Model {
    files: Vec<Vec<u8>>,
    names: BTreeMap<String, Option<usize>>,
    open: [Option<(OwnedFd, usize)>; 4],
}

/// Twelve names in three directories.
fn place(number: u8) -> (String, String) {
    let directory = ["", "d0", "d1"][usize::from(number / 4)];
    (directory.to_owned(), format!("n{}", number % 4))
}

fn path(number: u8) -> String {
    let (directory, name) = place(number);
    if directory.is_empty() {
        name
    } else {
        format!("{directory}/{name}")
    }
}

impl Model {
    fn file(&self, number: u8) -> Option<usize> {
        self.names.get(&path(number)).copied().flatten()
    }

    fn apply(&mut self, fs: &Arc<CachedFs>, step: &Step) {
        let directory = |number| at(fs, &place(number).0).unwrap();
        let last = |number| name(&place(number).1);
        match *step {
            Step::Make(number) => {
                let made = make(fs, &place(number).0, &place(number).1);
                assert_eq!(made.is_ok(), !self.names.contains_key(&path(number)));
                if made.is_ok() {
                    self.files.push(Vec::new());
                    self.names.insert(path(number), Some(self.files.len() - 1));
                }
            }
            Step::Open(number, slot) => {
                let Some(file) = self.file(number) else { return };
                let fd = open(fs, &path(number), OFlags::RDWR).unwrap();
                assert!(bed::read(&fd) == self.files[file]);
                self.open[usize::from(slot)] = Some((fd, file));
            }
            Step::Close(slot) => self.open[usize::from(slot)] = None,
            Step::Write(slot, start, length, byte) => {
                let Some((fd, file)) = &self.open[usize::from(slot)] else { return };
                let (start, length) = (start as usize, length as usize);
                let bytes = vec![byte; length];
                let mut done = 0;
                while done < length {
                    done += rustix::io::pwrite(fd, &bytes[done..], (start + done) as u64).unwrap();
                }
                let model = &mut self.files[*file];
                if length > 0 {
                    model.resize(model.len().max(start + length), 0);
                    model[start..][..length].fill(byte);
                }
            }
            Step::Cut(slot, size) => {
                let Some((fd, file)) = &self.open[usize::from(slot)] else { return };
                rustix::fs::ftruncate(fd, size.into()).unwrap();
                self.files[*file].resize(size as usize, 0);
            }
            Step::CutByName(number, size) => {
                let Some(file) = self.file(number) else { return };
                let change = SetAttr { size: Some(size.into()), ..SetAttr::default() };
                by(|caller| at(fs, &path(number)).unwrap().set_attr(caller, &change)).unwrap();
                self.files[file].resize(size as usize, 0);
            }
            Step::Rename(from, to) => {
                let Some(moved) = self.names.get(&path(from)).copied() else { return };
                let replaced = self.names.get(&path(to)).copied();
                // What the view judges before it asks.
                if replaced.is_some_and(|other| other.is_some() != moved.is_some()) || from == to {
                    return;
                }
                let result = by(|caller| {
                    directory(from).rename(caller, &last(from), &directory(to), &last(to), RenameFlags::empty())
                });
                result.unwrap();
                if moved.is_none() || replaced.flatten() != moved {
                    self.names.remove(&path(from));
                    self.names.insert(path(to), moved);
                }
            }
            Step::Link(from, to) => {
                let Some(file) = self.file(from) else { return };
                let target = at(fs, &path(from)).unwrap();
                let linked = by(|caller| directory(to).link(caller, &last(to), &target));
                assert_eq!(linked.is_ok(), !self.names.contains_key(&path(to)));
                if linked.is_ok() {
                    self.names.insert(path(to), Some(file));
                }
            }
            Step::Remove(number) => {
                let Some(known) = self.names.remove(&path(number)) else { return };
                let kind = if known.is_some() { RemoveKind::File } else { RemoveKind::Directory };
                by(|caller| directory(number).remove(caller, &last(number), kind)).unwrap();
            }
            Step::Directory(number) => {
                let what = Creation::Directory { mode: 0o755 };
                let made = by(|caller| directory(number).create(caller, &last(number), &what));
                assert_eq!(made.is_ok(), !self.names.contains_key(&path(number)));
                if made.is_ok() {
                    self.names.insert(path(number), None);
                }
            }
            Step::Sync => fs.sync().unwrap(),
            Step::Look(number) => match (self.names.get(&path(number)), at(fs, &path(number))) {
                (None, found) => assert!(found.is_err()),
                (Some(known), found) => {
                    let found = found.unwrap();
                    assert_eq!(found.path().unwrap(), path(number).into_bytes());
                    let stat = found.stat().unwrap();
                    if let Some(file) = known {
                        assert_eq!(stat.size, self.files[*file].len() as u64);
                        let links = self.names.values().filter(|other| **other == Some(*file)).count();
                        assert_eq!(stat.nlink as usize, links);
                    }
                }
            },
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_guests_did_is_what_the_driver_has(
        steps in proptest::collection::vec(step(), 1..80),
        is_remote in any::<bool>(),
        all in prop_oneof![Just(1u64 << 30), Just(100_000)],
        in_memory in prop_oneof![Just(1u64 << 30), Just(100_000), Just(0)],
    ) {
        let memory = Memory::new();
        if is_remote {
            memory.lock().valid = Some(Duration::ZERO);
        }
        let fs = memory.mount_with(|shown| shown.limits = Limits { all, memory: in_memory });
        for directory in ["d0", "d1"] {
            by(|caller| fs.root().create(caller, &name(directory), &Creation::Directory { mode: 0o755 })).unwrap();
        }
        let mut model = Model::default();
        for step in &steps {
            model.apply(&fs, step);
        }
        for number in 0..12 {
            model.apply(&fs, &Step::Look(number));
            if let Some(file) = model.file(number) {
                prop_assert!(bed::content(&fs, &path(number)).unwrap() == model.files[file]);
            }
        }
        fs.sync().unwrap();
        for (path, file) in &model.names {
            if let Some(file) = file {
                prop_assert!(memory.content(path).unwrap() == model.files[*file], "{} differs", path);
            }
        }
        model.open = Default::default();
        let ending = fs.ending().unwrap();
        drop(fs);
        prop_assert_eq!(ending.wait(Duration::from_secs(60)), Some(Ok(())));
        prop_assert_eq!(memory.lookups(), 0);
        let files: BTreeSet<usize> = model.names.values().copied().flatten().collect();
        let directories = model.names.values().filter(|file| file.is_none()).count();
        prop_assert_eq!(memory.lock().objects.len(), 3 + directories + files.len());
    }
}
