//! The options of a mount: `fuse_parse_param` of `fs/fuse/inode.c`. Knows no connection.

use umvu_interface::{cause, Errno, FileKind, MountError};

/// What mount(2) was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The descriptor of the connection, in the process that mounts.
    pub descriptor: i32,
    /// Mode of the root, until the server tells it.
    pub root_mode: u32,
    /// Who mounts.
    pub user: u32,
    /// Who mounts.
    pub group: u32,
    /// The view judges who may do what, and not the server.
    pub default_permissions: bool,
    /// Others than who mounts are admitted.
    pub allow_other: bool,
    /// The most that is read at once, in bytes.
    pub max_read: Option<usize>,
    /// Type `fuseblk`.
    pub is_block: bool,
    /// Block size of a `fuseblk`, in bytes.
    pub block_size: Option<u32>,
    /// What the type is shown with behind a dot.
    pub subtype: Option<Vec<u8>>,
}

/// Which of the two types is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// `fuse`.
    Plain,
    /// `fuseblk`.
    Block,
}

fn bad(option: &[u8], why: &str) -> MountError {
    MountError::new(Errno::INVAL, format!("fuse: option '{}': {why}", option.escape_ascii()))
}

fn number(option: &[u8], value: Option<&[u8]>, radix: u32) -> Result<u32, MountError> {
    let text = value.and_then(|value| std::str::from_utf8(value).ok());
    let number = text.and_then(|text| u32::from_str_radix(text, radix).ok());
    number.ok_or_else(|| bad(option, "a number is needed"))
}

impl Options {
    /// Reads them.
    ///
    /// # Errors
    /// - `EINVAL`: an unknown option, a value that cannot be, or one of the four that are needed is missing.
    pub fn parse(given: &[Vec<u8>], sort: Sort) -> Result<Self, MountError> {
        let (mut descriptor, mut root_mode, mut user, mut group) = (None, None, None, None);
        let mut out = Self {
            descriptor: -1,
            root_mode: 0,
            user: 0,
            group: 0,
            default_permissions: false,
            allow_other: false,
            max_read: None,
            is_block: sort == Sort::Block,
            block_size: None,
            subtype: None,
        };
        for option in given {
            let mut parts = option.splitn(2, |byte| *byte == b'=');
            let (key, value) = (parts.next().unwrap_or_default(), parts.next());
            match (key, value) {
                (b"fd", _) => {
                    let fd = number(option, value, 10)?;
                    descriptor = Some(i32::try_from(fd).map_err(|_| bad(option, &cause(Errno::BADF)))?);
                }
                (b"rootmode", _) => {
                    let mode = number(option, value, 8)?;
                    FileKind::from_mode(mode).ok_or_else(|| bad(option, "no type of files"))?;
                    root_mode = Some(mode);
                }
                (b"user_id", _) => user = Some(number(option, value, 10)?),
                (b"group_id", _) => group = Some(number(option, value, 10)?),
                (b"default_permissions", None) => out.default_permissions = true,
                (b"allow_other", None) => out.allow_other = true,
                (b"max_read", _) => out.max_read = usize::try_from(number(option, value, 10)?).ok(),
                (b"blksize", _) if sort == Sort::Block => out.block_size = Some(number(option, value, 10)?),
                (b"subtype", Some(name)) => out.subtype = Some(name.to_vec()),
                // Flags that mount(2) takes as words, too: vfs_parse_sb_flag of fs/fs_context.c.
                (b"rw" | b"ro" | b"sync" | b"async" | b"dirsync" | b"lazytime" | b"nolazytime", None) => {}
                _ => return Err(bad(option, "unknown")),
            }
        }
        let needed = |what: Option<u32>, name: &[u8]| what.ok_or_else(|| bad(name, "missing"));
        out.descriptor = descriptor.ok_or_else(|| bad(b"fd", "missing"))?;
        out.root_mode = needed(root_mode, b"rootmode")?;
        out.user = needed(user, b"user_id")?;
        out.group = needed(group, b"group_id")?;
        Ok(out)
    }

    /// As `/proc/mounts` shows them: `fuse_show_options`.
    pub fn shown(&self) -> Vec<u8> {
        let mut text = format!("user_id={},group_id={}", self.user, self.group);
        if self.default_permissions {
            text += ",default_permissions";
        }
        if self.allow_other {
            text += ",allow_other";
        }
        if let Some(max_read) = self.max_read {
            text += &format!(",max_read={max_read}");
        }
        if let Some(size) = self.block_size.filter(|size| *size != 512) {
            text += &format!(",blksize={size}");
        }
        text.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str, sort: Sort) -> Result<Options, Errno> {
        let given: Vec<Vec<u8>> = text.split(',').map(|o| o.as_bytes().to_vec()).collect();
        Options::parse(&given, sort).map_err(|error| error.errno)
    }

    #[test]
    fn what_fusermount_says_is_understood_and_shown() {
        let options =
            parsed("fd=5,rootmode=40000,user_id=7,group_id=8,allow_other,max_read=4096", Sort::Plain).unwrap();
        assert_eq!((options.descriptor, options.root_mode), (5, 0o40_000));
        assert_eq!(options.shown(), b"user_id=7,group_id=8,allow_other,max_read=4096");
    }

    #[test]
    fn what_is_missing_or_wrong_is_einval() {
        for text in [
            "rootmode=40000,user_id=7,group_id=8",
            "fd=5,rootmode=644,user_id=7,group_id=8",
            "fd=x,rootmode=40000,user_id=7,group_id=8",
            "fd=5,rootmode=40000,user_id=7,group_id=8,blksize=512",
            "fd=5,rootmode=40000,user_id=7,group_id=8,whatever",
        ] {
            assert_eq!(parsed(text, Sort::Plain), Err(Errno::INVAL), "{text}");
        }
        assert!(parsed("fd=5,rootmode=40000,user_id=7,group_id=8,blksize=512", Sort::Block).is_ok());
    }
}
