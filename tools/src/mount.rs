//! vumount: mounts in the caller's view. Knows no type of file system; paths go to the supervisor as typed, which
//! resolves them from the caller's directory.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::process::ExitCode;

use clap::{Parser, ValueHint};
use umvu_protocol::{Reply, Request};

use crate::client::{unexpected, Supervisor, View};
use crate::mount_words::{Divided, Operations, ATTRIBUTES, OPERATIONS};
use crate::report::{print, shown, Failure};
use crate::served::{self, Served};

/// Mounts a file system, or any other thing that a module brings, in the view of the caller.
///
/// Works only inside a view, see umvu(1), and changes only that view. Without operands it shows what is mounted.
/// mount(8) can do the same where the caller is root of the view, see vusu(1).
///
/// Of the words after -o, those that mount(8) calls independent of the file system (ro, nosuid, noatime, remount,
/// bind, private and so on) become flags of mount(2); the others are left to the type. With -t, so are bind,
/// rbind and move, since a type may have its own use for them.
#[derive(Debug, Parser)]
#[command(name = "vumount", version, override_usage = USAGE, after_help = crate::modules::mount_help())]
pub struct Options {
    /// Type of the file system
    #[arg(short, long, value_name = "TYPE")]
    types: Option<OsString>,
    /// Options, separated by commas; a comma that belongs to an option is written "\,"
    #[arg(short, long, value_name = "LIST")]
    options: Vec<OsString>,
    /// Mount read-only: -o ro
    #[arg(short, long, overrides_with = "read_write")]
    read_only: bool,
    /// Mount read-write, which is the default: -o rw
    #[arg(short = 'w', long, visible_alias = "rw")]
    read_write: bool,
    /// Show a tree at a second place: -o bind
    #[arg(short = 'B', long, group = "operation")]
    bind: bool,
    /// Move a mounted tree to another place: -o move
    #[arg(short = 'M', long = "move", group = "operation")]
    move_tree: bool,
    /// Show a tree, with all that is mounted in it, at a second place: -o rbind
    #[arg(short = 'R', long, group = "operation")]
    rbind: bool,
    /// Accepted as mount(8) has it: there is no mtab to leave alone
    #[arg(short, long)]
    no_mtab: bool,
    /// Tell which mounts and layers answer for PATH
    #[arg(long, value_name = "PATH", exclusive = true, value_hint = ValueHint::AnyPath)]
    explain: Option<OsString>,
    /// What to mount; not needed to remount or to change propagation
    #[arg(value_name = "SOURCE", value_hint = ValueHint::AnyPath)]
    first: Option<OsString>,
    /// Where
    #[arg(value_name = "TARGET", value_hint = ValueHint::AnyPath)]
    second: Option<OsString>,
}

const USAGE: &str = "vumount [-t TYPE] [-o LIST] [OPTIONS] SOURCE TARGET
       vumount -o remount[,...] TARGET
       vumount --explain PATH
       vumount";

