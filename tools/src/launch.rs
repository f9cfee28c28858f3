//! umvu: starts a command in a view. Decides what is to be started and from which options; how a supervisor works
//! is the hypervisor's business.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgAction, Parser, ValueHint};

use crate::client::Supervisor;
use crate::enter;
use crate::log::{self, Amount};
use crate::modules::{self, MODULES};
use crate::nested::{self, Stacked};
use crate::plan::{self, Plan};
use crate::program;
use crate::rc::{self, Wanted};
use crate::report::{shown, Failure};
use crate::root;
use crate::start::{self, AtEnd, Config, Nesting, Pids, TraceTarget};

/// Runs a command in a view: with a file tree, users, and whatever else its modules bring, of its own.
///
/// COMMAND, or the shell in the variable SHELL, and all that it starts see the view. At first the view is the
/// system as it is; vu_insmod(1), vumount(1) and vusu(1), used inside, change it, and nothing of that is seen
/// outside. No privilege is needed. A view virtualises and does not confine: what runs in it has the rights of the
/// user who started it.
///
/// Before COMMAND, /etc/vurc and ~/.vurc are run inside the view: an executable file itself, any other by /bin/sh.
/// One that fails ends umvu. Inside a view, umvu stacks a further view on that of the caller.
///
/// The status is that of COMMAND, 128 and the number of the signal that ended it, 127 where COMMAND is not found, 126
/// where it cannot be executed, 2 for a wrong command line, and 1 where the view cannot be made.
#[derive(Debug, Parser)]
#[command(name = "umvu", version, disable_version_flag = true)]
#[command(override_usage = "umvu [OPTIONS] [COMMAND [ARGUMENT...]]", after_help = modules::help() + "\n" + root::HABITS)]
pub struct Options {
    /// Load MODULE, with its options after commas, before COMMAND; may be repeated
    #[arg(short, long, value_name = "MODULE[,OPTION...][,MODULE...]")]
    module: Vec<OsString>,
    /// Name the view
    #[arg(short = 'V', long, alias = "vu_name", value_name = "NAME")]
    vu_name: Option<OsString>,
    /// Do not allow views to be stacked on this one
    #[arg(short = 'x', long)]
    nonesting: bool,
    /// Let processes have pid namespaces (CLONE_NEWPID, unshare --pid); then getpid, fork, kill and their like cost more
    #[arg(long)]
    pid_namespaces: bool,
    /// End what COMMAND leaves behind when it ends: what does not end when asked is killed after five seconds
    #[arg(long)]
    kill_on_exit: bool,
    /// Have uname(2) tell RELEASE for the kernel's
    #[arg(short, long, value_name = "RELEASE")]
    kernel_release: Option<OsString>,
    /// Give port GUEST of the view the number HOST outside, so that it can be below 1024; may be repeated
    #[arg(short, long, value_name = "HOST:GUEST")]
    port: Vec<OsString>,
    /// Run FILE, and not /etc/vurc and ~/.vurc
    #[arg(short = 'f', long, value_name = "FILE", conflicts_with = "norc", value_hint = ValueHint::FilePath)]
    rc: Option<PathBuf>,
    /// Run neither /etc/vurc nor ~/.vurc
    #[arg(short = 'N', long)]
    norc: bool,
    /// Switch debug tags on from the start, see vudebug(1)
    #[arg(short, long, value_name = "TAGS")]
    debugtags: Option<OsString>,
    /// Log up to LEVEL on standard error: 0 to 7 as in syslog(3), or off, error, warn, info, debug, trace [default: warn]
    #[arg(short, long, value_name = "LEVEL")]
    loglevel: Option<Amount>,
    /// Log up to LEVEL in the system's log
    #[arg(short, long, value_name = "LEVEL")]
    syslog: Option<Amount>,
    /// Show the calls of all processes in the view, with who answered them, on standard error or in FILE
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    trace: Option<Option<PathBuf>>,
    /// Print version
    #[arg(long, action = ArgAction::Version)]
    version: (),
    #[command(flatten)]
    root: root::RootOptions,
    #[arg(long = rc::RUN, hide = true)]
    run_rc: Vec<PathBuf>,
    #[arg(long = plan::ENTER, hide = true)]
    enter_root: Option<OsString>,
    /// What to run; options after it are its own
    #[arg(value_name = "COMMAND", trailing_var_arg = true, value_hint = ValueHint::CommandWithArguments)]
    command: Vec<OsString>,
}

