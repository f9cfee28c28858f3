//! What is to be done inside a view to enter a root, and how umvu tells it to itself: the first guest is umvu again.
//! Knows neither how the command line says it nor how it is done.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use serde::{Deserialize, Serialize};

use crate::report::Failure;

/// The option by which umvu tells itself to enter a root.
pub const ENTER: &str = "enter-root";

/// What the new root is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Root {
    /// The one that is there.
    Same,
    /// A directory.
    Directory(OsString),
    /// An archive or an image, with the options of its mount.
    Archive(OsString, Vec<u8>),
}

/// Where changes go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Changes {
    /// Where they always do.
    InPlace,
    /// To a directory.
    Kept(OsString),
    /// To nowhere in the end.
    Forgotten,
}

/// A file or directory of the host that is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    /// Path before the root is entered.
    pub host: OsString,
    /// Path in the root.
    pub guest: OsString,
    /// Whether it can be changed.
    pub access: Access,
}

/// Whether something can be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Access {
    ReadWrite,
    ReadOnly,
}

/// Who runs in the root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Who {
    /// Whoever it is already.
    Same,
    /// The root of the view.
    Root,
    /// A user of the root, with a group or without.
    User(OsString),
}

/// All that is to be done inside the view before the command runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The root.
    pub root: Root,
    /// Where changes go.
    pub changes: Changes,
    /// What is mounted in it unless somebody wants it bare.
    pub usual: Vec<Usual>,
    /// What of the host is shown.
    pub binds: Vec<Bind>,
    /// Current directory.
    pub workdir: Option<OsString>,
    /// Whether it is made if it is missing.
    pub makes_workdir: bool,
    /// Who runs.
    pub who: Who,
    /// Variables that are set.
    pub environment: Vec<(OsString, OsString)>,
    /// Whether programs of other machines run.
    pub emulation: Emulation,
    /// What runs if nothing is said.
    pub command: Vec<OsString>,
}

/// Whether programs of other machines run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Emulation {
    /// As the host has it.
    None,
    /// By the host's user emulators of qemu.
    Qemu,
}

/// What is there in every root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Usual {
    Proc,
    Sys,
    Dev,
    Tmp,
    ResolvConf,
}

impl Usual {
    /// All of them, in the order in which they are mounted.
    pub const ALL: [Self; 5] = [Self::Proc, Self::Sys, Self::Dev, Self::Tmp, Self::ResolvConf];

    /// Where it is.
    pub fn path(self) -> &'static str {
        match self {
            Self::Proc => "/proc",
            Self::Sys => "/sys",
            Self::Dev => "/dev",
            Self::Tmp => "/tmp",
            Self::ResolvConf => RESOLV_CONF,
        }
    }
}

/// Where name servers are told.
pub const RESOLV_CONF: &str = "/etc/resolv.conf";

impl Plan {
    /// The modules that it takes, each with its options.
    pub fn modules(&self) -> Vec<&'static str> {
        let mut modules = Vec::new();
        if self.root != Root::Same || self.changes != Changes::InPlace {
            modules.push("viewfs");
        }
        if self.who != Who::Same {
            modules.push("unrealuid");
        }
        if self.emulation == Emulation::Qemu {
            modules.push("binfmt");
        }
        if matches!(self.root, Root::Archive(..)) {
            modules.push("archive");
        }
        modules
    }

    /// Makes the command whose process enters the root and then becomes `command`.
    ///
    /// # Errors
    /// The program umvu cannot be found again.
    pub fn before(&self, command: Vec<OsString>) -> Result<Vec<OsString>, Failure> {
        let umvu = std::env::current_exe().map_err(|error| Failure::of("/proc/self/exe", &error))?;
        let bytes = umvu_protocol::encode(self).map_err(|error| Failure::Failed(format!("root: {error}")))?;
        let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut whole = vec![umvu.into_os_string(), format!("--{ENTER}").into(), text.into(), "--".into()];
        whole.extend(command);
        Ok(whole)
    }

    /// Reads what [`Plan::before`] has written.
    ///
    /// # Errors
    /// It is nothing of the kind.
    pub fn parse(text: &OsStr) -> Result<Self, Failure> {
        let wrong = || Failure::Usage(format!("--{ENTER}: is for umvu itself"));
        let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let byte = |pair: &[u8]| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        };
        let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(byte).collect();
        umvu_protocol::decode(&bytes.ok_or_else(wrong)?).map_err(|_| wrong())
    }
}
