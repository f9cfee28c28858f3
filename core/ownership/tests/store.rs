//! What a store shows, where it keeps it, and who may open it.

mod layer;

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;

use layer::{same, Layer, Object};
use rustix::io::Errno;
use umvu_ownership::{FakeKind, Key, Medium, OpenError, Override, Store};

#[test]
fn every_type_is_shown_again_by_a_later_session() {
    for medium in [Medium::Xattr, Medium::Database] {
        let layer = Layer::new();
        let names = layer.populate();
        let store = Store::open_on(layer.root().as_fd(), &layer.beside(), medium).unwrap();
        for (uid, name) in (100..).zip(names) {
            let object = layer.object(name);
            assert_eq!(object.shown(&store), None, "{name}");
            object.set(&store, &same(uid, uid + 1, 0o4751));
            assert_eq!(object.shown(&store), Some(same(uid, uid + 1, 0o4751)), "{name}");
        }
        drop(store);
        let later = Store::open_on(layer.root().as_fd(), &layer.beside(), medium).unwrap();
        let lower = layer.open_read_only();
        for (uid, name) in (100..).zip(names) {
            let object = layer.object(name);
            assert_eq!(object.shown(&later), Some(same(uid, uid + 1, 0o4751)), "{name}");
            assert_eq!(object.shown(&lower), Some(same(uid, uid + 1, 0o4751)), "{name}");
            assert_eq!(object.mark().is_some(), medium == Medium::Xattr && ["file", "dir"].contains(&name));
        }
    }
}

#[test]
fn marks_are_those_of_podman() {
    let layer = Layer::new();
    layer.populate();
    let store = layer.open();
    let (file, dir) = (layer.object("file"), layer.object("dir"));
    file.set(&store, &same(0, 33, 0o644));
    dir.set(&store, &same(5, 6, 0o1777));
    assert_eq!(file.mark().as_deref(), Some("0:33:0644:file"));
    assert_eq!(dir.mark().as_deref(), Some("5:6:1777:dir"));
    for (kind, name) in [
        (FakeKind::CharDevice { major: 1, minor: 3 }, "char-1-3"),
        (FakeKind::BlockDevice { major: 8, minor: 1 }, "block-8-1"),
        (FakeKind::Fifo, "pipe"),
        (FakeKind::Socket, "socket"),
    ] {
        let shown = Override { kind, ..same(0, 0, 0o666) };
        file.set(&store, &shown);
        assert_eq!(file.mark(), Some(format!("0:0:0666:{name}")));
        assert_eq!(file.shown(&store), Some(shown));
    }
}

#[test]
fn marks_of_others_are_read_and_bad_ones_are_eio() {
    let layer = Layer::new();
    layer.populate();
    let file = layer.object("file");
    let store = layer.open_read_only();
    file.put_mark("7:8:4755");
    assert_eq!(file.shown(&store), Some(same(7, 8, 0o4755)));
    for bad in ["", "7:8", "root:root:644", "0:0:644:bogus", &"9".repeat(200)] {
        file.put_mark(bad);
        assert_eq!(store.get(file.fd(), &file.key, file.mode), Err(Errno::IO), "{bad:?}");
    }
    let store = layer.open();
    file.set(&store, &same(1, 2, 0o600));
    assert_eq!(file.shown(&store), Some(same(1, 2, 0o600)));
}

#[test]
fn the_first_mark_marks_the_root_so_that_others_look_for_marks() {
    let layer = Layer::new();
    layer.populate();
    let (root, file) = (layer.object("."), layer.object("file"));
    let store = layer.open();
    assert!(store.is_empty_hint());
    assert_eq!(root.mark(), None);
    file.set(&store, &same(0, 0, 0o644));
    assert!(!store.is_empty_hint());
    let mark = root.mark().unwrap();
    assert!(mark.starts_with("0:0:0") && mark.ends_with(":dir-host"), "{mark}");
    assert_eq!(root.shown(&store), None, "the root shows what the host stores");
    root.set(&store, &same(3, 4, 0o755));
    file.set(&store, &same(0, 0, 0o600));
    assert_eq!(root.shown(&store), Some(same(3, 4, 0o755)));
    assert!(!layer.open_read_only().is_empty_hint());
    let below = Store::open_read_only(layer.object("dir").fd(), None).unwrap();
    assert!(!below.is_empty_hint(), "a part of a marked layer has marks too");
}

