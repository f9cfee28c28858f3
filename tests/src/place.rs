//! The places a behaviour runs in, and the command line that enters each.
//!
//! The only file that knows the command lines of umvu, vumount and vusu.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::fresh::profile_dir;

/// A place to run a command in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The host, without umvu.
    Native,
    /// A user and mount namespace of the host's kernel, as its root: what a view's root is measured by.
    Namespace,
    /// The host, where it reaches the server of its packages.
    Online,
    /// The host, where its kernel lets an ordinary user have namespaces.
    User,
    /// A view with no module.
    Plain,
    /// A view with a bind mount that the command does not meet.
    Elsewhere,
    /// A view whose `/` is a copy-on-write union.
    Cow,
    /// A view with virtual identities, as its root.
    Root,
    /// A copy-on-write union on `/`, as root.
    CowRoot,
    /// A view as its root, whose processes can be numbered anew.
    Pids,
    /// The same without root.
    PidsUser,
}

/// The view with no module alone.
pub const PLAIN: &[Place] = &[Place::Plain];
/// The host and every view of an ordinary user.
pub const EVERYWHERE: &[Place] = &[Place::Native, Place::Plain, Place::Elsewhere, Place::Cow];
/// The host alone.
pub const NATIVE: &[Place] = &[Place::Native];
/// Where what the host has mounted is seen as the host's mounts: everywhere but in unions.
pub const UNMERGED: &[Place] = &[Place::Native, Place::Plain, Place::Elsewhere, Place::Root];
/// A namespace of the host's kernel alone: for what only a real mount can set up.
pub const NAMESPACE: &[Place] = &[Place::Namespace];
/// The host alone, with its packages.
pub const ONLINE: &[Place] = &[Place::Online];
/// The copy-on-write union alone.
pub const COW: &[Place] = &[Place::Cow];
/// The host and the views that change nothing.
pub const ORDINARY: &[Place] = &[Place::Native, Place::Plain];
/// Every view of an ordinary user, not the host.
pub const INSIDE: &[Place] = &[Place::Plain, Place::Elsewhere, Place::Cow];
/// The views of an ordinary user that change something.
pub const CHANGED: &[Place] = &[Place::Elsewhere, Place::Cow];
/// The views that show root.
pub const ROOT: &[Place] = &[Place::Root, Place::CowRoot];
/// The views of an ordinary user, and those that show root.
pub const VIEWS: &[Place] = &[Place::Plain, Place::Cow, Place::Root, Place::CowRoot];
/// The root of a view that shows the host's own tree.
pub const PLAIN_ROOT: &[Place] = &[Place::Root];
/// The union as root alone.
pub const COW_ROOT: &[Place] = &[Place::CowRoot];
/// Where a user may mount: the kernel's own namespaces, and views as root.
pub const MOUNTING: &[Place] = &[Place::Namespace, Place::Root, Place::CowRoot];
/// Where an ordinary user may have namespaces: the host, if it allows it, and views.
pub const UNSHARING: &[Place] = &[Place::User, Place::Plain, Place::Elsewhere, Place::Cow];
/// Where processes can be numbered anew.
pub const NUMBERING: &[Place] = &[Place::Namespace, Place::Pids];
/// Where an ordinary user may have all that a container needs.
pub const CONTAINING: &[Place] = &[Place::User, Place::PidsUser];
/// Facts about what an ordinary user may not do.
pub const USER: &[Place] = EVERYWHERE;
/// Facts that hold for every user: everywhere, and as the root of a view.
pub const ANYONE: &[Place] = &[Place::Native, Place::Plain, Place::Elsewhere, Place::Cow, Place::Root, Place::CowRoot];