/// Does what the command line says.
///
/// # Errors
/// No view; operands are missing; or the supervisor's reason.
pub fn run(options: Options) -> Result<ExitCode, Failure> {
    let view = Supervisor::connect()?;
    if let Some(path) = options.explain {
        let text = match view.ask(&Request::Explain { path: path.into_vec() })? {
            Reply::Text(text) => text,
            other => return Err(unexpected(&other)),
        };
        print(&text)?;
    } else if options.is_bare() {
        let mounts = std::fs::read("/proc/mounts").map_err(|error| Failure::of("/proc/mounts", &error))?;
        print(&mounts)?;
    } else {
        mount(&plan(options)?, &view)?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Options {
    fn is_bare(&self) -> bool {
        self.first.is_none()
            && self.types.is_none()
            && self.options.is_empty()
            && ![self.read_only, self.read_write, self.bind, self.move_tree, self.rbind].contains(&true)
    }
}

/// The requests that make a mount, in order, and how to take back the first.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    steps: Vec<Request>,
    undo: Option<Request>,
}

fn mount(plan: &Plan, view: &dyn View) -> Result<(), Failure> {
    for (index, step) in plan.steps.iter().enumerate() {
        if let Err(failure) = make(step, view) {
            if let (Some(undo), true) = (&plan.undo, index > 0) {
                // The first reason is the one to report.
                let _ = view.order(undo);
            }
            return Err(failure);
        }
    }
    Ok(())
}

/// Has a step done by the supervisor, or, what it knows no driver for, by a program.
fn make(step: &Request, view: &dyn View) -> Result<(), Failure> {
    match (step, view.ask(step)?) {
        (_, Reply::Done) => Ok(()),
        (Request::Mount { source, target, .. }, Reply::Served { programs, package, options, message }) => {
            let served =
                Served { programs: &programs, package: &package, options: &options, message: &message, source, target };
            served::serve(&served, view)
        }
        (_, other) => Err(unexpected(&other)),
    }
}

/// Plans as mount(8) does: attributes of a bind and propagation need calls of their own, mount(2).
fn plan(options: Options) -> Result<Plan, Failure> {
    let words = divide(&options);
    // "none" is what people write where a type is asked for and none is meant.
    let fstype = options.types.filter(|name| name != "none").map(OsString::into_vec).unwrap_or_default();
    let operation = words.flags & OPERATIONS;
    let remount = words.flags & libc::MS_REMOUNT != 0;
    let makes_nothing = operation == 0 && fstype.is_empty();

    let (source, target) = match (options.first, options.second) {
        (Some(source), Some(target)) => (Some(source), target),
        (Some(target), None) if remount || (makes_nothing && !words.propagation.is_empty()) => (None, target),
        (Some(only), None) => return Err(Failure::Usage(format!("{}: no target given", shown(only)))),
        (None, _) => return Err(Failure::Usage("no source and no target given".to_owned())),
    };
    let step = |source: Option<&OsString>, fstype: &[u8], flags, data: &[u8]| Request::Mount {
        source: source.map_or(b"none".to_vec(), |source| source.as_bytes().to_vec()),
        target: target.as_bytes().to_vec(),
        fstype: fstype.to_vec(),
        flags,
        data: data.to_vec(),
    };
    let mut plan = Plan { steps: Vec::new(), undo: None };
    let undo = Some(Request::Unmount { target: target.as_bytes().to_vec(), flags: 0 });
    if remount {
        plan.steps.push(step(source.as_ref(), b"", words.flags, &words.data));
    } else if operation != 0 {
        if operation == OPERATIONS {
            return Err(Failure::Usage(format!("{}: cannot both bind and move", shown(&target))));
        }
        // The kernel would ignore them silently, mount(2).
        if !words.data.is_empty() {
            let data = words.data.escape_ascii();
            return Err(Failure::Failed(format!("{data}: not an option of {}", name(operation))));
        }
        plan.steps.push(step(source.as_ref(), b"", words.flags & !ATTRIBUTES, b""));
        if words.flags & ATTRIBUTES != 0 {
            let flags = libc::MS_REMOUNT | libc::MS_BIND | (words.flags & ATTRIBUTES);
            plan.steps.push(step(None, b"", flags, b""));
        }
        plan.undo = undo.filter(|_| operation == libc::MS_BIND);
    } else if !fstype.is_empty() {
        plan.steps.push(step(source.as_ref(), &fstype, words.flags, &words.data));
        plan.undo = undo;
    } else if words.propagation.is_empty() {
        return Err(Failure::Usage(format!("{}: no type given: use -t", shown(source.unwrap_or_default()))));
    }
    plan.steps.extend(words.propagation.iter().map(|&flags| step(None, b"", flags, b"")));
    Ok(plan)
}

fn divide(options: &Options) -> Divided {
    let operations = match &options.types {
        Some(name) if name != "none" => Operations::OfType,
        _ => Operations::OfMount,
    };
    let mut words = Divided::default();
    for list in &options.options {
        words.add(list.as_bytes(), operations);
    }
    for (asked, word) in [
        (options.read_only, "ro"),
        (options.read_write, "rw"),
        (options.bind, "bind"),
        (options.move_tree, "move"),
        (options.rbind, "rbind"),
    ] {
        if asked {
            words.add(word.as_bytes(), Operations::OfMount);
        }
    }
    words
}

fn name(operation: u64) -> &'static str {
    match operation {
        libc::MS_MOVE => "a move",
        _ => "a bind",
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn planned(arguments: &[&str]) -> Result<Plan, Failure> {
        plan(Options::try_parse_from([&["vumount"], arguments].concat()).unwrap())
    }

    fn step(source: &str, fstype: &str, flags: u64, data: &str) -> Request {
        let bytes = |text: &str| text.as_bytes().to_vec();
        Request::Mount { source: bytes(source), target: b"t".to_vec(), fstype: bytes(fstype), flags, data: bytes(data) }
    }

    #[test]
    fn the_documented_cow_mount_is_one_request() {
        let plan = planned(&["-t", "viewfs", "-o", "cow", "up", "t"]).unwrap();
        assert_eq!(plan.steps, [step("up", "viewfs", 0, "cow")]);
    }

    #[test]
    fn a_read_only_bind_is_a_bind_and_a_remount() {
        let plan = planned(&["-r", "--bind", "s", "t"]).unwrap();
        let remount = libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY;
        assert_eq!(plan.steps, [step("s", "", libc::MS_BIND, ""), step("none", "", remount, "")]);
    }

    #[test]
    fn a_failing_second_step_takes_the_first_back() {
        let plan = planned(&["-r", "--bind", "s", "t"]).unwrap();
        let undone = RefCell::new(0);
        let view = |request: &Request| match request {
            Request::Mount { flags, .. } if flags & libc::MS_REMOUNT != 0 => {
                Err(Failure::Refused { message: "t: no".to_owned(), errno: 1 })
            }
            Request::Unmount { .. } => {
                *undone.borrow_mut() += 1;
                Ok(Reply::Done)
            }
            _ => Ok(Reply::Done),
        };
        assert_eq!(mount(&plan, &view).unwrap_err().to_string(), "t: no");
        assert_eq!(*undone.borrow(), 1);
    }

    #[test]
    fn remount_needs_only_the_target() {
        let plan = planned(&["-o", "remount,ro", "t"]).unwrap();
        assert_eq!(plan.steps, [step("none", "", libc::MS_REMOUNT | libc::MS_RDONLY, "")]);
        assert_eq!(plan.undo, None);
    }

    #[test]
    fn propagation_alone_needs_only_the_target() {
        let plan = planned(&["-o", "rprivate", "t"]).unwrap();
        assert_eq!(plan.steps, [step("none", "", libc::MS_PRIVATE | libc::MS_REC, "")]);
    }

    #[test]
    fn a_mount_without_a_type_says_so() {
        assert_eq!(planned(&["disk.img", "t"]).unwrap_err().to_string(), "disk.img: no type given: use -t");
    }

    #[test]
    fn a_bind_takes_no_options_of_a_type() {
        assert_eq!(planned(&["-B", "-o", "cow", "s", "t"]).unwrap_err().to_string(), "cow: not an option of a bind");
    }

    #[test]
    fn read_write_after_read_only_wins() {
        let plan = planned(&["-t", "tmpfs", "-r", "-w", "none", "t"]).unwrap();
        assert_eq!(plan.steps, [step("none", "tmpfs", 0, "")]);
    }
}
