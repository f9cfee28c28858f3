//! What is left after a writer was killed in the middle of its writes.

mod layer;

use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use layer::{same, Layer, Object};
use umvu_ownership::{Key, Medium, Store};

/// Says what the writer works on.
const LAYER: &str = "UMVU_TEST_LAYER";

fn key(object: &Object, number: u64) -> Key {
    Key { ino: number, ..object.key }
}

/// Sets one record after the other and says so of each, until it is killed.
#[test]
#[ignore = "the writer that a_killed_writer_loses_nothing kills"]
fn writer() {
    let Some(top) = std::env::var_os(LAYER) else { panic!("{LAYER} is not set") };
    let root = Object::at(&std::path::Path::new(&top).join("layer"));
    let beside = std::path::Path::new(&top).join("beside");
    let store = Store::open_on(root.fd(), &beside, Medium::Database).unwrap();
    let mut out = std::io::stdout().lock();
    for number in 0u64.. {
        let uid = u32::try_from(number).unwrap();
        root_like(&store, &root, number, uid);
        writeln!(out, "set {number}").unwrap();
        if number % 3 == 2 {
            store.remove(root.fd(), &key(&root, number - 1), root.mode).unwrap();
            writeln!(out, "removed {}", number - 1).unwrap();
        }
    }
}

fn root_like(store: &Store, root: &Object, number: u64, uid: u32) {
    store.set(root.fd(), &key(root, number), root.mode, &same(uid, 1, 0o755)).unwrap();
}

#[test]
fn a_killed_writer_loses_nothing() {
    // Around and far beyond the points at which the journal goes into the database.
    for lines in [1, 2, 700, 4094, 4097, 5000, 8190, 8193, 30_000] {
        let layer = Layer::new();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writer", "--ignored", "--nocapture", "--test-threads=1"])
            .env(LAYER, layer.path().parent().unwrap())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        let (mut set, mut removed) = (0, None);
        let mut seen = 0;
        let mut note = |line: &str| {
            // The test harness writes the name of the test in front of the first line.
            if let Some((_, number)) = line.rsplit_once("set ") {
                set = number.parse::<u64>().unwrap();
            } else if let Some(number) = line.strip_prefix("removed ") {
                removed = Some(number.parse::<u64>().unwrap());
            }
        };
        while seen < lines {
            let line = said.next().expect("the writer ended").unwrap();
            if line.contains("set ") || line.contains("removed ") {
                note(&line);
                seen += 1;
            }
        }
        child.kill().unwrap();
        // What it said before it died counts too.
        let mut rest: Vec<String> = said.map_while(Result::ok).collect();
        rest.pop();
        rest.iter().for_each(|line| note(line));
        child.wait().unwrap();

        let root = Object::at(&layer.path());
        for round in 0..2 {
            let store = Store::open_on(root.fd.as_fd(), &layer.beside(), Medium::Database).unwrap();
            for number in 0..=set {
                let shown = store.get(root.fd(), &key(&root, number), root.mode).unwrap();
                let uid = u32::try_from(number).unwrap();
                if number % 3 != 1 {
                    assert_eq!(shown, Some(same(uid, 1, 0o755)), "{number} of {set}, round {round}");
                } else if removed.is_some_and(|removed| number <= removed) {
                    assert_eq!(shown, None, "{number} of {set}, round {round}");
                }
            }
            // The survivor can be written.
            store.set(root.fd(), &key(&root, 1 << 40), root.mode, &same(1, 1, 0)).unwrap();
        }
    }
}

#[test]
fn a_torn_change_is_cut_off_and_later_ones_count() {
    let layer = Layer::new();
    let root = Object::at(&layer.path());
    let open = || Store::open_on(root.fd.as_fd(), &layer.beside(), Medium::Database).unwrap();
    let shown = |store: &Store, number| store.get(root.fd(), &key(&root, number), root.mode).unwrap();
    let store = open();
    (1..=6).for_each(|number| root_like(&store, &root, number, 1));
    drop(store);
    let path = layer.beside().join("ownership.log");
    let mut journal = std::fs::read(&path).unwrap();
    // A power cut may lose one block and keep a later one.
    journal[2 * 64..3 * 64].fill(0);
    std::fs::write(&path, &journal).unwrap();
    let store = open();
    assert_eq!([1, 2, 3, 4, 6].map(|number| shown(&store, number).is_some()), [true, true, false, false, false]);
    root_like(&store, &root, 7, 1);
    drop(store);
    let store = open();
    assert_eq!(
        [1, 2, 3, 4, 6, 7].map(|number| shown(&store, number).is_some()),
        [true, true, false, false, false, true]
    );
}

#[test]
fn sync_works_with_and_without_something_to_sync() {
    let layer = Layer::new();
    let root = Object::at(&layer.path());
    let store = layer.open();
    store.sync().unwrap();
    root_like(&store, &root, 1, 1);
    store.sync().unwrap();
    store.sync().unwrap();
    Store::in_memory().sync().unwrap();
}