#[test]
fn a_layer_that_never_had_an_override_is_empty_and_untouched() {
    let layer = Layer::new();
    layer.populate();
    let lower = layer.open_read_only();
    assert!(lower.is_empty_hint());
    assert!(!layer.beside().exists());
    assert_eq!(layer.object("file").shown(&lower), None);
    let store = layer.open();
    assert_eq!(layer.object("link").shown(&store), None);
    let names: Vec<_> = fs::read_dir(layer.beside()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["lock"]);
}

#[test]
fn a_reused_inode_number_is_another_object() {
    let layer = Layer::new();
    layer.populate();
    let link = layer.object("link");
    for store in [layer.open(), Store::in_memory()] {
        link.set(&store, &same(1, 1, 0o777));
        for key in [
            Key { btime_ns: link.key.btime_ns.map(|btime| btime + 1), ..link.key },
            Key { btime_ns: None, ..link.key },
            Key { ino: link.key.ino + 1, ..link.key },
            Key { dev: link.key.dev + 1, ..link.key },
        ] {
            assert_eq!(store.get(link.fd(), &key, link.mode), Ok(None), "{key:?}");
        }
        let fifo_bits = layer.object("fifo").mode;
        assert_eq!(store.get(link.fd(), &link.key, fifo_bits), Ok(None));
        assert_eq!(link.shown(&store), Some(same(1, 1, 0o777)));
    }
}

#[test]
fn rename_and_link_carry_the_override_along() {
    let layer = Layer::new();
    layer.populate();
    let store = layer.open();
    for (name, uid) in [("file", 1), ("link", 2)] {
        layer.object(name).set(&store, &same(uid, 0, 0o600));
        let path = layer.path();
        fs::rename(path.join(name), path.join("dir/moved")).unwrap();
        fs::hard_link(path.join("dir/moved"), path.join("second")).unwrap();
        assert_eq!(layer.object("dir/moved").shown(&store), Some(same(uid, 0, 0o600)));
        assert_eq!(layer.object("second").shown(&store), Some(same(uid, 0, 0o600)));
        fs::remove_file(path.join("second")).unwrap();
    }
}

#[test]
fn an_unlinked_object_shows_its_owner_until_it_is_closed_and_no_later_session_knows_it() {
    let layer = Layer::new();
    layer.populate();
    let store = layer.open();
    let (link, file) = (layer.object("link"), layer.object("file"));
    for (object, name) in [(&link, "link"), (&file, "file")] {
        object.set(&store, &same(9, 9, 0o600));
        fs::remove_file(layer.path().join(name)).unwrap();
        store.remove(object.fd(), &object.key, object.mode).unwrap();
        assert_eq!(object.shown(&store), Some(same(9, 9, 0o600)), "{name}");
        object.set(&store, &same(8, 8, 0o600));
        assert_eq!(object.shown(&store), Some(same(8, 8, 0o600)), "{name}");
    }
    drop(store);
    assert_eq!(link.shown(&layer.open()), None);
}

#[test]
fn a_cleared_object_shows_what_the_host_stores() {
    let layer = Layer::new();
    let names = layer.populate();
    let store = layer.open();
    for name in names.into_iter().chain(["."]) {
        let object = layer.object(name);
        object.set(&store, &same(9, 9, 0o600));
        store.clear(object.fd(), &object.key, object.mode).unwrap();
        assert_eq!(object.shown(&store), None, "{name}");
    }
    layer.object("file").set(&store, &same(9, 9, 0o600));
    assert!(layer.object(".").mark().is_some(), "the root is marked again");
}