impl Place {
    /// Returns the name used in the names of tests.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Namespace => "namespace",
            Self::Online => "online",
            Self::User => "user",
            Self::Pids => "pids",
            Self::PidsUser => "pids_user",
            Self::Plain => "plain",
            Self::Elsewhere => "elsewhere",
            Self::Cow => "cow",
            Self::Root => "root",
            Self::CowRoot => "cow_root",
        }
    }

    /// Says whether the place is a view.
    #[must_use]
    pub fn is_inside(self) -> bool {
        !matches!(self, Self::Native | Self::Namespace | Self::Online | Self::User)
    }

    /// Says whether what a command writes must stay out of the host's tree.
    #[must_use]
    pub fn is_union(self) -> bool {
        matches!(self, Self::Cow | Self::CowRoot)
    }

    /// Returns the command line that runs `command` in this place, `upper` being the writable
    /// layer of a union (and the mount point of [`Place::Elsewhere`]).
    #[must_use]
    pub fn command_line(self, command: &[OsString], upper: &Path) -> Vec<OsString> {
        let tool = |name: &str| profile_dir().join(name).into_os_string();
        let cow = r#"vumount -t viewfs -o cow "$0" / && exec "$@""#;
        let bind = r#"vumount -t viewfs -o bind /usr/share "$0" && exec "$@""#;
        let entered = match self {
            Self::Native | Self::Online | Self::User => Vec::new(),
            Self::Namespace => UNSHARE.map(OsString::from).into(),
            Self::Plain => words([tool("umvu"), "-N".into(), "--".into()]),
            Self::Elsewhere => with_mount(tool("umvu"), &["-m", "viewfs"], bind, upper),
            Self::Cow => with_mount(tool("umvu"), &["-m", "viewfs"], cow, upper),
            Self::Root => words([tool("umvu"), "-N".into(), "-m".into(), "unrealuid".into(), "--".into()]),
            Self::Pids => {
                let modules = ["-N", "--pid-namespaces", "-m", "unrealuid", "--"].map(OsString::from);
                std::iter::once(tool("umvu")).chain(modules).collect()
            }
            Self::PidsUser => words([tool("umvu"), "-N".into(), "--pid-namespaces".into(), "--".into()]),
            Self::CowRoot => with_mount(tool("umvu"), &["-m", "viewfs", "-m", "unrealuid"], cow, upper),
        };
        let command = match self {
            Self::Root | Self::CowRoot | Self::Pids => vec![tool("vusu"), "-c".into(), shell_quoted(command)],
            _ => command.to_vec(),
        };
        entered.into_iter().chain(command).collect()
    }
}

/// The command line that enters a namespace of the host's kernel.
const UNSHARE: [&str; 5] = ["unshare", "--map-root-user", "--mount", "--propagation", "private"];

/// Whether this machine, without a view, reaches the server of its packages: asked as meta/demo asks.
#[must_use]
pub fn reaches_packages() -> bool {
    let script = r#"uri=$(apt-get indextargets --no-release-info --format '$(REPO_URI)dists/$(RELEASE)/InRelease' | sed 1q)
        d=$(mktemp -d); trap 'rm -rf "$d"' EXIT
        [ -n "$uri" ] && timeout 20 /usr/lib/apt/apt-helper download-file "$uri" "$d/InRelease""#;
    let quiet = || Stdio::null();
    let mut asked = std::process::Command::new("sh");
    asked.arg("-c").arg(script).stdin(quiet()).stdout(quiet()).stderr(quiet());
    asked.status().is_ok_and(|status| status.success())
}

/// Whether this machine lets an ordinary user have namespaces.
#[must_use]
pub fn has_namespaces() -> bool {
    let status = std::process::Command::new(UNSHARE[0]).args(&UNSHARE[1..]).arg("true").stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

fn with_mount(umvu: OsString, modules: &[&str], script: &str, upper: &Path) -> Vec<OsString> {
    let mut line = vec![umvu, "-N".into()];
    line.extend(modules.iter().map(OsString::from));
    line.extend(["--".into(), "/bin/sh".into(), "-c".into(), script.into(), upper.into()]);
    line
}

fn words<const N: usize>(line: [OsString; N]) -> Vec<OsString> {
    line.into()
}

/// Returns one string that a POSIX shell executes as `command`.
fn shell_quoted(command: &[OsString]) -> OsString {
    let mut line = b"exec".to_vec();
    for word in command {
        line.extend_from_slice(b" '");
        for byte in word.as_bytes() {
            match byte {
                b'\'' => line.extend_from_slice(br"'\''"),
                other => line.push(*other),
            }
        }
        line.push(b'\'');
    }
    OsString::from_vec(line)
}

/// Whether the `umvu` of this workspace can be run.
pub enum Umvu {
    /// It is built, or should be: a missing executable then fails every test inside.
    Expected,
    /// The workspace has no such program yet: tests inside are skipped and counted.
    NotWrittenYet,
}

impl Umvu {
    /// Looks for the program's source, then nothing else: source without executable is a failure.
    #[must_use]
    pub fn find() -> Self {
        let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools");
        let sources: [PathBuf; 3] = ["src/bin/umvu.rs", "src/bin/umvu/main.rs", "src/main.rs"].map(|s| tools.join(s));
        let manifest = std::fs::read(tools.join("Cargo.toml")).unwrap_or_default();
        let has_bin_target = manifest.windows(7).any(|bytes| bytes == b"[[bin]]");
        let executable = profile_dir().join(OsStr::new("umvu"));
        if has_bin_target || executable.exists() || sources.iter().any(|source| source.exists()) {
            Self::Expected
        } else {
            Self::NotWrittenYet
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_command_survives_the_shell() {
        let command: Vec<OsString> = ["printf", "%s|", "it's", "a b", "$HOME", ""].map(OsString::from).into();
        let output = std::process::Command::new("sh").arg("-c").arg(shell_quoted(&command)).output().expect("sh");
        assert_eq!(output.stdout, b"it's|a b|$HOME||");
    }
}
