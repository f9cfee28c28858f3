//! Messages between the tools and the supervisor, carried by the virtual system call `VU_CALL`: request and
//! reply are postcard-encoded. Knows nothing of how either side works.
//!
//! The call is `syscall(VU_CALL, request, request_len, reply, reply_capacity)`; it returns the length of the
//! reply. Outside a view the kernel answers `ENOSYS`. `ERANGE`: the reply does not fit. `EINVAL`: not a request.

use serde::{Deserialize, Serialize};

/// The version of this protocol; both sides must agree.
pub const VERSION: u32 = 1;

/// Largest request, in bytes.
pub const REQUEST_MAX: usize = 64 * 1024;

/// What a tool asks for.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub enum Request {
    /// Is there a supervisor, and which?
    Hello {
        /// The caller's [`VERSION`].
        version: u32,
    },
    /// Load a module: `name[,option...]`.
    Insert {
        /// Module and options as typed.
        module: Vec<u8>,
        /// Refuse to unload it later.
        permanent: bool,
    },
    /// Unload a module.
    Remove {
        /// Its name or an alias.
        module: Vec<u8>,
    },
    /// The loaded modules and those that could be.
    List,
    /// Mount, as mount(2), but the answer has a message.
    Mount {
        /// Source.
        source: Vec<u8>,
        /// Mount point.
        target: Vec<u8>,
        /// Type; empty where the flags say what is meant (bind, move, remount).
        fstype: Vec<u8>,
        /// `MS_*` flags of mount(2).
        flags: u64,
        /// Options of the type.
        data: Vec<u8>,
    },
    /// Unmount, as umount2(2).
    Unmount {
        /// Mount point.
        target: Vec<u8>,
        /// `MNT_*` and `UMOUNT_*` flags of umount2(2).
        flags: u32,
    },
    /// Give the calling process a view of its own on top of the one it has: what `umvu` does inside a view.
    Nest {
        /// Name of the new view.
        name: Option<Vec<u8>>,
    },
    /// The name of the view and what `uname` says in it.
    GetName,
    /// Name the view.
    SetName {
        /// The new name.
        name: Vec<u8>,
    },
    /// Switch debug tags of the view's log on and off for the caller's view.
    Debug {
        /// Tags to switch on, one letter each.
        add: Vec<u8>,
        /// Tags to switch off.
        remove: Vec<u8>,
    },
    /// Which tags there are, and which are on.
    DebugTags,
    /// Save the faked owners of the plain host tree (as `fakeroot -s`) to a file of the view.
    SaveOwners {
        /// Where.
        path: Vec<u8>,
    },
    /// Load what [`Request::SaveOwners`] saved (as `fakeroot -i`).
    LoadOwners {
        /// From where.
        path: Vec<u8>,
    },
    /// Why a path is where it is: the mounts and layers that answer for it.
    Explain {
        /// Path of the view.
        path: Vec<u8>,
    },
    /// Take an identity: uid, gid and groups at once, as root of the view may.
    Become {
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
        /// Supplementary groups.
        groups: Vec<u32>,
    },
}

/// A module in the answer to [`Request::List`].
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct ModuleInfo {
    /// Name.
    pub name: String,
    /// One line.
    pub summary: String,
    /// Other names.
    pub aliases: Vec<String>,
    /// Loaded in this view.
    pub loaded: bool,
    /// Loaded for good.
    pub permanent: bool,
    /// Mounts that use it.
    pub users: u32,
}

/// A debug tag.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct TagInfo {
    /// Its letter.
    pub tag: u8,
    /// What it shows.
    pub summary: String,
    /// Whether it is on.
    pub on: bool,
}

/// The supervisor's answer.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub enum Reply {
    /// Done.
    Done,
    /// To [`Request::Hello`].
    Hello {
        /// The supervisor's [`VERSION`].
        version: u32,
        /// Version of `umvu`.
        umvu: String,
        /// How many views are below this one.
        depth: u32,
        /// Whether views may be nested here.
        nesting: bool,
    },
    /// To [`Request::List`].
    Modules(Vec<ModuleInfo>),
    /// To [`Request::GetName`].
    Name {
        /// Name of the view.
        name: Vec<u8>,
        /// Process id of the supervisor, and a number for the view.
        supervisor: u32,
        /// Number of the view, unique within the supervisor.
        view: u64,
    },
    /// To [`Request::DebugTags`].
    Tags(Vec<TagInfo>),
    /// Lines for people.
    Text(Vec<u8>),
    /// To [`Request::Mount`]: it is for the tool to run a program, as `PROGRAM -o OPTIONS SOURCE TARGET`, which serves
    /// over `/dev/fuse` of the view.
    Served {
        /// Names of the program, the best first.
        programs: Vec<String>,
        /// The package of Debian that has it.
        package: String,
        /// Options, separated by commas.
        options: Vec<u8>,
        /// Why it is not mounted without: a line for people.
        message: String,
    },
    /// It failed: a line for people and the errno.
    Failed {
        /// Lower case, names the object, ends in the cause.
        message: String,
        /// Errno.
        errno: i32,
    },
}

/// Encodes a message.
///
/// # Errors
/// Only when memory is short.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, postcard::Error> {
    postcard::to_stdvec(message)
}

/// Decodes a message.
///
/// # Errors
/// The bytes are not a message of that type.
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, postcard::Error> {
    postcard::from_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_request_survives_the_wire_and_is_small() {
        let request = Request::Mount {
            source: b"/upper".to_vec(),
            target: b"/".to_vec(),
            fstype: b"viewfs".to_vec(),
            flags: 0,
            data: b"cow".to_vec(),
        };
        let bytes = encode(&request).unwrap();
        assert!(bytes.len() < 40);
        assert_eq!(decode::<Request>(&bytes).unwrap(), request);
    }

    #[test]
    fn truncated_bytes_are_refused() {
        let bytes = encode(&Request::Remove { module: b"viewfs".to_vec() }).unwrap();
        assert!(decode::<Request>(&bytes[..bytes.len() - 1]).is_err());
    }
}