#[test]
fn an_object_that_refuses_the_mark_goes_to_the_database() {
    let layer = Layer::new();
    layer.populate();
    let file = layer.object("file");
    let store = layer.open();
    // ext4 has one block for attributes; a file system with room for more takes the mark.
    let fill = |name, len| umvu_sys::file::set_xattr(file.fd(), name, &vec![b'x'; len], 0);
    let filled = fill(c"user.filler", 3900).or_else(|_| fill(c"user.filler", 3700));
    let _ = fill(c"user.filler2", 60).and_then(|()| fill(c"user.filler3", 40));
    file.set(&store, &same(2, 2, 0o600));
    assert_eq!(file.shown(&store), Some(same(2, 2, 0o600)), "{filled:?}");
    for name in [c"user.filler", c"user.filler2", c"user.filler3"] {
        let _ = umvu_sys::file::remove_xattr(file.fd(), name);
    }
    // Root may write it nevertheless.
    let path = layer.path().join("file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    file.set(&store, &same(3, 3, 0o600));
    assert_eq!(file.shown(&store), Some(same(3, 3, 0o600)));
    // As soon as the object can carry a mark again, the mark counts.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    file.set(&store, &same(4, 4, 0o600));
    assert_eq!(file.mark().as_deref(), Some("4:4:0600:file"));
    assert_eq!(file.shown(&store), Some(same(4, 4, 0o600)));
    drop(store);
    assert_eq!(file.shown(&layer.open()), Some(same(4, 4, 0o600)));
}

#[test]
fn a_file_system_without_user_attributes_is_remembered() {
    let layer = Layer::new();
    // Regular and writable for its owner, so that nothing but the lack of attributes can refuse.
    let foreign = Object::at("/proc/self/comm".as_ref());
    for read_first in [true, false] {
        let store = layer.open();
        assert_eq!(store.medium(&foreign.key, foreign.mode), Medium::Xattr);
        if read_first {
            assert_eq!(foreign.shown(&store), None);
            assert_eq!(store.medium(&foreign.key, foreign.mode), Medium::Database);
        }
        foreign.set(&store, &same(1, 2, 0o644));
        assert_eq!(store.medium(&foreign.key, foreign.mode), Medium::Database);
        assert_eq!(foreign.shown(&store), Some(same(1, 2, 0o644)));
        drop(store);
        let store = layer.open();
        assert_eq!(foreign.shown(&store), Some(same(1, 2, 0o644)));
        store.clear(foreign.fd(), &foreign.key, foreign.mode).unwrap();
    }
}

#[test]
fn a_store_in_memory_writes_nothing_to_the_host() {
    let layer = Layer::new();
    let names = layer.populate();
    let store = Store::in_memory();
    assert!(store.is_empty_hint());
    for name in names {
        let object = layer.object(name);
        object.set(&store, &same(1, 2, 0o700));
        assert_eq!(object.shown(&store), Some(same(1, 2, 0o700)));
        assert_eq!(object.mark(), None);
        assert_eq!(store.medium(&object.key, object.mode), Medium::Database);
    }
    assert!(!store.is_empty_hint());
    assert!(!layer.beside().exists());
}

#[test]
fn what_cannot_be_is_einval_and_a_read_only_store_is_erofs() {
    let layer = Layer::new();
    layer.populate();
    let file = layer.object("file");
    let device = Override { kind: FakeKind::CharDevice { major: 1, minor: 3 }, ..same(0, 0, 0o600) };
    for store in [layer.open(), Store::in_memory()] {
        assert_eq!(store.set(file.fd(), &file.key, file.mode, &same(0, 0, 0o10000)), Err(Errno::INVAL));
        for name in ["dir", "link", "fifo", "socket"] {
            let object = layer.object(name);
            assert_eq!(store.set(object.fd(), &object.key, object.mode, &device), Err(Errno::INVAL), "{name}");
        }
    }
    let lower = layer.open_read_only();
    assert_eq!(lower.set(file.fd(), &file.key, file.mode, &device), Err(Errno::ROFS));
    assert_eq!(lower.clear(file.fd(), &file.key, file.mode), Err(Errno::ROFS));
    assert_eq!(file.mark(), None);
}

#[test]
fn a_second_opener_is_told_who_holds_the_layer() {
    let layer = Layer::new();
    let first = layer.open();
    let refused = Store::open(layer.root().as_fd(), &layer.beside()).unwrap_err();
    let lock = layer.beside().join("lock");
    let expected = format!("{}: in use by another mount of this umvu", lock.display());
    assert_eq!(refused.to_string(), expected);
    assert!(matches!(refused, OpenError::Locked { .. }));
    layer.open_read_only();
    // With another directory beside it, the layer itself still tells.
    let elsewhere = layer.beside().with_extension("2");
    let refused = Store::open(layer.root().as_fd(), &elsewhere).unwrap_err();
    assert_eq!(refused.to_string(), format!("{}: in use by another umvu", layer.path().display()));
    drop(first);
    layer.open();
}

#[test]
fn updates_of_one_object_do_not_lose_each_other() {
    let layer = Layer::new();
    layer.populate();
    let store = layer.open();
    for name in ["file", "link"] {
        let object = layer.object(name);
        object.set(&store, &same(0, 0, 0o600));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..250 {
                        let change = |shown: Option<Override>| {
                            let shown = shown.unwrap();
                            Override { uid: shown.uid + 1, ..shown }
                        };
                        store.update(object.fd(), &object.key, object.mode, change).unwrap();
                    }
                });
            }
        });
        assert_eq!(object.shown(&store), Some(same(1000, 0, 0o600)), "{name}");
    }
}

