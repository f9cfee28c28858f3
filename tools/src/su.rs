//! vusu: a shell as another user of the view. The ids are changed by the ordinary system calls, which the view
//! answers; who may change them is its business.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use clap::{Parser, ValueHint};
use nix::errno::Errno;
use nix::unistd::{setgroups, setresgid, setresuid, Gid, Uid};
use umvu_protocol::{Reply, Request};

use crate::accounts::{Accounts, User};
use crate::client::{unexpected, Supervisor, View};
use crate::program::cannot_execute;
use crate::report::{complain, shown, Failure, Reason};

/// The module without which nobody in a view can become anybody.
const IDENTITY_MODULE: &str = "unrealuid";

/// Variables that survive a login.
const KEPT: [&str; 4] = ["TERM", "COLORTERM", "DISPLAY", "XAUTHORITY"];

/// Runs a shell as another user of the view.
///
/// Works only inside a view, see umvu(1), where the module unrealuid is loaded; no password is asked for, since
/// nothing can be gained: the user exists in the view alone. USER is a name or number in the /etc/passwd of the
/// view, root if none is given. Further operands go to the shell.
///
/// HOME and SHELL are set, and USER and LOGNAME unless the user is root; root also gets the sbin directories that
/// PATH lacks. The current directory stays.
#[derive(Debug, Parser)]
#[command(name = "vusu", version, override_usage = "vusu [OPTIONS] [-] [USER [ARGUMENT...]]")]
pub struct Options {
    /// Pass COMMAND to the shell with its option -c
    #[arg(short, long)]
    command: Option<OsString>,
    /// Start a login shell, in the user's home, with a new environment; "-" before USER is the same
    #[arg(short, long)]
    login: bool,
    /// Leave the environment as it is; ignored with --login
    #[arg(short, visible_short_alias = 'm', long)]
    preserve_environment: bool,
    /// Run SHELL, and not the one in /etc/passwd (or, with -p, in the variable SHELL)
    #[arg(short, long)]
    shell: Option<OsString>,
    /// Primary group, a name or a number
    #[arg(short, long)]
    group: Option<OsString>,
    /// Supplementary group, in place of those of the user; may be repeated
    #[arg(short = 'G', long, value_name = "GROUP")]
    supp_group: Vec<OsString>,
    /// Save the faked owners of files outside any union to FILE, as "fakeroot -s" does; stands alone
    #[arg(long, value_name = "FILE", exclusive = true)]
    save_owners: Option<OsString>,
    /// Load the faked owners that --save-owners saved, as "fakeroot -i" does; stands alone
    #[arg(long, value_name = "FILE", exclusive = true)]
    load_owners: Option<OsString>,
    /// User and arguments of the shell
    #[arg(value_name = "USER", value_hint = ValueHint::Username)]
    operands: Vec<OsString>,
}

/// Does what the command line says. Returns only when it fails, or when it is about owners.
///
/// # Errors
/// No view; no such user or group; the view refuses to change the ids; the shell cannot be executed.
pub fn run(options: Options) -> Result<ExitCode, Failure> {
    let view = Supervisor::connect()?;
    if let Some(path) = options.save_owners {
        view.order(&Request::SaveOwners { path: path.into_vec() })?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(path) = options.load_owners {
        view.order(&Request::LoadOwners { path: path.into_vec() })?;
        return Ok(ExitCode::SUCCESS);
    }
    let session = Session::of(options, &Accounts::read()?)?;
    session.become_user().map_err(|errno| session.refused(errno, &view))?;
    session.execute()
}

/// Who runs what, decided before anything is changed.
struct Session {
    user: User,
    gid: u32,
    groups: Vec<u32>,
    shell: OsString,
    arguments: Vec<OsString>,
    environment: Environment,
}

/// What becomes of the environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Environment {
    /// All of it stays.
    Kept,
    /// The variables that name the user are set.
    Named,
    /// It is made anew, as at a login.
    Login,
}

impl Session {
    fn of(options: Options, accounts: &Accounts) -> Result<Self, Failure> {
        let mut operands = options.operands.into_iter().peekable();
        let dash = operands.next_if(|operand| operand == "-").is_some();
        let user = accounts.user(&operands.next().unwrap_or_else(|| "root".into()))?;
        let environment = match (options.login || dash, options.preserve_environment) {
            (true, _) => Environment::Login,
            (false, true) => Environment::Kept,
            (false, false) => Environment::Named,
        };
        let inherited = std::env::var_os("SHELL").filter(|_| environment == Environment::Kept);
        let shell = options.shell.or(inherited).filter(|shell| !shell.is_empty());
        let gid = options.group.map_or(Ok(user.gid), |name| accounts.group(&name))?;
        let groups = match options.supp_group.as_slice() {
            [] => accounts.groups_of(&User { gid, ..user.clone() }),
            names => names.iter().map(|name| accounts.group(name)).collect::<Result<_, _>>()?,
        };
        let command = options.command.map(|command| [OsString::from("-c"), command]);
        Ok(Self {
            shell: shell.unwrap_or_else(|| user.shell.clone()),
            user,
            gid,
            groups,
            arguments: command.into_iter().flatten().chain(operands).collect(),
            environment,
        })
    }

    /// Changes groups, group and user, in the one order in which none of them forbids the next.
    fn become_user(&self) -> Result<(), Errno> {
        let groups: Vec<Gid> = self.groups.iter().copied().map(Gid::from_raw).collect();
        let (uid, gid) = (Uid::from_raw(self.user.uid), Gid::from_raw(self.gid));
        setgroups(&groups)?;
        setresgid(gid, gid, gid)?;
        setresuid(uid, uid, uid)
    }

