//! Entering a root, inside the view: the first guest mounts it over what is there, then what belongs in it, becomes
//! who is to run there, and executes the command. Knows no type of archive.
//!
//! All that is needed of the old root is opened before it is covered, and named from the directory that it is in.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{open, OFlag};
use nix::sys::stat::Mode;
use nix::unistd::{access, fchdir, AccessFlags};
use umvu_protocol::Request;

use crate::accounts::{Accounts, User};
use crate::client::{Supervisor, View};
use crate::plan::{Access, Bind, Changes, Emulation, Plan, Root, Usual, Who};
use crate::program;
use crate::report::{complain, shown, Failure, Reason};

/// Does what the plan says and becomes the command; returns only when something fails.
pub fn run(plan: &Plan, command: &[OsString]) -> Failure {
    match enter(plan) {
        Ok(()) => {
            let command = if command.is_empty() { default_command(plan) } else { command.to_vec() };
            program::execute(&command)
        }
        Err(failure) => failure,
    }
}

fn enter(plan: &Plan) -> Result<(), Failure> {
    let view = Supervisor::connect()?;
    let here = std::env::current_dir().ok();
    let kept = Kept::of(plan)?;
    if plan.emulation == Emulation::Qemu {
        // Before the root: the emulators are the host's.
        mount(&view, b"none", b"/proc/sys/fs/binfmt_misc", "vubinfmt", 0, b"qemu")?;
    }
    mount_root(plan, &kept, &view)?;
    go(Path::new("/"))?;
    for usual in &plan.usual {
        // What a root has no place for is not worth failing for.
        if let Err(failure) = provide(*usual, kept.resolv_conf.as_ref(), &view) {
            complain(&format!("umvu: warning: {}: not provided: {failure}\n", usual.path()));
        }
    }
    for (bind, held) in plan.binds.iter().zip(&kept.binds) {
        show(bind, held, &view)?;
    }
    go(Path::new("/"))?;
    set_variables(plan);
    take_identity(plan, &view)?;
    go_to_work(plan, here.as_deref())
}

/// An object of the old root: a directory, and a name in it.
struct Held {
    directory: OwnedFd,
    name: Vec<u8>,
}

impl Held {
    fn of(path: &OsStr) -> Result<Self, Failure> {
        let path = Path::new(path);
        let (directory, name) = match (path.is_dir(), path.parent(), path.file_name()) {
            (false, Some(parent), Some(name)) => (parent, name.as_bytes()),
            _ => (path, &b"."[..]),
        };
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = open(directory, flags, Mode::empty()).map_err(|errno| Failure::of(shown(path), errno))?;
        Ok(Self { directory, name: name.to_vec() })
    }

    /// Goes where its name means it.
    fn approach(&self) -> Result<&[u8], Failure> {
        fchdir(&self.directory).map_err(|errno| Failure::of(shown(OsStr::from_bytes(&self.name)), errno))?;
        Ok(&self.name)
    }
}

/// What is needed of the old root.
struct Kept {
    root: Held,
    source: Option<Held>,
    upper: Option<Held>,
    resolv_conf: Option<Held>,
    binds: Vec<Held>,
}

impl Kept {
    fn of(plan: &Plan) -> Result<Self, Failure> {
        let source = match &plan.root {
            Root::Same => None,
            Root::Directory(path) | Root::Archive(path, _) => Some(Held::of(path)?),
        };
        let upper = match &plan.changes {
            // As overlayfs has it, the directory for what the layer cannot hold is beside it: its name counts.
            Changes::Kept(path) => {
                let path = std::fs::canonicalize(path).map_err(|error| Failure::of(shown(path), &error))?;
                let (parent, name) = (path.parent(), path.file_name());
                match (parent, name) {
                    (Some(parent), Some(name)) => {
                        Some(Held { name: name.as_bytes().to_vec(), ..Held::of(parent.as_os_str())? })
                    }
                    _ => return Err(Failure::Usage("--upper /: is the root itself".to_owned())),
                }
            }
            Changes::InPlace | Changes::Forgotten => None,
        };
        let has_resolv_conf = plan.usual.contains(&Usual::ResolvConf);
        Ok(Self {
            root: Held::of(OsStr::new("/"))?,
            source,
            upper,
            resolv_conf: has_resolv_conf.then(|| Held::of(OsStr::new(Usual::ResolvConf.path()))).transpose()?,
            binds: plan.binds.iter().map(|bind| Held::of(&bind.host)).collect::<Result<_, _>>()?,
        })
    }
}

