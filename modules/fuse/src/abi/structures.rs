//! The structures of the protocol, under the names of their fields in the kernel's header.

use super::wire::structures;

structures! {
    /// Begins every request.
    InHeader = "fuse_in_header" {
        len: u32, opcode: u32, unique: u64, nodeid: u64, uid: u32, gid: u32, pid: u32, total_extlen: u16, padding: u16,
    }

    /// Begins every reply and notification.
    OutHeader = "fuse_out_header" { len: u32, error: i32, unique: u64 }

    /// Metadata.
    Attr = "fuse_attr" {
        ino: u64, size: u64, blocks: u64, atime: u64, mtime: u64, ctime: u64, atimensec: u32, mtimensec: u32,
        ctimensec: u32, mode: u32, nlink: u32, uid: u32, gid: u32, rdev: u32, blksize: u32, flags: u32,
    }

    /// Reply to what finds or makes an entry.
    EntryOut = "fuse_entry_out" {
        nodeid: u64, generation: u64, entry_valid: u64, attr_valid: u64, entry_valid_nsec: u32, attr_valid_nsec: u32,
        attr: Attr,
    }

    /// `FORGET`.
    ForgetIn = "fuse_forget_in" { nlookup: u64 }

    /// One object of a `BATCH_FORGET`.
    ForgetOne = "fuse_forget_one" { nodeid: u64, nlookup: u64 }

    /// `BATCH_FORGET`.
    BatchForgetIn = "fuse_batch_forget_in" { count: u32, dummy: u32 }

    /// `GETATTR`.
    GetAttrIn = "fuse_getattr_in" { getattr_flags: u32, dummy: u32, fh: u64 }

    /// Reply to `GETATTR` and `SETATTR`.
    AttrOut = "fuse_attr_out" { attr_valid: u64, attr_valid_nsec: u32, dummy: u32, attr: Attr }

    /// `MKNOD`.
    MkNodIn = "fuse_mknod_in" { mode: u32, rdev: u32, umask: u32, padding: u32 }

    /// `MKDIR`.
    MkDirIn = "fuse_mkdir_in" { mode: u32, umask: u32 }

    /// `RENAME`.
    RenameIn = "fuse_rename_in" { newdir: u64 }

    /// `RENAME2`.
    Rename2In = "fuse_rename2_in" { newdir: u64, flags: u32, padding: u32 }

    /// `LINK`.
    LinkIn = "fuse_link_in" { oldnodeid: u64 }

    /// `SETATTR`.
    SetAttrIn = "fuse_setattr_in" {
        valid: u32, padding: u32, fh: u64, size: u64, lock_owner: u64, atime: u64, mtime: u64, ctime: u64,
        atimensec: u32, mtimensec: u32, ctimensec: u32, mode: u32, unused4: u32, uid: u32, gid: u32, unused5: u32,
    }

    /// `OPEN` and `OPENDIR`.
    OpenIn = "fuse_open_in" { flags: u32, open_flags: u32 }

    /// `CREATE`.
    CreateIn = "fuse_create_in" { flags: u32, mode: u32, umask: u32, open_flags: u32 }

    /// Reply to what opens.
    OpenOut = "fuse_open_out" { fh: u64, open_flags: u32, padding: u32 }

    /// `RELEASE` and `RELEASEDIR`.
    ReleaseIn = "fuse_release_in" { fh: u64, flags: u32, release_flags: u32, lock_owner: u64 }

    /// `FLUSH`.
    FlushIn = "fuse_flush_in" { fh: u64, unused: u32, padding: u32, lock_owner: u64 }

    /// `READ`, `READDIR` and `READDIRPLUS`.
    ReadIn = "fuse_read_in" {
        fh: u64, offset: u64, size: u32, read_flags: u32, lock_owner: u64, flags: u32, padding: u32,
    }

    /// `WRITE`; the bytes follow.
    WriteIn = "fuse_write_in" {
        fh: u64, offset: u64, size: u32, write_flags: u32, lock_owner: u64, flags: u32, padding: u32,
    }

    /// Reply to `WRITE`.
    WriteOut = "fuse_write_out" { size: u32, padding: u32 }

    /// Reply to `STATFS`.
    KStatFs = "fuse_kstatfs" {
        blocks: u64, bfree: u64, bavail: u64, files: u64, ffree: u64, bsize: u32, namelen: u32, frsize: u32,
        padding: u32, spare: [u32; 6],
    }

    /// `FSYNC`.
    FsyncIn = "fuse_fsync_in" { fh: u64, fsync_flags: u32, padding: u32 }

    /// `SETXATTR`; name and value follow.
    SetXattrIn = "fuse_setxattr_in" { size: u32, flags: u32, setxattr_flags: u32, padding: u32 }

    /// `GETXATTR`, which a name follows, and `LISTXATTR`.
    GetXattrIn = "fuse_getxattr_in" { size: u32, padding: u32 }

    /// `INIT`.
    InitIn = "fuse_init_in" {
        major: u32, minor: u32, max_readahead: u32, flags: u32, flags2: u32, unused: [u32; 11],
    }

    /// Reply to `INIT`.
    InitOut = "fuse_init_out" {
        major: u32, minor: u32, max_readahead: u32, flags: u32, max_background: u16, congestion_threshold: u16,
        max_write: u32, time_gran: u32, max_pages: u16, map_alignment: u16, flags2: u32, unused: [u32; 7],
    }

    /// `INTERRUPT`.
    InterruptIn = "fuse_interrupt_in" { unique: u64 }

    /// `FALLOCATE`.
    FallocateIn = "fuse_fallocate_in" { fh: u64, offset: u64, length: u64, mode: u32, padding: u32 }

    /// `LSEEK`.
    LseekIn = "fuse_lseek_in" { fh: u64, offset: u64, whence: u32, padding: u32 }

    /// Reply to `LSEEK`.
    LseekOut = "fuse_lseek_out" { offset: u64 }

    /// `SYNCFS`.
    SyncFsIn = "fuse_syncfs_in" { padding: u64 }

    /// Begins an entry of a directory; the name follows.
    Dirent = "fuse_dirent" { ino: u64, off: u64, namelen: u32, r#type: u32 }

    /// Says that an object has changed.
    NotifyInvalInode = "fuse_notify_inval_inode_out" { ino: u64, off: i64, len: i64 }

    /// Says that a name has changed; it follows.
    NotifyInvalEntry = "fuse_notify_inval_entry_out" { parent: u64, namelen: u32, flags: u32 }

    /// Says that a name is gone; it follows.
    NotifyDelete = "fuse_notify_delete_out" { parent: u64, child: u64, namelen: u32, padding: u32 }

    /// Gives content, which follows.
    NotifyStore = "fuse_notify_store_out" { nodeid: u64, offset: u64, size: u32, padding: u32 }

    /// Asks for content.
    NotifyRetrieve = "fuse_notify_retrieve_out" {
        notify_unique: u64, nodeid: u64, offset: u64, size: u32, padding: u32,
    }

    /// Begins the answer to that; the content follows.
    NotifyRetrieveIn = "fuse_notify_retrieve_in" {
        dummy1: u64, offset: u64, size: u32, dummy2: u32, dummy3: u64, dummy4: u64,
    }

    /// A time of a `STATX`.
    StatxTime = "fuse_sx_time" { tv_sec: i64, tv_nsec: u32, __reserved: i32 }

    /// Metadata as statx(2) has them.
    Statx = "fuse_statx" {
        mask: u32, blksize: u32, attributes: u64, nlink: u32, uid: u32, gid: u32, mode: u16, __spare0: [u16; 1],
        ino: u64, size: u64, blocks: u64, attributes_mask: u64, atime: StatxTime, btime: StatxTime, ctime: StatxTime,
        mtime: StatxTime, rdev_major: u32, rdev_minor: u32, dev_major: u32, dev_minor: u32, __spare2: [u64; 14],
    }

    /// `STATX`.
    StatxIn = "fuse_statx_in" { getattr_flags: u32, reserved: u32, fh: u64, sx_flags: u32, sx_mask: u32 }

    /// Reply to `STATX`.
    StatxOut = "fuse_statx_out" {
        attr_valid: u64, attr_valid_nsec: u32, flags: u32, spare: [u64; 2], stat: Statx,
    }
}
