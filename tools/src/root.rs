//! umvu --root: what is asked for, checked while nothing has been made yet. How a root is entered is `enter`'s
//! business; what archives hold is that of the module that mounts them.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use clap::{Args, ValueHint};
use umvu_archive::{Config, Form, Wanted, LIMIT};

use crate::plan::{Access, Bind, Changes, Emulation, Plan, Root, Usual, Who, RESOLV_CONF};
use crate::report::{shown, Failure};

/// How the habits of others translate.
pub const HABITS: &str = "\
Entering a root, for those who come from elsewhere:
  chroot DIR CMD                     umvu -r DIR CMD
  proot -r DIR -b /data -w /src CMD  umvu -r DIR --keep-ids -b /data -w /src CMD
  proot -S DIR, proot -0 -r DIR      umvu -r DIR
  proot -i 33:33                     umvu -r DIR -u 33:33
  proot -q qemu-arm -r DIR           umvu -r DIR -q
  proot -k 6.1.0 --kill-on-exit      umvu -k 6.1.0 --kill-on-exit
  proot -p 80:8080                   umvu -p 8080:80
  proot --link2symlink -r DIR        umvu -r DIR --upper UP    (UP where links can be made)
  docker run -p 8080:80              umvu -r i.tar -p 8080:80
  docker run --rm -it IMAGE          docker save IMAGE > i.tar; umvu -r i.tar --throw-away
  docker run -v HOST:GUEST:ro        umvu -r i.tar -b HOST:GUEST:ro
  bwrap --ro-bind DIR / --dev /dev   umvu -r DIR --throw-away
";

/// The options that are about a root.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Entering a root")]
pub struct RootOptions {
    /// Run in the tree SRC: a directory; a tar archive, plain or compressed; what 'docker save' writes; an OCI archive or
    /// layout. Its root user is who runs there
    #[arg(short, long, value_name = "SRC", value_hint = ValueHint::AnyPath)]
    root: Option<PathBuf>,
    /// Take the image TAG of SRC, which holds several
    #[arg(long, value_name = "TAG", requires = "root")]
    image: Option<String>,
    /// Keep all changes in DIR; entered again with it, they are there
    #[arg(long, value_name = "DIR", conflicts_with = "throw_away", value_hint = ValueHint::DirPath)]
    upper: Option<PathBuf>,
    /// Allow changes, and forget them at the end
    #[arg(long)]
    throw_away: bool,
    /// Show a file or directory of the host, read-only if wanted; may be repeated
    #[arg(short, long, value_name = "HOST[:GUEST][:ro]", value_hint = ValueHint::AnyPath)]
    bind: Vec<OsString>,
    /// Run in this directory of the root
    #[arg(short, long, visible_aliases = ["cwd", "pwd"], value_name = "DIR")]
    workdir: Option<OsString>,
    /// Run as this user of the root, by name or number
    #[arg(short, long, short_alias = 'i', value_name = "USER[:GROUP]", conflicts_with = "keep_ids")]
    user: Option<OsString>,
    /// Be root, as is the default with --root
    #[arg(short = '0', long, conflicts_with = "keep_ids")]
    root_id: bool,
    /// Keep the ids of the host
    #[arg(long)]
    keep_ids: bool,
    /// Run programs of other machines by the host's user emulators of qemu
    #[arg(short, long)]
    qemu: bool,
    /// Set a variable, or take it from the host where an image has another; may be repeated
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<OsString>,
    /// Leave out what is there otherwise: /proc, /sys, /dev, a /tmp of its own, the host's /etc/resolv.conf
    #[arg(long)]
    bare: bool,
    /// Let graphical programs find the sockets of the host's desktop
    #[arg(long)]
    desktop: bool,
}

impl RootOptions {
    /// Whether anything is asked for.
    fn is_empty(&self) -> bool {
        let Self { root, image, upper, throw_away, bind, workdir, user, root_id, keep_ids, qemu, env, bare, desktop } =
            self;
        root.is_none()
            && image.is_none()
            && upper.is_none()
            && workdir.is_none()
            && user.is_none()
            && bind.is_empty()
            && env.is_empty()
            && ![throw_away, root_id, keep_ids, qemu, bare, desktop].contains(&&true)
    }

