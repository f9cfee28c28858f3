//! The options of a mount. Knows no format but by the options that it takes.

use umvu_interface::{Errno, MountError};

use crate::format::Format;
use crate::iso9660::Wanted;
use crate::owner::Owner;

/// What the options say.
pub struct Options {
    pub offset: u64,
    pub size_limit: Option<u64>,
    /// Bytes that contents may take on the host.
    pub limit: Option<u64>,
    /// Bytes of these in memory.
    pub memory: Option<u64>,
    pub owner: Owner,
    pub names: Wanted,
    /// The journal is not replayed.
    pub no_load: bool,
    /// `rw` was asked for.
    pub read_write: bool,
    /// What `/proc/mounts` shows.
    pub shown: Vec<Vec<u8>>,
    /// Names of options that only some formats take.
    special: Vec<(Vec<u8>, &'static [Format])>,
}

const ALL: &[Format] = &[Format::Ext, Format::Squashfs, Format::Iso9660, Format::Fat, Format::Erofs];
const OWNED: &[Format] = &[Format::Iso9660, Format::Fat];
const ISO: &[Format] = &[Format::Iso9660];
const FAT: &[Format] = &[Format::Fat];
const EXT: &[Format] = &[Format::Ext];

fn shown(option: &[u8]) -> String {
    match std::str::from_utf8(option) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => option.escape_ascii().to_string(),
    }
}

impl Options {
    /// Reads the options.
    ///
    /// # Errors
    /// - `EINVAL`: one that is not known, or whose value says nothing.
    pub fn parse(options: &[Vec<u8>], mounter: (u32, u32), umask: u32) -> Result<Self, MountError> {
        let mut parsed = Self {
            offset: 0,
            size_limit: None,
            limit: None,
            memory: None,
            owner: Owner { mounter, ..Owner::default() },
            names: Wanted { rock_ridge: true, joliet: true },
            no_load: false,
            read_write: false,
            shown: Vec::new(),
            special: Vec::new(),
        };
        for option in options.iter().filter(|option| !option.is_empty()) {
            let taken_by = parsed.option(option)?;
            if taken_by != ALL {
                parsed.special.push((option.clone(), taken_by));
            }
        }
        // fs/fat/inode.c, fat_init_fs_context: the mask of who mounts, if nothing is said.
        parsed.owner.default_mask = umask;
        Ok(parsed)
    }

