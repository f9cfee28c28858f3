//! Whom access control lists let in, where the view judges, and what takes capabilities of files away: acl(5),
//! `fs/posix_acl.c`, `file_remove_privs` of `fs/inode.c`.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{chown, MetadataExt, PermissionsExt};

use nix::unistd::{setegid, seteuid, setgroups, Gid, Uid};
use rustix::fs::{
    accessat, fallocate, ftruncate, getxattr, removexattr, setxattr, Access, AtFlags, FallocateFlags, XattrFlags, CWD,
};
use rustix::io::Errno;
use umvu_tests::{behaviours, fails, works};

behaviours! {
    in_guest at ROOT {
        a_named_user_is_let_in_and_shut_out,
        the_mask_limits_whom_a_list_names,
        the_owner_and_root_need_no_list,
        the_group_of_a_file_is_judged_by_its_entry,
        a_list_says_who_may_search_and_change_a_directory,
        chmod_changes_the_mask,
        a_list_that_shuts_out_the_owner_keeps_the_owner,
        a_change_takes_the_capabilities_of_a_file,
        a_write_takes_the_capabilities_of_a_file,
        what_writes_nothing_leaves_the_capabilities_of_a_file,
    }
    in_guest at EVERYWHERE {
        a_list_shows_the_permission_bits,
        a_list_that_is_not_there_can_be_removed,
        flags_mean_nothing_for_lists,
    }
}

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";
const CAPABILITY: &str = "security.capability";

const USER_OBJ: u16 = 1;
const USER: u16 = 2;
const GROUP_OBJ: u16 = 4;
const GROUP: u16 = 8;
const MASK: u16 = 16;
const OTHER: u16 = 32;

/// A list: tags, permissions, ids.
type List = [(u16, u16, u32)];

