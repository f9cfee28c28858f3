//! What is compared: the bare host, the least of all filters, two kinds of view, and PRoot.

use std::ffi::OsString;
use std::path::Path;

use umvu_tests::fresh::profile_dir;
use umvu_tests::Place;

/// One column of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// The bare host.
    Native,
    /// A seccomp filter that allows everything: what no view can be faster than, in calls that it leaves alone.
    Filter,
    /// umvu without modules.
    Plain,
    /// umvu with a copy-on-write union on `/`, as root of the view.
    CowRoot,
    /// `proot -0`.
    Proot,
}

impl Subject {
    /// Returns those that this machine can run.
    ///
    /// # Errors
    ///
    /// A sentence, when umvu is not built in this profile.
    pub fn all() -> Result<Vec<Self>, String> {
        let umvu = profile_dir().join("umvu");
        if !umvu.exists() {
            return Err(format!("{}: not built: run `cargo build --release` first", umvu.display()));
        }
        let mut subjects = vec![Self::Native, Self::Filter, Self::Plain, Self::CowRoot];
        match std::process::Command::new("proot").arg("--version").output() {
            Ok(_) => subjects.push(Self::Proot),
            Err(e) => eprintln!("bench: proot: {e}: left out"),
        }
        Ok(subjects)
    }

    /// Returns the name used in the table and in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Filter => "filter",
            Self::Plain => "umvu",
            Self::CowRoot => "umvu_cow_root",
            Self::Proot => "proot",
        }
    }

    /// Returns the command line that runs `command` with `tree` as its root: by the kernel's own `chroot` in a user
    /// namespace on the bare host; as its root everywhere. `None` for a subject that has no such thing.
    #[must_use]
    pub fn command_line_in(self, tree: &Path, command: &[OsString]) -> Option<Vec<OsString>> {
        let enter: &[&str] = match self {
            Self::Native => &["unshare", "-Ur", "chroot"],
            Self::CowRoot => &["umvu", "--norc", "--root"],
            Self::Proot => &["proot", "-S"],
            Self::Filter | Self::Plain => return None,
        };
        let enter = enter.iter().map(OsString::from).chain([tree.as_os_str().to_owned()]);
        Some(enter.chain(command.iter().cloned()).collect())
    }

    /// Returns the command line that runs `command` as this subject.
    #[must_use]
    pub fn command_line(self, command: &[OsString], upper: &Path) -> Vec<OsString> {
        match self {
            Self::Native => command.to_vec(),
            Self::Filter => {
                let filter = profile_dir().join("allow-filter").into_os_string();
                std::iter::once(filter).chain(command.iter().cloned()).collect()
            }
            Self::Plain => Place::Plain.command_line(command, upper),
            Self::CowRoot => Place::CowRoot.command_line(command, upper),
            Self::Proot => ["proot", "-0"].map(OsString::from).into_iter().chain(command.iter().cloned()).collect(),
        }
    }
}