    /// Takes one option; gives who takes it.
    fn option(&mut self, option: &[u8]) -> Result<&'static [Format], MountError> {
        let bad = |why: &str| MountError::new(Errno::INVAL, format!("option '{}': {why}", shown(option)));
        let (name, value) = match option.iter().position(|byte| *byte == b'=') {
            Some(at) => (&option[..at], Some(&option[at + 1..])),
            None => (option, None),
        };
        let text = value.and_then(|value| std::str::from_utf8(value).ok());
        let bytes = || text.and_then(size).ok_or_else(|| bad("needs a size in bytes"));
        let octal = || {
            let number = text.and_then(|text| u32::from_str_radix(text, 8).ok()).filter(|number| *number <= 0o7777);
            number.ok_or_else(|| bad("needs permissions, in octal"))
        };
        let id = || text.and_then(|text| text.parse::<u32>().ok()).ok_or_else(|| bad("needs a number"));
        let mut is_shown = true;
        let taken_by = match name {
            b"ro" | b"defaults" if value.is_none() => {
                is_shown = false;
                ALL
            }
            b"rw" if value.is_none() => {
                (self.read_write, is_shown) = (true, false);
                ALL
            }
            // mount(8) gives these to a loop device, if it makes one.
            b"loop" => {
                is_shown = false;
                ALL
            }
            b"offset" => {
                self.offset = bytes()?;
                ALL
            }
            b"sizelimit" => {
                self.size_limit = Some(bytes()?).filter(|limit| *limit != 0);
                ALL
            }
            b"limit" => {
                self.limit = Some(bytes()?);
                ALL
            }
            b"memory" => {
                self.memory = Some(bytes()?);
                ALL
            }
            b"uid" => {
                self.owner.uid = Some(id()?);
                OWNED
            }
            b"gid" => {
                self.owner.gid = Some(id()?);
                OWNED
            }
            b"umask" => {
                let mask = octal()?;
                (self.owner.file_mask, self.owner.directory_mask) = (Some(mask), Some(mask));
                FAT
            }
            b"fmask" => {
                self.owner.file_mask = Some(octal()?);
                FAT
            }
            b"dmask" => {
                self.owner.directory_mask = Some(octal()?);
                FAT
            }
            b"mode" => {
                self.owner.file_mode = Some(octal()?);
                ISO
            }
            b"dmode" => {
                self.owner.directory_mode = Some(octal()?);
                ISO
            }
            b"norock" if value.is_none() => {
                self.names.rock_ridge = false;
                ISO
            }
            b"nojoliet" if value.is_none() => {
                self.names.joliet = false;
                ISO
            }
            b"noload" | b"norecovery" if value.is_none() => {
                self.no_load = true;
                EXT
            }
            // What there is anyway.
            b"user_xattr" | b"acl" if value.is_none() => EXT,
            b"errors" if matches!(value, Some(b"continue" | b"remount-ro")) => EXT,
            b"utf8" | b"quiet" | b"flush" if value.is_none() => FAT,
            b"iocharset" | b"codepage" if matches!(value, Some(b"utf8" | b"437")) => OWNED,
            b"shortname" if value == Some(b"mixed") => FAT,
            b"errors" | b"iocharset" | b"codepage" | b"shortname" => return Err(bad("a value that is not supported")),
            _ => return Err(MountError::new(Errno::INVAL, format!("unknown option '{}'", shown(option)))),
        };
        if is_shown {
            self.shown.push(option.to_vec());
        }
        Ok(taken_by)
    }

    /// Checks that a format takes the options that were given.
    ///
    /// # Errors
    /// - `EINVAL`: it does not.
    pub fn check(&self, format: Format, fstype: &str) -> Result<(), MountError> {
        match self.special.iter().find(|(_, taken_by)| !taken_by.contains(&format)) {
            Some((option, _)) => {
                Err(MountError::new(Errno::INVAL, format!("option '{}': {fstype} has no such", shown(option))))
            }
            None => Ok(()),
        }
    }
}

/// Reads a size: bytes, or with `k`, `M`, `G`, `T` behind it.
fn size(text: &str) -> Option<u64> {
    let at = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let power = ["", "k", "m", "g", "t"].iter().position(|unit| *unit == text[at..].to_ascii_lowercase())?;
    text[..at].parse::<u64>().ok()?.checked_mul(1 << (10 * power))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[&str]) -> Result<Options, MountError> {
        let options: Vec<_> = options.iter().map(|option| option.as_bytes().to_vec()).collect();
        Options::parse(&options, (1, 2), 0o022)
    }

    #[test]
    fn options_say_what_they_say() {
        let options = parse(&["rw", "loop", "offset=1M", "uid=7", "umask=077"]).unwrap();
        assert_eq!((options.offset, options.owner.uid, options.owner.file_mask), (1 << 20, Some(7), Some(0o77)));
        assert_eq!(options.shown, [b"offset=1M".to_vec(), b"uid=7".to_vec(), b"umask=077".to_vec()]);
        assert!(options.check(Format::Fat, "vfat").is_ok());
        let error = options.check(Format::Ext, "ext4").err().unwrap();
        assert_eq!(error.message, "option 'uid=7': ext4 has no such");
    }

    #[test]
    fn options_that_are_not_known_are_named() {
        let message = |options: &[&str]| parse(options).err().unwrap().message;
        assert_eq!(message(&["ro", "frob=1"]), "unknown option 'frob=1'");
        assert_eq!(message(&["uid=x"]), "option 'uid=x': needs a number");
        assert_eq!(message(&["umask=9"]), "option 'umask=9': needs permissions, in octal");
        assert_eq!(message(&["offset=9999999999T"]), "option 'offset=9999999999T': needs a size in bytes");
        assert_eq!(message(&["iocharset=koi8-r"]), "option 'iocharset=koi8-r': a value that is not supported");
    }
}