fn mount(view: &dyn View, source: &[u8], target: &[u8], fstype: &str, flags: u64, data: &[u8]) -> Result<(), Failure> {
    view.order(&Request::Mount {
        source: source.to_vec(),
        target: target.to_vec(),
        fstype: fstype.into(),
        flags,
        data: data.to_vec(),
    })
}

const BIND: u64 = libc::MS_BIND | libc::MS_REC;

fn mount_root(plan: &Plan, kept: &Kept, view: &dyn View) -> Result<(), Failure> {
    if let Some(source) = &kept.source {
        let name = source.approach()?;
        match &plan.root {
            Root::Archive(_, options) => mount(view, name, b"/", "archive", 0, options)?,
            _ => mount(view, name, b"/", "", BIND, b"")?,
        }
    }
    match (&plan.changes, &kept.upper) {
        (Changes::Kept(_), Some(upper)) => mount(view, upper.approach()?, b"/", "viewfs", 0, b"cow"),
        (Changes::Forgotten, _) => {
            let place = forgotten(&kept.root, view)?;
            mount(view, place.as_bytes(), b"/", "viewfs", 0, b"cow")?;
            if plan.root == Root::Same {
                // The union shows what is mounted in the tree that it covers.
                let target = [b"/", place.as_bytes()].concat();
                let _ = view.order(&Request::Unmount { target, flags: 0 });
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Mounts a tmpfs where nobody looks in the tree that is, or will be, covered, and stays beside it; gives its name.
fn forgotten(root: &Held, view: &dyn View) -> Result<&'static str, Failure> {
    const PLACES: [&str; 5] = ["mnt", "media", "srv", "opt", "sys"];
    root.approach()?;
    let place = PLACES.into_iter().find(|place| Path::new(place).is_dir());
    let place = place.ok_or_else(|| Failure::Failed("--throw-away: the host has no /mnt to mount on".to_owned()))?;
    mount(view, b"none", place.as_bytes(), "tmpfs", 0, b"mode=755")?;
    Ok(place)
}

/// Mounts what belongs in every root.
fn provide(usual: Usual, resolv_conf: Option<&Held>, view: &dyn View) -> Result<(), Failure> {
    let target = usual.path();
    let kind = if usual == Usual::ResolvConf { Kind::File } else { Kind::Directory };
    make_point(Path::new(target), kind)?;
    let target = target.as_bytes();
    match usual {
        Usual::Proc => mount(view, b"proc", target, "proc", 0, b""),
        Usual::Sys => mount(view, b"sysfs", target, "sysfs", 0, b""),
        Usual::Dev => mount(view, b"dev", target, "devtmpfs", 0, b""),
        Usual::Tmp => mount(view, b"tmpfs", target, "tmpfs", libc::MS_NOSUID | libc::MS_NODEV, b"mode=1777"),
        Usual::ResolvConf => match resolv_conf {
            Some(held) => mount(view, held.approach()?, target, "", BIND, b""),
            None => Ok(()),
        },
    }
}

/// Shows an object of the host.
fn show(bind: &Bind, held: &Held, view: &dyn View) -> Result<(), Failure> {
    let kind = if held.name == b"." { Kind::Directory } else { Kind::File };
    make_point(Path::new(&bind.guest), kind)?;
    let target = bind.guest.as_bytes();
    mount(view, held.approach()?, target, "", BIND, b"")?;
    match bind.access {
        Access::ReadWrite => Ok(()),
        Access::ReadOnly => mount(view, b"none", target, "", libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY, b""),
    }
}

/// What something is mounted on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Directory,
    File,
}

/// Makes what is to be mounted on, if it is missing.
fn make_point(path: &Path, kind: Kind) -> Result<(), Failure> {
    if path.exists() {
        return Ok(());
    }
    // A link that leads nowhere: what it leads to is made.
    let path = match (path.read_link(), path.parent()) {
        (Ok(target), Some(parent)) => parent.join(target),
        _ => path.to_owned(),
    };
    let made = match (kind, path.parent()) {
        (Kind::Directory, _) => std::fs::create_dir_all(&path),
        (Kind::File, parent) => parent
            .map_or(Ok(()), std::fs::create_dir_all)
            .and_then(|()| File::options().create(true).append(true).open(&path).map(drop)),
    };
    made.map_err(|error| Failure::of(format_args!("{}: cannot be made to mount on", shown(&path)), &error))
}

fn go(path: &Path) -> Result<(), Failure> {
    std::env::set_current_dir(path).map_err(|error| Failure::of(shown(path), &error))
}

/// Sets what the image and the options say, and what must be true in the root.
fn set_variables(plan: &Plan) {
    if plan.root != Root::Same {
        // Directories of the host that are not here.
        for name in ["TMPDIR", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "OLDPWD"] {
            if std::env::var_os(name).is_some_and(|path| !Path::new(&path).is_dir()) {
                std::env::remove_var(name);
            }
        }
        if matches!(plan.root, Root::Archive(..)) || std::env::var_os("PATH").is_none() {
            std::env::set_var("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        }
    }
    for (name, value) in &plan.environment {
        std::env::set_var(name, value);
    }
}

/// Becomes who is to run there.
fn take_identity(plan: &Plan, view: &dyn View) -> Result<(), Failure> {
    let accounts = Accounts::read()?;
    let (user, group) = match &plan.who {
        Who::Same => return Ok(()),
        Who::Root => (accounts.user(OsStr::new("0"))?, None),
        Who::User(text) => {
            let mut parts = text.as_bytes().splitn(2, |byte| *byte == b':').map(OsStr::from_bytes);
            let name = parts.next().unwrap_or_default();
            (known_or_number(&accounts, name)?, parts.next())
        }
    };
    let set = |name: &str, value: &OsStr| {
        if !plan.environment.iter().any(|(known, _)| known == name) {
            std::env::set_var(name, value);
        }
    };
    set("HOME", &user.home);
    for name in ["USER", "LOGNAME"] {
        set(name, OsStr::from_bytes(&user.name));
    }
    if plan.who == Who::Root {
        return Ok(());
    }
    let (gid, groups) = match group {
        Some(group) => {
            let gid = accounts.group(group)?;
            (gid, vec![gid])
        }
        None => (user.gid, accounts.groups_of(&user)),
    };
    view.order(&Request::Become { uid: user.uid, gid, groups })
}

/// Finds a user; a number needs no account.
fn known_or_number(accounts: &Accounts, name: &OsStr) -> Result<User, Failure> {
    let known = accounts.user(name);
    let number = name.to_str().and_then(|text| text.parse::<u32>().ok()).filter(|uid| *uid != u32::MAX);
    match (known, number) {
        (Err(_), Some(uid)) => {
            let (home, shell) = ("/".into(), "/bin/sh".into());
            Ok(User { name: name.as_bytes().to_vec(), uid, gid: 0, home, shell })
        }
        (known, _) => known,
    }
}

/// Goes to the directory that the command runs in.
fn go_to_work(plan: &Plan, here: Option<&Path>) -> Result<(), Failure> {
    let directory = match (&plan.workdir, here) {
        (Some(directory), _) => PathBuf::from(directory),
        (None, Some(here)) if plan.root == Root::Same => here.to_owned(),
        _ => return Ok(()),
    };
    if plan.makes_workdir {
        // An image may name one that it does not have; where it cannot be made, the next call says so.
        let _ = std::fs::create_dir_all(&directory);
    }
    match std::env::set_current_dir(&directory) {
        Err(error) if plan.makes_workdir => {
            let reason = Reason::from(&error);
            complain(&format!("umvu: warning: {}: not the current directory: {reason}\n", shown(&directory)));
            Ok(())
        }
        done => done.map_err(|error| Failure::of(shown(&directory), &error)),
    }
}

/// What runs if nothing is said: what the image says, or a shell.
fn default_command(plan: &Plan) -> Vec<OsString> {
    if !plan.command.is_empty() {
        return plan.command.clone();
    }
    let shell = std::env::var_os("SHELL").filter(|shell| access(Path::new(shell), AccessFlags::X_OK).is_ok());
    vec![shell.unwrap_or_else(|| OsString::from_vec(b"/bin/sh".to_vec()))]
}
