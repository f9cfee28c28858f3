//! The users and groups of the view, as its `/etc/passwd` and `/etc/group` have them, passwd(5), group(5). Knows no
//! name service: inside another root tree the host's would answer for the wrong system.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use crate::report::{shown, Failure};

/// A line of passwd(5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Login name.
    pub name: Vec<u8>,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Home directory.
    pub home: OsString,
    /// Shell; `/bin/sh` where the line has none.
    pub shell: OsString,
}

/// A line of group(5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    name: Vec<u8>,
    gid: u32,
    members: Vec<Vec<u8>>,
}

/// Both files.
#[derive(Clone, Debug, Default)]
pub struct Accounts {
    users: Vec<User>,
    groups: Vec<Group>,
}

impl Accounts {
    /// Reads the files. One that is not there has no lines.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn read() -> Result<Self, Failure> {
        Ok(Self::parse(&file("/etc/passwd")?, &file("/etc/group")?))
    }

    /// Reads the text of both files. Lines that are not of their form are passed over, as getpwnam(3) does.
    pub fn parse(passwd: &[u8], group: &[u8]) -> Self {
        let fields = |line: &[u8]| line.split(|&byte| byte == b':').map(<[u8]>::to_vec).collect::<Vec<_>>();
        let lines = |text: &[u8]| text.split(|&byte| byte == b'\n').map(fields).collect::<Vec<_>>();
        Self {
            users: lines(passwd).iter().filter_map(|fields| user(fields)).collect(),
            groups: lines(group).iter().filter_map(|fields| self::group(fields)).collect(),
        }
    }

    /// Finds a user by name, or else by number. Root is known even where no file says so.
    ///
    /// # Errors
    /// There is none.
    pub fn user(&self, name: &OsStr) -> Result<User, Failure> {
        let bytes = name.as_bytes();
        let by_number = || number(bytes).and_then(|uid| self.users.iter().find(|user| user.uid == uid));
        match self.users.iter().find(|user| user.name == bytes).or_else(by_number) {
            Some(user) => Ok(user.clone()),
            None if bytes == b"root" || bytes == b"0" => {
                Ok(User { name: b"root".to_vec(), uid: 0, gid: 0, home: "/root".into(), shell: DEFAULT_SHELL.into() })
            }
            None => Err(Failure::Failed(format!("{}: no such user", shown(name)))),
        }
    }

    /// Finds a group by name, or else by number, and gives its id. A number needs no line of its own.
    ///
    /// # Errors
    /// There is none.
    pub fn group(&self, name: &OsStr) -> Result<u32, Failure> {
        let bytes = name.as_bytes();
        let known = self.groups.iter().find(|group| group.name == bytes).map(|group| group.gid);
        known.or_else(|| number(bytes)).ok_or_else(|| Failure::Failed(format!("{}: no such group", shown(name))))
    }

    /// Lists the groups of a user, their own first, initgroups(3).
    pub fn groups_of(&self, user: &User) -> Vec<u32> {
        let mut ids = vec![user.gid];
        for group in &self.groups {
            if group.members.contains(&user.name) && !ids.contains(&group.gid) {
                ids.push(group.gid);
            }
        }
        ids
    }
}

const DEFAULT_SHELL: &str = "/bin/sh";

/// Longest file that is read, in bytes: the tree may be anybody's.
const LONGEST: u64 = 64 << 20;

fn file(path: &str) -> Result<Vec<u8>, Failure> {
    let read = || {
        // A FIFO would be waited for, and a device has no end.
        if !Path::new(path).metadata()?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let mut text = Vec::new();
        std::fs::File::open(path)?.take(LONGEST).read_to_end(&mut text)?;
        Ok(text)
    };
    match read() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read.map_err(|error| Failure::of(path, &error)),
    }
}

fn user(fields: &[Vec<u8>]) -> Option<User> {
    let [name, _, uid, gid, _, home, shell] = fields else { return None };
    let shell = if shell.is_empty() { DEFAULT_SHELL.into() } else { OsString::from_vec(shell.clone()) };
    Some(User {
        name: name.clone(),
        uid: number(uid)?,
        gid: number(gid)?,
        home: OsString::from_vec(home.clone()),
        shell,
    })
}

fn group(fields: &[Vec<u8>]) -> Option<Group> {
    let [name, _, gid, members] = fields else { return None };
    let members = members.split(|&byte| byte == b',').filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect();
    Some(Group { name: name.clone(), gid: number(gid)?, members })
}

/// Reads an id. The last number is none, it means "do not change" in setresuid(2).
fn number(digits: &[u8]) -> Option<u32> {
    let digits = std::str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    digits.parse().ok().filter(|&id| id != u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        Accounts::parse(
            b"root:x:0:0:root:/root:/bin/bash\nbroken:x:y\nann:x:1000:1000:Ann,,,:/home/ann:\n",
            b"root:x:0:\nadm:x:4:ann,bob\nann:x:1000:ann\nwheel:x:10:bob\n",
        )
    }

    #[test]
    fn a_user_without_a_shell_has_bin_sh() {
        let ann = accounts().user(OsStr::new("ann")).unwrap();
        assert_eq!(
            (ann.uid, ann.home.as_os_str(), ann.shell.as_os_str()),
            (1000, "/home/ann".as_ref(), "/bin/sh".as_ref())
        );
    }

    #[test]
    fn the_groups_of_a_user_are_their_own_and_those_that_name_them() {
        let accounts = accounts();
        let ann = accounts.user(OsStr::new("1000")).unwrap();
        assert_eq!(accounts.groups_of(&ann), [1000, 4]);
    }

    #[test]
    fn a_broken_line_is_no_user() {
        assert_eq!(accounts().user(OsStr::new("broken")).unwrap_err().to_string(), "broken: no such user");
    }

    #[test]
    fn root_exists_without_files() {
        assert_eq!(Accounts::default().user(OsStr::new("root")).unwrap().uid, 0);
    }

    #[test]
    fn the_number_that_means_unchanged_is_no_id() {
        assert!(accounts().group(OsStr::new("4294967295")).is_err());
        assert_eq!(accounts().group(OsStr::new("33")).unwrap(), 33);
        assert_eq!(accounts().group(OsStr::new("adm")).unwrap(), 4);
    }
}