    /// Says why the ids could not be changed.
    fn refused(&self, errno: Errno, view: &dyn View) -> Failure {
        let name = shown(OsStr::from_bytes(&self.user.name));
        let modules = match view.ask(&Request::List) {
            Ok(Reply::Modules(modules)) => modules,
            Ok(other) => return unexpected(&other),
            Err(failure) => return failure,
        };
        let reason = Reason::from(errno);
        if modules.iter().any(|module| module.name == IDENTITY_MODULE && module.loaded) {
            Failure::Failed(format!("{name}: cannot take this identity: {reason}"))
        } else {
            Failure::Failed(format!(
                "{name}: cannot take this identity: {reason}: load {IDENTITY_MODULE} first ('vu_insmod {IDENTITY_MODULE}')"
            ))
        }
    }

    /// Becomes the shell.
    fn execute(&self) -> Result<ExitCode, Failure> {
        let mut command = Command::new(&self.shell);
        if self.environment == Environment::Login {
            command.arg0(login_name(&self.shell));
            command.env_clear().envs(KEPT.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
            if let Err(error) = std::env::set_current_dir(&self.user.home) {
                let home = shown(&self.user.home);
                complain(&format!(
                    "vusu: warning: {home}: cannot be the current directory: {}\n",
                    Reason::from(&error)
                ));
            }
        }
        command.envs(self.variables(std::env::var_os("PATH")));
        Err(cannot_execute(&self.shell, &command.args(&self.arguments).exec()))
    }

    /// Lists the variables that are set, su(1).
    fn variables(&self, path: Option<OsString>) -> Vec<(&'static str, OsString)> {
        let is_root = self.user.uid == 0;
        if self.environment == Environment::Kept {
            return Vec::new();
        }
        let mut variables = vec![("HOME", self.user.home.clone()), ("SHELL", self.shell.clone())];
        if !is_root || self.environment == Environment::Login {
            let name = OsString::from_vec(self.user.name.clone());
            variables.extend([("USER", name.clone()), ("LOGNAME", name)]);
        }
        match (self.environment, is_root) {
            (Environment::Login, true) => variables.push(("PATH", ROOT_PATH.into())),
            (Environment::Login, false) => variables.push(("PATH", USER_PATH.into())),
            (_, true) => variables.push(("PATH", with_sbin(path.unwrap_or_default()))),
            (_, false) => {}
        }
        variables
    }
}

/// What Debian's login.defs(5) gives root and others.
const ROOT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const USER_PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games";

/// Adds the directories without which root cannot run dpkg and its like.
fn with_sbin(mut path: OsString) -> OsString {
    for directory in ["/usr/local/sbin", "/usr/sbin", "/sbin"] {
        if !std::env::split_paths(&path).any(|known| known.as_os_str() == directory) {
            if !path.is_empty() {
                path.push(":");
            }
            path.push(directory);
        }
    }
    path
}

/// Makes the name by which a shell knows that it is a login shell.
fn login_name(shell: &OsStr) -> OsString {
    let mut name = OsString::from("-");
    name.push(std::path::Path::new(shell).file_name().unwrap_or(shell));
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(arguments: &[&str]) -> Session {
        let accounts = Accounts::parse(
            b"root:x:0:0:root:/root:/bin/bash\nann:x:1000:1000::/home/ann:/bin/zsh\n",
            b"adm:x:4:ann\nwww:x:33:\n",
        );
        Session::of(Options::try_parse_from([&["vusu"], arguments].concat()).unwrap(), &accounts).unwrap()
    }

    #[test]
    fn nobody_named_means_root() {
        let root = session(&[]);
        assert_eq!(
            (root.user.uid, root.shell.as_os_str(), root.environment),
            (0, "/bin/bash".as_ref(), Environment::Named)
        );
    }

    #[test]
    fn the_documented_forms_are_understood() {
        let shell = session(&["-p", "-s", "/usr/bin/sh"]);
        assert_eq!((shell.shell.as_os_str(), shell.environment), ("/usr/bin/sh".as_ref(), Environment::Kept));
        assert_eq!(session(&["-"]).environment, Environment::Login);
        assert_eq!(session(&["-m", "-", "ann"]).environment, Environment::Login);
    }

    #[test]
    fn a_command_may_stand_after_the_user() {
        let ann = session(&["ann", "-c", "id", "name"]);
        assert_eq!((ann.user.uid, ann.arguments), (1000, vec!["-c".into(), "id".into(), "name".into()]));
    }

    #[test]
    fn groups_come_from_the_view_or_from_the_command_line() {
        assert_eq!(session(&["ann"]).groups, [1000, 4]);
        let other = session(&["-g", "www", "-G", "adm", "-G", "7", "ann"]);
        assert_eq!((other.gid, other.groups), (33, vec![4, 7]));
    }

    #[test]
    fn root_finds_the_programs_of_root() {
        let path = session(&[]).variables(Some("/usr/bin:/sbin".into()));
        assert!(path.contains(&("PATH", "/usr/bin:/sbin:/usr/local/sbin:/usr/sbin".into())));
        assert!(!path.iter().any(|(name, _)| *name == "USER"));
    }

    #[test]
    fn a_refusal_says_which_module_is_missing() {
        let none = |_: &Request| Ok(Reply::Modules(Vec::new()));
        assert_eq!(
            session(&[]).refused(Errno::EPERM, &none).to_string(),
            "root: cannot take this identity: operation not permitted: load unrealuid first ('vu_insmod unrealuid')"
        );
    }

    #[test]
    fn a_login_shell_is_told_so() {
        assert_eq!(login_name(OsStr::new("/bin/bash")), "-bash");
    }
}
