//! A union of the host's whole tree: the usual case, with all that the host has mounted.

mod bed;

use std::os::unix::fs::MetadataExt;

use bed::{Bed, Tree};
use umvu_interface::{Creation, Errno, FileKind, OFlags};

fn whole() -> (Bed, Tree) {
    let bed = Bed::whole();
    bed.dirs(&["upper"]);
    let tree = bed.mount(bed.path("upper").to_str().unwrap(), "/", &["cow"]);
    (bed, tree)
}

#[test]
fn the_host_is_seen_as_it_is() {
    let (bed, tree) = whole();
    let device = tree.stat("").dev;
    for path in ["etc/passwd", "usr", "bin/sh", "tmp"] {
        let host = std::fs::metadata(format!("/{path}")).unwrap();
        let Ok(inode) = tree.find(path) else { continue };
        let stat = inode.stat().unwrap();
        assert_eq!((stat.mode, stat.uid, stat.dev), (host.mode(), host.uid(), device), "{path}");
    }
    tree.ls("etc").unwrap();
    // Numbers of mount points are those of what is covered, as on the host.
    assert!(tree.root.read_dir().unwrap().iter().any(|entry| *entry.name == *b"usr"));
    assert!(tree.stat("etc").ino != tree.stat("usr").ino);
    assert_eq!(std::fs::read_dir(bed.path("upper")).unwrap().count(), 1, "nothing but the work directory");
}

#[test]
fn what_the_kernel_shows_of_itself_is_not_copied() {
    let (bed, tree) = whole();
    let own = format!("proc/{}", std::process::id());
    let host = std::fs::metadata(format!("/{own}/comm")).unwrap();
    let stat = tree.stat(&format!("{own}/comm"));
    assert_eq!((stat.dev, stat.ino), (host.dev(), host.ino()));
    let open = tree.open(&format!("{own}/comm"), OFlags::RDONLY).unwrap();
    assert_eq!(bed::fd_stat(&tree, &open).dev, host.dev());
    // The name of the process really changes.
    tree.append(&format!("{own}/comm"), "viewfs-test").unwrap();
    assert_eq!(std::fs::read_to_string(format!("/{own}/comm")).unwrap(), "viewfs-test\n");
    assert!(!bed.path("upper/proc").exists());
    assert!(tree.mkdir("proc/new").is_err());
    assert!(!bed.path("upper/proc").exists());
    assert_eq!(tree.link(&format!("{own}/comm"), "link"), Err(Errno::XDEV));
    assert!(tree.mv(&format!("{own}/comm"), "moved").is_err());
    let numbers = tree.filesystem.statfs(&*tree.find(&own).unwrap()).unwrap();
    assert_eq!(numbers.magic, 0x9fa0);
}

#[test]
fn devices_work_and_new_ones_land_in_the_upper_layer() {
    let (bed, tree) = whole();
    assert_eq!(tree.find("dev/null").unwrap().kind(), Ok(FileKind::CharDevice));
    tree.append("dev/null", "gone").unwrap();
    assert!(!bed.path("upper/dev").exists());
    let mut tree = tree;
    tree.who = bed::faked(0);
    tree.filesystem.fake_ownership();
    tree.create("dev/mine", Creation::CharDevice { mode: 0o666, rdev: rustix::fs::makedev(1, 3) }).unwrap();
    assert_eq!(tree.stat("dev/mine").rdev, rustix::fs::makedev(1, 3));
    assert!(bed.path("upper/dev/mine").exists() && !std::path::Path::new("/dev/mine").exists());
    tree.rm("dev/mine").unwrap();
    assert!(!tree.exists("dev/mine"));
}

#[test]
fn the_own_layers_are_seen_and_left_alone() {
    let (bed, tree) = whole();
    let upper = bed.path("upper").to_str().unwrap()[1..].to_string();
    tree.ls(&upper).unwrap();
    assert_eq!(tree.write(&format!("{upper}/x"), ""), Err(Errno::ROFS));
    assert_eq!(tree.write(&format!("{upper}.work/x"), ""), Err(Errno::ROFS));
    let beside = bed.path("file").to_str().unwrap()[1..].to_string();
    tree.write(&beside, "x").unwrap();
    assert!(!bed.path("file").exists());
    assert_eq!(tree.read(&beside).unwrap(), "x");
}
