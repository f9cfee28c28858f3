//! Extended attributes, and what is kept in them: xattr(7), acl(5).

use std::fs;
use std::os::unix::fs::symlink;

use rustix::fs::{
    fgetxattr, fsetxattr, getxattr, listxattr, mkdir, open, removexattr, setxattr, Mode, OFlags, XattrFlags,
};
use rustix::io::Errno;
use umvu_tests::{behaviours, fails, works, Runner};

behaviours! {
    in_guest at EVERYWHERE {
        an_attribute_is_set_read_listed_and_removed,
        attribute_flags_are_kept,
        attribute_names_need_a_known_namespace,
        attribute_names_and_flags_are_judged_before_paths,
        attributes_of_links_are_eperm,
        an_attribute_buffer_that_is_too_small_is_erange,
        an_empty_attribute_is_not_a_missing_one,
        attributes_work_on_descriptors_and_directories,
    }
    in_guest at USER {
        trusted_attributes_need_privilege,
        a_strangers_attributes_are_refused,
    }
    from_outside at EVERYWHERE {
        acls_are_kept_and_shown,
    }
}

fn file(path: &str) {
    fs::write(path, path).expect("a new file");
}

fn read_attribute(path: &str, name: &str) -> Result<Vec<u8>, Errno> {
    let mut value = vec![0; 65536];
    let length = getxattr(path, name, &mut value[..])?;
    value.truncate(length);
    Ok(value)
}

fn an_attribute_is_set_read_listed_and_removed() {
    file("file");
    fails(Errno::NODATA, read_attribute("file", "user.name"));
    works(setxattr("file", "user.name", b"value\0\xff", XattrFlags::empty()));
    works(setxattr("file", "user.other", b"", XattrFlags::empty()));
    assert_eq!(works(read_attribute("file", "user.name")), b"value\0\xff");
    let mut names = vec![0; 4096];
    let length = works(listxattr("file", &mut names[..]));
    let mut names: Vec<_> =
        names[..length].split(|byte| *byte == 0).filter(|name| name.starts_with(b"user.")).collect();
    names.sort();
    assert_eq!(names, [&b"user.name"[..], b"user.other"]);
    works(removexattr("file", "user.name"));
    fails(Errno::NODATA, read_attribute("file", "user.name"));
    fails(Errno::NODATA, removexattr("file", "user.name"));
    fails(Errno::NOENT, read_attribute("missing", "user.name"));
}

fn attribute_names_and_flags_are_judged_before_paths() {
    let long = "user.".to_owned() + &"n".repeat(251);
    fails(Errno::INVAL, setxattr("missing", "user.name", b"1", XattrFlags::from_bits_retain(4)));
    fails(Errno::TOOBIG, setxattr("missing", "user.name", &[0; 65537], XattrFlags::empty()));
    for name in ["", &long] {
        fails(Errno::RANGE, setxattr("missing", name, b"1", XattrFlags::empty()));
        fails(Errno::RANGE, read_attribute("missing", name));
        fails(Errno::RANGE, removexattr("missing", name));
    }
}

fn attribute_flags_are_kept() {
    file("file");
    fails(Errno::NODATA, setxattr("file", "user.name", b"1", XattrFlags::REPLACE));
    works(setxattr("file", "user.name", b"1", XattrFlags::CREATE));
    fails(Errno::EXIST, setxattr("file", "user.name", b"2", XattrFlags::CREATE));
    works(setxattr("file", "user.name", b"3", XattrFlags::REPLACE));
    fails(Errno::INVAL, setxattr("file", "user.name", b"3", XattrFlags::from_bits_retain(4)));
    assert_eq!(works(read_attribute("file", "user.name")), b"3");
}

fn attribute_names_need_a_known_namespace() {
    file("file");
    fails(Errno::OPNOTSUPP, setxattr("file", "name", b"1", XattrFlags::empty()));
    fails(Errno::OPNOTSUPP, setxattr("file", "nobody.name", b"1", XattrFlags::empty()));
    fails(Errno::OPNOTSUPP, read_attribute("file", "nobody.name"));
    fails(Errno::RANGE, setxattr("file", format!("user.{}", "n".repeat(251)), b"1", XattrFlags::empty()));
    fails(Errno::RANGE, setxattr("file", "", b"1", XattrFlags::empty()));
    fails(Errno::TOOBIG, setxattr("file", "user.name", &vec![0; 65537], XattrFlags::empty()));
    works(setxattr("file", format!("user.{}", "n".repeat(250)), b"1", XattrFlags::empty()));
}

fn attributes_of_links_are_eperm() {
    works(symlink("missing", "link"));
    fails(Errno::PERM, rustix::fs::lsetxattr("link", "user.name", b"1", XattrFlags::empty()));
    fails(Errno::NOENT, read_attribute("link", "user.name"));
}

fn an_attribute_buffer_that_is_too_small_is_erange() {
    file("file");
    works(setxattr("file", "user.name", b"12345", XattrFlags::empty()));
    fails(Errno::RANGE, getxattr("file", "user.name", &mut [0; 4][..]));
    fails(Errno::RANGE, listxattr("file", &mut [0; 4][..]));
}

fn an_empty_attribute_is_not_a_missing_one() {
    file("file");
    works(setxattr("file", "user.name", b"", XattrFlags::empty()));
    assert_eq!(works(read_attribute("file", "user.name")), b"");
}

fn attributes_work_on_descriptors_and_directories() {
    works(mkdir("dir", Mode::RWXU));
    let dir = works(open("dir", OFlags::RDONLY, Mode::empty()));
    works(fsetxattr(&dir, "user.name", b"dir", XattrFlags::empty()));
    assert_eq!(works(read_attribute("dir", "user.name")), b"dir");
    let mut value = [0; 8];
    assert_eq!(works(fgetxattr(&dir, "user.name", &mut value[..])), 3);
    let path = works(open("dir", OFlags::PATH, Mode::empty()));
    fails(Errno::BADF, fgetxattr(&path, "user.name", &mut value[..]));
}

fn trusted_attributes_need_privilege() {
    file("file");
    fails(Errno::PERM, setxattr("file", "trusted.name", b"1", XattrFlags::empty()));
    fails(Errno::NODATA, read_attribute("file", "trusted.name"));
}

fn a_strangers_attributes_are_refused() {
    fails(Errno::ACCESS, setxattr("/etc/passwd", "user.name", b"1", XattrFlags::empty()));
}

fn acls_are_kept_and_shown(r: &Runner) {
    let script = "touch file; setfacl -m u:daemon:r-x,g:bin:-w- file; getfacl -nc file; stat -c %A file";
    let shown = r.bash(script).line();
    assert!(shown.contains("user:1:r-x") && shown.contains("group:2:-w-") && shown.contains("mask::rwx"), "{shown}");
    let inherited = r.bash("mkdir dir; setfacl -d -m u:daemon:rwx dir; mkdir dir/sub; getfacl -nc dir/sub").line();
    assert!(inherited.contains("default:user:1:rwx"), "{inherited}");
}
