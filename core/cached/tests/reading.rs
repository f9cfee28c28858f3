//! Names, attributes and contents that are read.

mod bed;

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bed::{at, by, content, make, name, open, Memory};
use umvu_driver::{Keep, ROOT};
use umvu_interface::{Creation, Errno, FileKind, Filesystem, OFlags, RemoveKind, RenameFlags};

#[test]
fn a_file_is_asked_for_once() {
    let memory = Memory::new();
    let directory = memory.put_directory(ROOT, b"d");
    memory.put(directory, b"f", &[7; 300_000]);
    let fs = memory.mount();
    assert_eq!(content(&fs, "d/f").unwrap(), [7; 300_000]);
    let asked = memory.asked.load(Ordering::Relaxed);
    assert_eq!(content(&fs, "d/f").unwrap(), [7; 300_000]);
    assert_eq!(at(&fs, "d/f").unwrap().stat().unwrap().size, 300_000);
    assert_eq!(memory.asked.load(Ordering::Relaxed), asked);
    assert_eq!(at(&fs, "d/none").err(), Some(Errno::NOENT));
    assert_eq!(at(&fs, "d/f/x").err(), Some(Errno::NOTDIR));
}

#[test]
fn many_who_open_a_file_at_once_fill_it_once() {
    let memory = Memory::new();
    memory.put(ROOT, b"f", &[1; 1000]);
    let fs = memory.mount();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert_eq!(content(&fs, "f").unwrap(), [1; 1000]));
        }
    });
    assert_eq!(memory.reads.load(Ordering::Relaxed), 1);
}

#[test]
fn holes_are_not_read() {
    let memory = Memory::new();
    let id = memory.put(ROOT, b"f", &[vec![5; 10], vec![0; 9_999_990]].concat());
    memory.lock().objects.get_mut(&id).unwrap().holes = vec![(4096, 10_000_000)];
    let fs = memory.mount();
    let fd = open(&fs, "f", OFlags::RDONLY).unwrap();
    let stat = rustix::fs::fstat(&fd).unwrap();
    assert_eq!((stat.st_size, memory.reads.load(Ordering::Relaxed)), (10_000_000, 1));
    assert!(stat.st_blocks < 64, "{} blocks", stat.st_blocks);
    assert_eq!(&bed::read(&fd)[..12], &[5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 0, 0]);
}

#[test]
fn lookups_are_forgotten_as_often_as_they_were_made() {
    let memory = Memory::new();
    let mut directory = ROOT;
    let mut path = String::new();
    for depth in 0..2000 {
        directory = memory.put_directory(directory, b"d");
        memory.put(directory, format!("f{depth}").as_bytes(), b"x");
        path.push_str("d/");
    }
    let fs = memory.mount();
    assert_eq!(content(&fs, &format!("{path}f1999")).unwrap(), b"x");
    let inode = at(&fs, &format!("{path}f1999")).unwrap();
    by(|caller| at(&fs, "d").unwrap().link(caller, &name("l"), &inode)).unwrap();
    assert_eq!(at(&fs, "d/l").unwrap().id().unwrap(), inode.id().unwrap());
    assert!(memory.lookups() > 2000);
    let ending = fs.ending().unwrap();
    drop(inode);
    drop(fs);
    assert_eq!(ending.wait(Duration::from_secs(60)), Some(Ok(())));
    assert_eq!(memory.lookups(), 0);
    assert!(memory.lock().is_unmounted);
}

#[test]
fn an_open_file_is_known_by_its_newest_name() {
    let memory = Memory::new();
    let directory = memory.put_directory(ROOT, b"d");
    memory.put(directory, b"f", b"text");
    memory.put_directory(ROOT, b"e");
    let fs = memory.mount();
    let fd = open(&fs, "d/f", OFlags::RDONLY).unwrap();
    let path = || fs.path_of_host(&umvu_interface::path_of_open(fd.as_fd()).unwrap()).unwrap();
    assert_eq!(path(), b"d/f");
    let rename = |from: (&str, &str), to: (&str, &str)| {
        let (directory, new) = (at(&fs, from.0).unwrap(), at(&fs, to.0).unwrap());
        by(|caller| directory.rename(caller, &name(from.1), &new, &name(to.1), RenameFlags::empty()))
    };
    rename(("", "d"), ("e", "g")).unwrap();
    assert_eq!(path(), b"e/g/f");
    rename(("e/g", "f"), ("", "h")).unwrap();
    assert_eq!(path(), b"h");
    assert_eq!(fs.stat_open(fd.as_fd()).unwrap().size, 4);
    let inode = fs.inode_of_open(fd.try_clone().unwrap()).unwrap();
    assert_eq!(inode.path().unwrap(), b"h");
    by(|caller| fs.root().remove(caller, &name("h"), RemoveKind::File)).unwrap();
    assert_eq!(path(), b"h (deleted)");
    assert_eq!(inode.path(), Err(Errno::NOENT));
    assert_eq!(fs.stat_open(fd.as_fd()).unwrap().nlink, 0);
    assert_eq!(bed::read(&fd), b"text");
}

#[test]
fn names_that_change_places_keep_their_objects() {
    let memory = Memory::new();
    memory.put(ROOT, b"a", b"A");
    memory.put(ROOT, b"b", b"BB");
    let fs = memory.mount();
    let (a, b) = (at(&fs, "a").unwrap(), at(&fs, "b").unwrap());
    by(|caller| fs.root().rename(caller, &name("a"), &fs.root(), &name("b"), RenameFlags::EXCHANGE)).unwrap();
    assert_eq!((a.path().unwrap(), b.path().unwrap()), (b"b".to_vec(), b"a".to_vec()));
    assert_eq!(content(&fs, "a").unwrap(), b"BB");
}