fn value(list: &List) -> Vec<u8> {
    let mut value = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in list {
        let id = if matches!(*tag, USER | GROUP) { *id } else { u32::MAX };
        value.extend(tag.to_le_bytes());
        value.extend(permissions.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    value
}

fn set(path: &str, list: &List) {
    works(setxattr(path, ACCESS, &value(list), XattrFlags::empty()));
}

fn get(path: &str, name: &str) -> Result<Vec<u8>, Errno> {
    let mut value = vec![0; 1024];
    let length = getxattr(path, name, &mut value[..])?;
    value.truncate(length);
    Ok(value)
}

/// Does something as a user of one group.
fn as_user<T>(uid: u32, gid: u32, what: impl FnOnce() -> T) -> T {
    setgroups(&[Gid::from_raw(gid)]).expect("setgroups");
    setegid(Gid::from_raw(gid)).expect("setegid");
    seteuid(Uid::from_raw(uid)).expect("seteuid");
    let done = what();
    seteuid(Uid::from_raw(0)).expect("seteuid back");
    setegid(Gid::from_raw(0)).expect("setegid back");
    done
}

fn file(path: &str, mode: u32) {
    fs::write(path, path).expect("a new file");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
}

fn mode(path: &str) -> u32 {
    works(fs::symlink_metadata(path)).mode() & 0o7777
}

/// Whether a user may read a file, by open(2) and by access(2) alike.
fn reads(uid: u32, gid: u32, path: &str) -> bool {
    as_user(uid, gid, || {
        let opens = File::open(path).map(drop);
        let tells = accessat(CWD, path, Access::READ_OK, AtFlags::EACCESS);
        if let Err(error) = &opens {
            assert_eq!(error.raw_os_error(), Some(Errno::ACCESS.raw_os_error()), "{path}");
        }
        assert_eq!(opens.is_ok(), tells.is_ok(), "access(2) of {path} by {uid}");
        opens.is_ok()
    })
}

fn a_named_user_is_let_in_and_shut_out() {
    file("closed", 0o600);
    set("closed", &[(USER_OBJ, 6, 0), (USER, 4, 1001), (GROUP_OBJ, 0, 0), (MASK, 4, 0), (OTHER, 0, 0)]);
    assert!(reads(1001, 1001, "closed") && !reads(1002, 1002, "closed"));
    file("open", 0o644);
    set("open", &[(USER_OBJ, 6, 0), (USER, 0, 1001), (GROUP_OBJ, 4, 0), (MASK, 4, 0), (OTHER, 4, 0)]);
    assert!(!reads(1001, 1001, "open") && reads(1002, 1002, "open"));
    works(removexattr("open", ACCESS));
    assert!(reads(1001, 1001, "open"));
}

fn the_mask_limits_whom_a_list_names() {
    file("file", 0o600);
    set("file", &[(USER_OBJ, 6, 0), (USER, 6, 1001), (GROUP_OBJ, 0, 0), (GROUP, 6, 1003), (MASK, 4, 0), (OTHER, 6, 0)]);
    let writes = |uid, gid| as_user(uid, gid, || OpenOptions::new().write(true).open("file").is_ok());
    assert!(reads(1001, 1001, "file") && !writes(1001, 1001));
    assert!(reads(1002, 1003, "file") && !writes(1002, 1003));
    assert!(reads(1002, 1002, "file") && writes(1002, 1002));
}

fn the_owner_and_root_need_no_list() {
    file("file", 0o600);
    works(chown("file", Some(1001), Some(1001)));
    set("file", &[(USER_OBJ, 4, 0), (USER, 0, 1001), (GROUP_OBJ, 0, 0), (GROUP, 0, 0), (MASK, 7, 0), (OTHER, 0, 0)]);
    assert!(reads(1001, 1001, "file"));
    works(OpenOptions::new().append(true).open("file"));
}

fn the_group_of_a_file_is_judged_by_its_entry() {
    file("file", 0o600);
    works(chown("file", Some(0), Some(1002)));
    // The mode's group bits are the mask: the group itself has nothing.
    set("file", &[(USER_OBJ, 6, 0), (USER, 7, 1005), (GROUP_OBJ, 0, 0), (MASK, 7, 0), (OTHER, 4, 0)]);
    assert_eq!(mode("file"), 0o674);
    assert!(!reads(1001, 1002, "file") && reads(1001, 1001, "file"));
}

fn a_list_says_who_may_search_and_change_a_directory() {
    works(fs::create_dir("dir"));
    works(fs::set_permissions("dir", fs::Permissions::from_mode(0o700)));
    file("dir/file", 0o644);
    set("dir", &[(USER_OBJ, 7, 0), (GROUP_OBJ, 0, 0), (GROUP, 5, 1003), (GROUP, 7, 1004), (MASK, 7, 0), (OTHER, 0, 0)]);
    assert!(!reads(1001, 1001, "dir/file") && reads(1001, 1003, "dir/file"));
    let makes = |gid| as_user(1001, gid, || fs::write("dir/new", "new").is_ok());
    assert!(!makes(1003) && makes(1004));
    let moves = |gid| as_user(1001, gid, || fs::rename("dir/new", "dir/moved").is_ok());
    assert!(!moves(1003) && moves(1004));
    let removes = |gid| as_user(1001, gid, || fs::remove_file("dir/moved").is_ok());
    assert!(!removes(1003) && removes(1004));
}

fn chmod_changes_the_mask() {
    file("file", 0o600);
    let list = |mask, owner, other| {
        [(USER_OBJ, owner, 0), (USER, 6, 1001), (GROUP_OBJ, 4, 0), (MASK, mask, 0), (OTHER, other, 0)]
    };
    set("file", &list(6, 6, 0));
    works(fs::set_permissions("file", fs::Permissions::from_mode(0o400)));
    assert_eq!(works(get("file", ACCESS)), value(&list(0, 4, 0)));
    assert!(!reads(1001, 1001, "file"));
    works(fs::set_permissions("file", fs::Permissions::from_mode(0o340)));
    assert_eq!(works(get("file", ACCESS)), value(&list(4, 3, 0)));
    assert!(reads(1001, 1001, "file"));
}

fn a_list_that_shuts_out_the_owner_keeps_the_owner() {
    let list = [(USER_OBJ, 0, 0), (USER, 5, 1001), (GROUP_OBJ, 7, 0), (MASK, 7, 0), (OTHER, 0, 0)];
    for (path, is_new) in [("owned", false), ("new", true)] {
        file(path, 0o070);
        if !is_new {
            works(chown(path, Some(33), Some(44)));
        }
        set(path, &list);
        let found = works(fs::symlink_metadata(path));
        let (uid, gid) = if is_new { (0, 0) } else { (33, 44) };
        assert_eq!((found.mode() & 0o7777, found.uid(), found.gid()), (0o070, uid, gid));
        assert_eq!(works(get(path, ACCESS)), value(&list));
        assert!(reads(1001, 1001, path));
        assert_eq!(works(fs::read(path)), path.as_bytes());
    }
}

/// `CAP_NET_RAW`, permitted and effective: `struct vfs_cap_data` of linux/capability.h.
fn capable(path: &str) {
    file(path, 0o755);
    let data = [0x0200_0001u32, 1 << 13, 0, 0, 0].map(u32::to_le_bytes).concat();
    works(setxattr(path, CAPABILITY, &data, XattrFlags::empty()));
    assert_eq!(works(get(path, CAPABILITY)), data);
}

fn is_capable(path: &str) -> bool {
    match get(path, CAPABILITY) {
        Ok(_) => true,
        Err(Errno::NODATA) => false,
        Err(errno) => panic!("{path}: {errno}"),
    }
}

type Change = fn(&str);
type Writing = fn(&mut File);

fn a_change_takes_the_capabilities_of_a_file() {
    let changes: [(&str, Change); 4] = [
        ("chown", |path| works(chown(path, Some(5), None))),
        ("chown of nothing", |path| works(chown(path, None, None))),
        ("truncate", |path| works(nix::unistd::truncate(path, 1))),
        ("O_TRUNC", |path| drop(works(File::create(path)))),
    ];
    for (name, change) in changes {
        capable(name);
        change(name);
        assert!(!is_capable(name), "{name}");
    }
}

fn a_write_takes_the_capabilities_of_a_file() {
    let writes: [(&str, Writing); 3] = [
        ("write", |file| works(file.write_all(b"x"))),
        ("ftruncate", |file| works(ftruncate(file, 1))),
        ("fallocate", |file| works(fallocate(file, FallocateFlags::empty(), 0, 100))),
    ];
    for (name, write) in writes {
        capable(name);
        write(&mut works(OpenOptions::new().write(true).open(name)));
        assert!(!is_capable(name), "{name}");
        assert_eq!(mode(name), 0o755, "{name}");
    }
}

fn what_writes_nothing_leaves_the_capabilities_of_a_file() {
    capable("file");
    let open = works(OpenOptions::new().write(true).open("file"));
    works(fs::set_permissions("file", fs::Permissions::from_mode(0o711)));
    drop(open);
    assert!(is_capable("file"));
    assert_eq!(mode("file"), 0o711);
    works(fs::write("other", "x"));
    works(fs::rename("file", "other"));
    assert!(is_capable("other"));
}

fn a_list_shows_the_permission_bits() {
    file("file", 0o640);
    set("file", &[(USER_OBJ, 6, 0), (USER, 7, 1), (GROUP_OBJ, 4, 0), (MASK, 7, 0), (OTHER, 1, 0)]);
    assert_eq!(mode("file"), 0o671);
    works(fs::set_permissions("file", fs::Permissions::from_mode(0o624)));
    let list = [(USER_OBJ, 6, 0), (USER, 7, 1), (GROUP_OBJ, 4, 0), (MASK, 2, 0), (OTHER, 4, 0)];
    assert_eq!(works(get("file", ACCESS)), value(&list));
}

fn a_list_that_is_not_there_can_be_removed() {
    file("file", 0o640);
    works(removexattr("file", ACCESS));
    works(removexattr("file", DEFAULT));
    fails(Errno::NODATA, get("file", ACCESS));
    assert_eq!(mode("file"), 0o640);
}

fn flags_mean_nothing_for_lists() {
    file("file", 0o640);
    let list = value(&[(USER_OBJ, 6, 0), (USER, 7, 1), (GROUP_OBJ, 4, 0), (MASK, 7, 0), (OTHER, 1, 0)]);
    fails(Errno::ACCESS, setxattr("file", DEFAULT, &list, XattrFlags::REPLACE));
    fails(Errno::INVAL, setxattr("file", ACCESS, &list[..7], XattrFlags::REPLACE));
    works(setxattr("file", ACCESS, &list, XattrFlags::REPLACE));
    works(setxattr("file", ACCESS, &list, XattrFlags::CREATE));
    let both = XattrFlags::CREATE | XattrFlags::REPLACE;
    fails(Errno::NOENT, setxattr("missing", "user.name", b"1", both));
    fails(Errno::NODATA, setxattr("file", "user.name", b"1", both));
    works(setxattr("file", "user.name", b"1", XattrFlags::CREATE));
    fails(Errno::EXIST, setxattr("file", "user.name", b"1", both));
}
