//! Saving and loading in fakeroot's form, and sweeping.

mod layer;

use std::fs;
use std::os::fd::AsFd;

use layer::{same, Layer};
use umvu_ownership::{FakeKind, Imported, Medium, Override, Store};

fn device() -> Override {
    Override { kind: FakeKind::CharDevice { major: 1, minor: 3 }, ..same(0, 6, 0o666) }
}

fn saved(store: &Store) -> String {
    let mut text = Vec::new();
    store.export(&mut text).unwrap();
    String::from_utf8(text).unwrap()
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

#[test]
fn lines_are_those_of_fakeroot() {
    let layer = Layer::new();
    layer.populate();
    let (file, link) = (layer.object("file"), layer.object("link"));
    fs::hard_link(layer.path().join("file"), layer.path().join("dir/second")).unwrap();
    let expected = |nlink| {
        let (dev, file, link) = (file.key.dev, file.key.ino, link.key.ino);
        [
            format!("dev={dev:x},ino={file},mode=20666,uid=0,gid=6,nlink={nlink},rdev=259"),
            format!("dev={dev:x},ino={link},mode=120777,uid=7,gid=8,nlink=1,rdev=0"),
        ]
    };
    for (store, nlink) in [(layer.open(), 2), (Store::in_memory(), 1)] {
        file.set(&store, &device());
        link.set(&store, &same(7, 8, 0o777));
        let text = saved(&store);
        let expected = expected(nlink);
        assert_eq!(sorted(&text), sorted(&expected.join("\n")));
    }
}

#[test]
fn what_one_store_saves_another_shows() {
    let layer = Layer::new();
    let names = layer.populate();
    let set_all = |store: &Store| {
        for (uid, name) in (1..).zip(names) {
            layer.object(name).set(store, &same(uid, 50, 0o640));
        }
        layer.object("file").set(store, &device());
    };
    let check = |store: &Store| {
        for (uid, name) in (1..).zip(names).skip(1) {
            assert_eq!(layer.object(name).shown(store), Some(same(uid, 50, 0o640)), "{name}");
        }
        assert_eq!(layer.object("file").shown(store), Some(device()));
    };
    let memory = Store::in_memory();
    set_all(&memory);
    let text = saved(&memory);
    assert_eq!(text.lines().count(), 5);

    let second = Store::in_memory();
    assert_eq!(second.import(&mut text.as_bytes()).unwrap(), Imported { applied: 5, unmatched: 0 });
    assert_eq!(saved(&second), text, "also before the objects are looked at");
    check(&second);
    assert_eq!(saved(&second), text);

    for medium in [Medium::Xattr, Medium::Database] {
        let beside = layer.beside().with_extension(format!("{medium:?}"));
        let store = Store::open_on(layer.root().as_fd(), &beside, medium).unwrap();
        assert_eq!(store.import(&mut text.as_bytes()).unwrap(), Imported { applied: 5, unmatched: 0 });
        check(&store);
        // A store in memory does not know that a directory has two links.
        let walked = saved(&store).replace("nlink=2", "nlink=1");
        assert_eq!(sorted(&walked), sorted(&text));
        for name in names {
            let object = layer.object(name);
            store.clear(object.fd(), &object.key, object.mode).unwrap();
        }
    }
}

#[test]
fn lines_that_name_no_object_are_counted() {
    let layer = Layer::new();
    layer.populate();
    let (file, dir) = (layer.object("file").key, layer.object("dir").key);
    let dev = file.dev;
    let lines = [
        format!("dev={dev:x},ino={},mode=100600,uid=1,gid=1,nlink=1,rdev=0", file.ino),
        format!("dev={dev:x},ino={},mode=100600,uid=1,gid=1,nlink=1,rdev=0", dir.ino),
        format!("dev={:x},ino={},mode=100600,uid=1,gid=1,nlink=1,rdev=0", dev + 1, file.ino),
    ];
    let store = layer.open();
    let imported = store.import(&mut lines.join("\n").as_bytes()).unwrap();
    assert_eq!(imported, Imported { applied: 1, unmatched: 2 });
}

#[test]
fn a_malformed_line_changes_nothing() {
    let layer = Layer::new();
    layer.populate();
    let file = layer.object("file");
    let good = format!("dev={:x},ino={},mode=100600,uid=1,gid=1,nlink=1,rdev=0\n", file.key.dev, file.key.ino);
    for bad in ["nonsense", "\u{1F980}", &"x".repeat(1000), &good.trim().repeat(2)] {
        for store in [layer.open(), Store::in_memory()] {
            let text = format!("{good}\n{bad}");
            let error = store.import(&mut text.as_bytes()).unwrap_err();
            assert!(error.to_string().starts_with("line 3: not a line of saved owners: "), "{error}");
            assert_eq!(file.shown(&store), None);
        }
    }
    let error = Store::in_memory().import(&mut &b"\xff\n"[..]).unwrap_err();
    assert_eq!(error.to_string(), "line 1: not a line of saved owners: not text");
}

#[test]
fn sweeping_deletes_the_records_of_vanished_objects_alone() {
    let layer = Layer::new();
    layer.populate();
    let store = layer.open();
    let (link, fifo) = (layer.object("link"), layer.object("fifo"));
    link.set(&store, &same(1, 1, 0o777));
    fifo.set(&store, &same(2, 2, 0o600));
    fs::remove_file(layer.path().join("link")).unwrap();
    assert_eq!(store.sweep().unwrap(), 1);
    assert_eq!(store.sweep().unwrap(), 0);
    assert_eq!((link.shown(&store), fifo.shown(&store)), (None, Some(same(2, 2, 0o600))));
    drop(store);
    let later = layer.open();
    assert_eq!((link.shown(&later), fifo.shown(&later)), (None, Some(same(2, 2, 0o600))));
}