    /// Checks all that can be checked from outside and gives what is to be done inside; none if nothing is.
    ///
    /// # Errors
    /// SRC cannot be read, or is no tree; a file or directory that is to be shown does not exist.
    pub fn plan(self) -> Result<Option<Plan>, Failure> {
        if self.is_empty() {
            return Ok(None);
        }
        let mut binds = self.bind.iter().map(|text| bind(text)).collect::<Result<Vec<_>, _>>()?;
        let mut environment = Vec::new();
        if self.desktop {
            binds.extend(desktop());
        }
        let (root, config) = match &self.root {
            None => (Root::Same, None),
            Some(path) => root(path, self.image)?,
        };
        let usual = match root {
            Root::Same => Vec::new(),
            _ if self.bare => Vec::new(),
            _ => Usual::ALL
                .into_iter()
                .filter(|one| *one != Usual::ResolvConf || Path::new(RESOLV_CONF).exists())
                .collect(),
        };
        let changes = match (self.upper, self.throw_away) {
            (Some(upper), _) => Changes::Kept(check(upper.into_os_string())?),
            (None, true) => Changes::Forgotten,
            (None, false) => Changes::InPlace,
        };
        let root = match root {
            Root::Archive(path, mut options) if changes == Changes::InPlace => {
                add_points(&mut options, &usual, &binds);
                Root::Archive(path, options)
            }
            other => other,
        };
        let config = config.unwrap_or_default();
        let makes_workdir = self.workdir.is_none() && !config.directory.is_empty();
        let given = |text: String| Some(text).filter(|text| !text.is_empty()).map(OsString::from);
        let who = match self.user.or_else(|| given(config.user)) {
            _ if self.keep_ids => Who::Same,
            Some(user) => Who::User(user),
            None if self.root.is_some() || self.root_id => Who::Root,
            None => Who::Same,
        };
        for variable in config.environment {
            let (name, value) = variable.split_once('=').unwrap_or((&variable, ""));
            environment.push((name.into(), value.into()));
        }
        for variable in self.env {
            environment.extend(self::variable(&variable)?);
        }
        let command = config.entrypoint.into_iter().chain(config.command).map(OsString::from).collect();
        let emulation = if self.qemu { Emulation::Qemu } else { Emulation::None };
        let workdir = self.workdir.or_else(|| given(config.directory));
        Ok(Some(Plan { root, changes, usual, binds, workdir, makes_workdir, who, environment, emulation, command }))
    }
}

/// Finds out what a root is, and reads what an image says of itself.
fn root(path: &Path, tag: Option<String>) -> Result<(Root, Option<Config>), Failure> {
    let name = shown(path);
    let meta = path.metadata().map_err(|error| Failure::of(&name, &error))?;
    if let Some(tag) = tag.as_ref().filter(|_| path == Path::new("/")) {
        return Err(Failure::Usage(format!("--image {}: {name} is no archive of images", tag.escape_debug())));
    }
    if path == Path::new("/") {
        return Ok((Root::Same, None));
    }
    let source = absolute(path)?;
    if meta.is_dir() && tag.is_none() && !umvu_archive::is_layout(path) {
        return Ok((Root::Directory(source), None));
    }
    let mut options = Vec::new();
    if let Some(tag) = &tag {
        add_option(&mut options, b"image", tag.as_bytes());
    }
    let form = if tag.is_some() || meta.is_dir() { Form::Image } else { Form::Any };
    let wanted = Wanted { name, form, tag, limit: LIMIT, owner: (0, 0) };
    let config = umvu_archive::config_of(path, &wanted).map_err(|error| Failure::Failed(error.message))?;
    Ok((Root::Archive(source, options), config))
}

/// Makes an archive, which nobody can change, have what is mounted on.
fn add_points(options: &mut Vec<u8>, usual: &[Usual], binds: &[Bind]) {
    for one in usual {
        let kind: &[u8] = if *one == Usual::ResolvConf { b"file" } else { b"dir" };
        add_option(options, kind, one.path().as_bytes());
    }
    for bind in binds {
        let kind: &[u8] = if Path::new(&bind.host).is_dir() { b"dir" } else { b"file" };
        add_option(options, kind, bind.guest.as_bytes());
    }
}

/// Adds an option to a list that is split at commas.
fn add_option(list: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    if !list.is_empty() {
        list.push(b',');
    }
    list.extend_from_slice(name);
    list.push(b'=');
    for byte in value {
        if matches!(byte, b',' | b'\\') {
            list.push(b'\\');
        }
        list.push(*byte);
    }
}

fn absolute(path: impl AsRef<Path>) -> Result<OsString, Failure> {
    let path = path.as_ref();
    Ok(std::path::absolute(path).map_err(|error| Failure::of(shown(path), &error))?.into_os_string())
}

/// Takes `HOST[:GUEST][:ro]`; a colon that belongs to a path has a backslash before it.
fn bind(text: &OsStr) -> Result<Bind, Failure> {
    let wrong = |why: &str| Failure::Usage(format!("--bind {}: {why}", shown(text)));
    let mut parts = vec![Vec::new()];
    let mut bytes = text.as_bytes().iter().copied().peekable();
    while let (Some(byte), Some(part)) = (bytes.next(), parts.last_mut()) {
        match byte {
            b'\\' if bytes.peek() == Some(&b':') => part.extend(bytes.next()),
            b':' => parts.push(Vec::new()),
            byte => part.push(byte),
        }
    }
    let access = match parts.last().map(Vec::as_slice) {
        Some(b"ro") if parts.len() > 1 => Access::ReadOnly,
        Some(b"rw") if parts.len() > 1 => Access::ReadWrite,
        _ => {
            parts.push(b"rw".to_vec());
            Access::ReadWrite
        }
    };
    let mut parts = parts.into_iter().rev().skip(1).rev().map(OsString::from_vec);
    let host = parts.next().filter(|host| !host.is_empty()).ok_or_else(|| wrong("no path of the host"))?;
    let guest = parts.next();
    if parts.next().is_some() {
        return Err(wrong("too many colons: write '\\:' for one that belongs to a path"));
    }
    let host = check(host)?;
    let guest = match guest.filter(|guest| !guest.is_empty()) {
        None => host.clone(),
        Some(guest) if guest.as_bytes().first() != Some(&b'/') => return Err(wrong("GUEST must begin with '/'")),
        Some(guest) => guest,
    };
    Ok(Bind { host, guest, access })
}