/// Does what the command line says.
///
/// # Errors
/// An rc file cannot be read or fails; the view cannot be made; the command cannot be executed; inside a view, an
/// option is for the supervisor that runs already.
pub fn run(options: Options) -> Result<ExitCode, Failure> {
    if !options.run_rc.is_empty() {
        return Err(rc::run_then_become(&options.run_rc, &options.command));
    }
    if let Some(plan) = &options.enter_root {
        return Err(enter::run(&Plan::parse(plan)?, &options.command));
    }
    match Supervisor::connect() {
        Ok(view) if !view.nesting => {
            Err(Failure::Failed("no view can be stacked on this one: its umvu was started with --nonesting".to_owned()))
        }
        Ok(view) => Err(nested::run(&options.stacked()?, &view)),
        Err(Failure::OutsideView) => options.start(),
        Err(failure) => Err(failure),
    }
}

impl Options {
    fn start(self) -> Result<ExitCode, Failure> {
        let files = rc::files(self.wanted())?;
        let plan = self.root.plan()?;
        let load = with_implied(load(self.module, self.port)?, plan.as_ref());
        let command = command(self.command, plan.as_ref())?;
        if files.is_empty() && plan.is_none() {
            program::check(&command[0])?;
        }
        log::start(self.loglevel.unwrap_or_default(), self.syslog)?;
        let config = Config {
            command: rc::before(&files, command)?,
            modules: MODULES,
            load,
            name: self.vu_name.map(OsString::into_vec),
            nesting: if self.nonesting { Nesting::Refused } else { Nesting::Allowed },
            pids: if self.pid_namespaces { Pids::Namespaces } else { Pids::Host },
            release: self.kernel_release.map(OsString::into_vec),
            at_end: if self.kill_on_exit { AtEnd::Ends } else { AtEnd::Stays },
            trace: self.trace.map(|file| file.map_or(TraceTarget::Stderr, TraceTarget::File)),
            debug_tags: self.debugtags.map(OsString::into_vec).unwrap_or_default(),
        };
        start::run(config).map(ExitCode::from).map_err(|error| Failure::Failed(error.to_string()))
    }

    fn stacked(self) -> Result<Stacked, Failure> {
        for (given, option) in [
            (self.trace.is_some(), "--trace"),
            (self.loglevel.is_some(), "--loglevel"),
            (self.syslog.is_some(), "--syslog"),
            (self.nonesting, "--nonesting"),
            (self.pid_namespaces, "--pid-namespaces"),
            (self.kill_on_exit, "--kill-on-exit"),
            (self.kernel_release.is_some(), "--kernel-release"),
        ] {
            if given {
                return Err(Failure::Usage(format!("{option}: is for the first umvu, whose supervisor runs already")));
            }
        }
        let rc = rc::files(self.wanted())?;
        let plan = self.root.plan()?;
        Ok(Stacked {
            rc,
            command: command(self.command, plan.as_ref())?,
            name: self.vu_name.map(OsString::into_vec),
            load: load(self.module, self.port)?,
            implied: plan.iter().flat_map(Plan::modules).map(Into::into).collect(),
            debug_tags: self.debugtags.map(OsString::into_vec).unwrap_or_default(),
        })
    }

    fn wanted(&self) -> Wanted {
        match (&self.rc, self.norc) {
            (Some(file), _) => Wanted::Only(file.clone()),
            (None, true) => Wanted::Nothing,
            (None, false) => Wanted::Usual,
        }
    }
}