#[test]
fn a_damaged_database_is_reported_and_never_panics() {
    let layer = Layer::new();
    layer.populate();
    let link = layer.object("link");
    let store = layer.open();
    for ino in 0..5000 {
        let key = Key { ino, ..link.key };
        store.set(link.fd(), &key, link.mode, &same(1, 1, 0o777)).unwrap();
    }
    drop(store);
    let path = layer.beside().join("ownership.redb");
    let whole = fs::read(&path).unwrap();
    std::panic::set_hook(Box::new(|_| {}));
    let mut refused = 0;
    for at in (0..whole.len()).step_by(whole.len() / 300).chain(0..320) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x55;
        fs::write(&path, &damaged).unwrap();
        match Store::open_read_only(layer.root().as_fd(), Some(&layer.beside())) {
            // The byte belonged to nothing, or to a commit before the last.
            Ok(_) => {}
            Err(OpenError::Corrupt { .. }) => refused += 1,
            Err(other) => panic!("byte {at}: {other}"),
        }
    }
    for cut in [0, 1, 9, 320, 4096, whole.len() / 2] {
        fs::write(&path, &whole[..cut]).unwrap();
        let error = Store::open(layer.root().as_fd(), &layer.beside()).unwrap_err();
        assert!(matches!(error, OpenError::Corrupt { .. }), "{error}");
    }
    let _ = std::panic::take_hook();
    assert!(refused > 50, "{refused}");
    fs::write(&path, &whole).unwrap();
    let key = Key { ino: 4000, ..link.key };
    assert_eq!(layer.open().get(link.fd(), &key, link.mode), Ok(Some(same(1, 1, 0o777))));
}

#[test]
fn a_place_that_cannot_be_written_is_said_so() {
    let layer = Layer::new();
    File::create(layer.beside()).unwrap();
    let error = Store::open(layer.root().as_fd(), &layer.beside()).unwrap_err();
    assert!(matches!(error, OpenError::Io { .. }), "{error}");
    let error = Store::open(layer.root().as_fd(), "/proc/umvu".as_ref()).unwrap_err();
    assert!(error.to_string().starts_with("/proc/umvu: "), "{error}");
    let proc = Object::at("/proc".as_ref());
    assert!(Store::open_read_only(proc.fd(), None).unwrap().is_empty_hint());
}