/// Makes a path of the host absolute, and checks that it is there.
fn check(path: OsString) -> Result<OsString, Failure> {
    std::fs::metadata(&path).map_err(|error| Failure::of(shown(&path), &error))?;
    absolute(path)
}

fn variable(text: &OsStr) -> Result<Option<(OsString, OsString)>, Failure> {
    let bytes = text.as_bytes();
    let Some(at) = bytes.iter().position(|byte| *byte == b'=') else {
        return Ok(std::env::var_os(text).map(|value| (text.to_owned(), value)));
    };
    if at == 0 || bytes.contains(&0) {
        return Err(Failure::Usage(format!("--env {}: no name", shown(text))));
    }
    let part = |bytes: &[u8]| OsStr::from_bytes(bytes).to_owned();
    Ok(Some((part(&bytes[..at]), part(&bytes[at + 1..]))))
}

/// The sockets of a desktop, as far as there are any.
fn desktop() -> Vec<Bind> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|path| !path.is_empty());
    let authority = std::env::var_os("XAUTHORITY").filter(|path| !path.is_empty());
    let paths = [runtime, authority, Some("/tmp/.X11-unix".into())].into_iter().flatten();
    let is_there = |path: &OsString| Path::new(path).is_absolute() && Path::new(path).exists();
    let bind = |path: OsString| Bind { host: path.clone(), guest: path, access: Access::ReadWrite };
    paths.filter(is_there).map(bind).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(options: RootOptions) -> Plan {
        options.plan().unwrap().unwrap()
    }

    #[test]
    fn nothing_asked_for_is_no_plan() {
        assert_eq!(RootOptions::default().plan().unwrap(), None);
    }

    #[test]
    fn a_bind_has_a_place_and_an_access() {
        let of = |text: &str| bind(OsStr::new(text)).map(|bind| (bind.guest, bind.access));
        assert_eq!(of("/usr").unwrap(), ("/usr".into(), Access::ReadWrite));
        assert_eq!(of("/usr:ro").unwrap(), ("/usr".into(), Access::ReadOnly));
        assert_eq!(of("/usr:/a\\:b:ro").unwrap(), ("/a:b".into(), Access::ReadOnly));
        assert!(of("/usr:b").unwrap_err().to_string().contains("must begin with '/'"));
        assert!(of("/usr:/a:/b:ro").unwrap_err().to_string().contains("too many colons"));
        assert_eq!(of("/no/such:/a").unwrap_err().to_string(), "/no/such: no such file or directory");
    }

    #[test]
    fn a_plan_survives_the_command_line() {
        let plan =
            options(RootOptions { root: Some("/usr".into()), env: vec!["A=b=c".into()], ..RootOptions::default() });
        let whole = plan.before(vec!["sh".into()]).unwrap();
        assert_eq!((whole[1].to_str(), whole[3..].to_vec()), (Some("--enter-root"), vec!["--".into(), "sh".into()]));
        assert_eq!(Plan::parse(&whole[2]).unwrap(), plan);
        assert_eq!(plan.environment, [("A".into(), "b=c".into())]);
        assert_eq!(plan.modules(), ["viewfs", "unrealuid"]);
        assert!(Plan::parse(OsStr::new("0")).is_err());
    }

    #[test]
    fn without_a_root_only_what_is_asked_for_changes() {
        let plan = options(RootOptions { bind: vec!["/usr:/mnt".into()], ..RootOptions::default() });
        assert_eq!((plan.root.clone(), plan.who.clone(), plan.modules()), (Root::Same, Who::Same, Vec::new()));
        assert!(plan.usual.is_empty());
    }

    #[test]
    fn commas_in_paths_do_not_end_an_option() {
        let mut list = Vec::new();
        add_option(&mut list, b"dir", b"/a,b");
        add_option(&mut list, b"file", b"/c");
        assert_eq!(list, b"dir=/a\\,b,file=/c");
    }

    #[test]
    fn a_file_that_is_no_archive_is_told() {
        let failure = root(Path::new("/etc/passwd"), None).unwrap_err();
        assert_eq!(failure.to_string(), "/etc/passwd: not a tar archive");
    }
}