#[test]
fn what_the_driver_says_is_valid_for_no_time_is_asked_for_again() {
    let memory = Memory::new();
    memory.lock().valid = Some(Duration::ZERO);
    let id = memory.put(ROOT, b"f", b"old");
    let fs = memory.mount();
    assert_eq!(content(&fs, "f").unwrap(), b"old");
    {
        let mut inside = memory.lock();
        let object = inside.objects.get_mut(&id).unwrap();
        object.content = b"newer".to_vec();
        object.mtime.seconds += 1;
    }
    assert_eq!(at(&fs, "f").unwrap().stat().unwrap().size, 5);
    assert_eq!(content(&fs, "f").unwrap(), b"newer");
    // The server has removed it behind our back.
    memory.lock().objects.get_mut(&ROOT).unwrap().entries.clear();
    assert_eq!(at(&fs, "f").err(), Some(Errno::NOENT));
}

#[test]
fn content_that_is_kept_since_it_was_opened_is_read_at_each_opening() {
    let memory = Memory::new();
    memory.lock().valid = Some(Duration::from_secs(1000));
    memory.lock().keep = Some(Keep::SinceOpened);
    let id = memory.put(ROOT, b"f", b"one");
    let fs = memory.mount();
    let fd = open(&fs, "f", OFlags::RDONLY).unwrap();
    memory.lock().objects.get_mut(&id).unwrap().content = b"two".to_vec();
    assert_eq!(bed::read(&fd), b"one");
    assert_eq!(content(&fs, "f").unwrap(), b"two");
    assert_eq!(bed::read(&fd), b"two");
}

#[test]
fn backings_that_nobody_uses_go_when_there_are_too_many() {
    let memory = Memory::new();
    for file in 0..50 {
        memory.put(ROOT, format!("f{file}").as_bytes(), &[file; 100_000]);
    }
    let fs = memory.mount_with(|shown| shown.limits.all = 1 << 20);
    let held = open(&fs, "f0", OFlags::RDONLY).unwrap();
    for file in 1..50u8 {
        assert_eq!(content(&fs, &format!("f{file}")).unwrap(), [file; 100_000]);
    }
    let path = umvu_interface::path_of_open(held.as_fd()).unwrap();
    let place = std::path::Path::new(std::str::from_utf8(&path).unwrap()).parent().unwrap();
    let left = std::fs::read_dir(place).unwrap().count();
    assert!((5..=12).contains(&left), "{left} backings");
    assert_eq!(bed::read(&held), [0; 100_000]);
    assert_eq!(fs.path_of_host(&path).unwrap(), b"f0");
    assert_eq!(content(&fs, "f1").unwrap(), [1; 100_000]);
}

#[test]
fn a_driver_that_fails_or_panics_gives_its_errno() {
    let memory = Memory::new();
    memory.put(ROOT, b"f", b"x");
    let fs = memory.mount();
    memory.lock().fails = Some(Errno::NOTCONN);
    assert_eq!(open(&fs, "f", OFlags::RDONLY).err(), Some(Errno::NOTCONN));
    memory.lock().fails = None;
    memory.lock().panics = true;
    assert_eq!(open(&fs, "f", OFlags::RDONLY).err(), Some(Errno::IO));
    memory.lock().panics = false;
    assert_eq!(content(&fs, "f").unwrap(), b"x");
    memory.lock().panics = true;
    assert_eq!(make(&fs, "", "g").err(), Some(Errno::IO));
    memory.lock().panics = false;
    make(&fs, "", "g").unwrap();
}

#[test]
fn a_directory_that_is_said_to_be_in_itself_is_refused() {
    let memory = Memory::new();
    let directory = memory.put_directory(ROOT, b"d");
    memory.lock().objects.get_mut(&directory).unwrap().entries.insert(b"up".to_vec(), ROOT);
    memory.lock().objects.get_mut(&directory).unwrap().entries.insert(b"self".to_vec(), directory);
    let fs = memory.mount();
    assert_eq!(at(&fs, "d/up").err(), Some(Errno::LOOP));
    assert_eq!(at(&fs, "d/self").err(), Some(Errno::LOOP));
}

#[test]
fn a_directory_has_one_name() {
    let memory = Memory::new();
    let directory = memory.put_directory(ROOT, b"d");
    memory.lock().objects.get_mut(&ROOT).unwrap().entries.insert(b"e".to_vec(), directory);
    let fs = memory.mount();
    let first = at(&fs, "d").unwrap();
    let second = at(&fs, "e").unwrap();
    assert_eq!((first.path().unwrap(), second.path().unwrap()), (b"e".to_vec(), b"e".to_vec()));
}

#[test]
fn a_fifo_is_one_of_the_hosts() {
    let memory = Memory::new();
    let fs = memory.mount();
    by(|caller| fs.root().create(caller, &name("p"), &Creation::Fifo { mode: 0o600 })).unwrap();
    let both = open(&fs, "p", OFlags::RDWR | OFlags::NONBLOCK).unwrap();
    let writes = open(&fs, "p", OFlags::WRONLY).unwrap();
    rustix::io::write(&writes, b"through").unwrap();
    let mut bytes = [0; 7];
    rustix::io::read(&both, &mut bytes).unwrap();
    assert_eq!(&bytes, b"through");
    assert_eq!(fs.stat_open(writes.as_fd()).unwrap().kind(), FileKind::Fifo);
    let device = Creation::CharDevice { mode: 0o666, rdev: rustix::fs::makedev(1, 3) };
    by(|caller| fs.root().create(caller, &name("null"), &device)).unwrap();
    assert_eq!(rustix::io::write(open(&fs, "null", OFlags::WRONLY).unwrap(), b"x"), Ok(1));
}
