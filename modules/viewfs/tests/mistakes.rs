//! Mounts that cannot be: each is refused with a message that names what is wrong.

mod bed;

use std::os::unix::fs::PermissionsExt;

use bed::Bed;
use umvu_interface::Errno;

fn bed() -> Bed {
    let bed = Bed::new();
    bed.file("file", "").dirs(&["lower/sub", "upper/sub", "other"]);
    bed
}

#[track_caller]
fn refused(bed: &Bed, fstype: &str, source: &str, target: &str, options: &[&str]) -> (Errno, String) {
    match bed.try_mount(fstype, source, target, options) {
        Ok(_) => panic!("mounted"),
        Err(error) => (error.errno, error.message),
    }
}

#[test]
fn a_missing_source_is_named() {
    let bed = bed();
    let (errno, message) = refused(&bed, "viewfs", "/none", "/lower", &["cow"]);
    assert_eq!((errno, message.as_str()), (Errno::NOENT, "/none: no such file or directory"));
    assert_eq!(refused(&bed, "viewfs", "/none", "/lower", &[]).0, Errno::NOENT);
    let (errno, message) = refused(&bed, "overlay", "x", "/", &["lowerdir=/lower:/none"]);
    assert_eq!((errno, message.as_str()), (Errno::NOENT, "/none: no such file or directory"));
}

#[test]
fn layers_are_directories() {
    let bed = bed();
    for options in [["cow"], ["mincow"], ["merge"], ["except=/sub"]] {
        let (errno, message) = refused(&bed, "viewfs", "/file", "/lower", &options);
        assert_eq!((errno, message.as_str()), (Errno::NOTDIR, "/file: not a directory"), "{options:?}");
    }
    assert_eq!(refused(&bed, "viewfs", "/upper", "/file", &["cow"]).1, "/file: not a directory");
}

#[test]
fn unknown_options_are_named() {
    let bed = bed();
    let (errno, message) = refused(&bed, "viewfs", "/upper", "/lower", &["cow", "frob=1"]);
    assert_eq!((errno, message.as_str()), (Errno::INVAL, "unknown option 'frob=1'"));
}

#[test]
fn layers_do_not_overlap() {
    let bed = bed();
    let (errno, message) = refused(&bed, "viewfs", "/upper", "/upper", &["cow"]);
    assert_eq!((errno, message.as_str()), (Errno::LOOP, "/upper: is the same directory as /upper, another layer"));
    assert!(refused(&bed, "viewfs", "/lower/sub", "/lower", &["cow"]).1.contains("/lower/sub: lies inside /lower"));
    assert!(refused(&bed, "viewfs", "/lower", "/lower/sub", &["cow"]).1.contains("/lower/sub: lies inside /lower"));
    let overlay = |options: &[&str]| refused(&bed, "overlay", "overlay", "/", options).0;
    assert_eq!(overlay(&["lowerdir=/lower:/lower"]), Errno::LOOP);
    assert_eq!(overlay(&["lowerdir=/lower:/lower/sub"]), Errno::LOOP);
    assert_eq!(overlay(&["lowerdir=/lower", "upperdir=/lower/sub"]), Errno::LOOP);
    assert_eq!(overlay(&["lowerdir=/upper/sub", "upperdir=/upper"]), Errno::LOOP);
    assert_eq!(overlay(&["lowerdir=/lower", "upperdir=/upper", "workdir=/upper/sub"]), Errno::LOOP);
    assert_eq!(overlay(&["lowerdir=/lower", "upperdir=/upper/sub", "workdir=/upper"]), Errno::LOOP);
}

#[test]
fn an_upper_layer_inside_the_whole_world_is_the_usual_case() {
    let bed = bed();
    let tree = bed.mount("/other", "/", &["cow"]);
    assert_eq!(tree.ls("").unwrap(), ["file", "lower", "other", "other.work", "upper"]);
    tree.write("file", "changed").unwrap();
    // The upper layer is seen as it is, read-only: nothing in it leads round in circles.
    assert!(tree.ls("other").unwrap().contains(&"file".to_string()));
    assert_eq!(tree.read("other/file").unwrap(), "changed");
    assert_eq!(tree.write("other/new", "new"), Err(Errno::ROFS));
    assert_eq!(tree.append("other/file", "+"), Err(Errno::ROFS));
    assert_eq!(tree.rm("other/file"), Err(Errno::ROFS));
    assert_eq!(tree.link("file", "other/link"), Err(Errno::ROFS));
    assert_eq!(tree.mv("file", "other/file"), Err(Errno::ROFS));
    assert_eq!(tree.mv("other/file", "moved"), Err(Errno::ROFS));
    assert_eq!(tree.rmdir("other"), Err(Errno::BUSY));
    assert_eq!(tree.mv("other", "moved"), Err(Errno::BUSY));
    assert_eq!(tree.chmod("other", 0o700), Err(Errno::ROFS));
    assert_eq!(tree.read("file").unwrap(), "changed");
    assert_eq!(std::fs::read_to_string(bed.path("file")).unwrap(), "");
}

#[test]
fn an_upper_layer_that_takes_no_changes_is_named() {
    if rustix::process::geteuid().is_root() {
        eprintln!("skipped: root may write everywhere");
        return;
    }
    let bed = bed();
    let shut = |mode| std::fs::set_permissions(bed.path("upper"), PermissionsExt::from_mode(mode)).unwrap();
    shut(0o555);
    let (errno, message) = refused(&bed, "viewfs", "/upper", "/lower", &["cow"]);
    assert_eq!((errno, message.as_str()), (Errno::ACCESS, "/upper: cannot take changes: permission denied"));
    shut(0o755);
}

#[test]
fn the_work_directory_lies_beside_the_upper_layer_or_in_it() {
    let bed = bed();
    let tree = bed.mount("/upper/sub", "/lower", &["cow"]);
    assert!(bed.path("upper/sub.work").is_dir());
    assert!(tree.ls("").unwrap().contains(&"sub".to_string()));
    if !rustix::process::geteuid().is_root() {
        std::fs::set_permissions(bed.path("upper"), PermissionsExt::from_mode(0o555)).unwrap();
        std::fs::remove_dir_all(bed.path("upper/sub.work")).unwrap_err();
        std::fs::create_dir(bed.path("upper/sub/inner")).unwrap();
        let tree = bed.mount("/upper/sub/inner", "/lower", &["cow"]);
        assert!(bed.path("upper/sub/inner.work").is_dir());
        drop(tree);
        std::fs::set_permissions(bed.path("upper"), PermissionsExt::from_mode(0o755)).unwrap();
    }
}

#[test]
fn an_exception_that_does_not_exist_is_refused() {
    let bed = bed();
    assert_eq!(refused(&bed, "viewfs", "/upper", "/lower", &["cow", "except=/none"]).0, Errno::NOENT);
}

#[test]
fn nochcopy_needs_a_place_to_write_to() {
    let bed = bed();
    assert!(refused(&bed, "viewfs", "/upper", "/lower", &["merge", "nochcopy"]).1.contains("nochcopy"));
}