/// What the first guest is: the command, or umvu itself, which enters a root first.
fn command(command: Vec<OsString>, plan: Option<&Plan>) -> Result<Vec<OsString>, Failure> {
    match plan {
        Some(plan) => plan.before(command),
        None => Ok(command_or_shell(command)),
    }
}

/// The modules that are asked for by name, and the one that `--port` asks for.
fn load(modules: Vec<OsString>, ports: Vec<OsString>) -> Result<Vec<Vec<u8>>, Failure> {
    let mut load = modules::split(modules.into_iter().map(OsString::into_vec));
    let mut module = Vec::from(umvu_ports::MODULE.name);
    for port in &ports {
        if !umvu_ports::is_option(port.as_bytes()) {
            return Err(Failure::Usage(format!("--port {}: needs two ports, HOST:GUEST", shown(port))));
        }
        module.push(b',');
        module.extend_from_slice(port.as_bytes());
    }
    if !ports.is_empty() {
        load.push(module);
    }
    Ok(load)
}

/// Adds the modules that a root takes and nobody has named.
fn with_implied(mut load: Vec<Vec<u8>>, plan: Option<&Plan>) -> Vec<Vec<u8>> {
    for implied in plan.iter().flat_map(|plan| plan.modules()) {
        if !load.iter().any(|module| modules::is_one(module, implied)) {
            load.push(implied.into());
        }
    }
    load
}

fn command_or_shell(command: Vec<OsString>) -> Vec<OsString> {
    if !command.is_empty() {
        return command;
    }
    let shell = std::env::var_os("SHELL").filter(|shell| !shell.is_empty());
    vec![shell.unwrap_or_else(|| "/bin/sh".into())]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Options {
        Options::try_parse_from([&["umvu"], arguments].concat()).unwrap()
    }

    #[test]
    fn what_follows_the_command_belongs_to_it() {
        let options = parsed(&["-N", "ls", "-N", "--help", "--", "-x", "--trace"]);
        assert_eq!(options.command, ["ls", "-N", "--help", "--", "-x", "--trace"]);
        assert!(options.norc && !options.nonesting && options.trace.is_none());
    }

    #[test]
    fn a_double_dash_ends_the_options_of_umvu() {
        assert_eq!(parsed(&["-x", "--", "-strange", "-N"]).command, ["-strange", "-N"]);
    }

    #[test]
    fn an_unknown_option_before_the_command_is_an_error() {
        assert!(Options::try_parse_from(["umvu", "--no-such", "ls"]).is_err());
    }

    #[test]
    fn trace_does_not_take_the_command_for_its_file() {
        let options = parsed(&["--trace", "ls"]);
        assert_eq!((options.trace, options.command), (Some(None), vec![OsString::from("ls")]));
        assert_eq!(parsed(&["--trace=out", "ls"]).trace, Some(Some(PathBuf::from("out"))));
    }

    #[test]
    fn modules_may_be_repeated_and_keep_their_options() {
        assert_eq!(parsed(&["-m", "viewfs", "-m", "unrealuid,keep", "sh"]).module, ["viewfs", "unrealuid,keep"]);
    }

    #[test]
    fn ports_become_options_of_their_module() {
        let options = parsed(&["-p", "8080:80", "-p", "5353:53", "sh"]);
        let load = |options: Options| load(options.module, options.port).unwrap();
        assert_eq!(load(options), [b"ports,8080:80,5353:53".to_vec()]);
        assert!(load(parsed(&["sh"])).is_empty());
    }

    #[test]
    fn an_option_for_the_supervisor_is_refused_inside_a_view() {
        let failure = parsed(&["-N", "--trace", "ls"]).stacked().unwrap_err();
        assert_eq!(failure.to_string(), "--trace: is for the first umvu, whose supervisor runs already");
    }
}
