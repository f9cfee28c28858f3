//! vuname: names of system and view. Knows uname(2) and the name of the view, nothing else.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;

use clap::{ArgAction, Parser};
use umvu_protocol::{Reply, Request};

use crate::client::{unexpected, Supervisor, View};
use crate::report::{print, Failure};

/// Prints names of the system and of the view, or names the view.
///
/// Without options it prints the name of the kernel; with NAME alone it gives the view that name. Outside a view it
/// is uname(1).
#[derive(Debug, Parser)]
#[command(
    name = "vuname",
    version,
    disable_version_flag = true,
    override_usage = "vuname [OPTIONS]\n       vuname NAME"
)]
pub struct Options {
    /// Print all, in the order of these options, without -p and -i
    #[arg(short, long)]
    all: bool,
    /// Print the name of the kernel
    #[arg(short = 's', long)]
    kernel_name: bool,
    /// Print the host name
    #[arg(short, long)]
    nodename: bool,
    /// Print the release of the kernel
    #[arg(short = 'r', long)]
    kernel_release: bool,
    /// Print the version of the kernel
    #[arg(short = 'v', long)]
    kernel_version: bool,
    /// Print the hardware of the machine
    #[arg(short, long)]
    machine: bool,
    /// Print the processor, which is unknown
    #[arg(short, long)]
    processor: bool,
    /// Print the hardware platform, which is unknown
    #[arg(short = 'i', long)]
    hardware_platform: bool,
    /// Print the operating system
    #[arg(short, long)]
    operating_system: bool,
    /// Print the process id of the supervisor
    #[arg(short = 'U', long)]
    serverid: bool,
    /// Print the name of the view
    #[arg(short = 'V', long)]
    viewname: bool,
    /// Print a name for prompts: that of the view or, if it has none, HOST[SERVERID]; outside a view the host name
    #[arg(short = 'P', long)]
    prompt: bool,
    /// Fail outside a view, do not stand in for uname(1)
    #[arg(short = 'x', long)]
    nouname: bool,
    /// Print no error messages
    #[arg(short, long)]
    quiet: bool,
    /// Print version
    #[arg(long, action = ArgAction::Version)]
    version: (),
    /// New name of the view
    #[arg(value_name = "NAME", exclusive = true)]
    name: Option<OsString>,
}

/// Does what the command line says.
///
/// # Errors
/// No view, where one is needed; the supervisor refuses the name.
pub fn run(options: Options) -> Result<ExitCode, Failure> {
    match answer(&options) {
        Err(failure) if options.quiet => Ok(ExitCode::from(failure.status())),
        Err(failure) => Err(failure),
        Ok(line) => print(&line).map(|()| ExitCode::SUCCESS),
    }
}

fn answer(options: &Options) -> Result<Vec<u8>, Failure> {
    let supervisor = Supervisor::connect();
    if let Some(name) = &options.name {
        supervisor?.order(&Request::SetName { name: name.clone().into_vec() })?;
        return Ok(Vec::new());
    }
    let view = match supervisor {
        Ok(view) => Some(ViewNames::ask(&view)?),
        Err(Failure::OutsideView) if !options.nouname && !options.serverid && !options.viewname => None,
        Err(failure) => return Err(failure),
    };
    let names = rustix::system::uname();
    let system = SystemNames {
        kernel: names.sysname().to_bytes().to_vec(),
        node: names.nodename().to_bytes().to_vec(),
        release: names.release().to_bytes().to_vec(),
        version: names.version().to_bytes().to_vec(),
        machine: names.machine().to_bytes().to_vec(),
    };
    let mut line = line(options, &system, view.as_ref());
    line.push(b'\n');
    Ok(line)
}

/// What uname(2) says.
struct SystemNames {
    kernel: Vec<u8>,
    node: Vec<u8>,
    release: Vec<u8>,
    version: Vec<u8>,
    machine: Vec<u8>,
}

/// What the supervisor says.
struct ViewNames {
    name: Vec<u8>,
    server: Vec<u8>,
}

impl ViewNames {
    fn ask(view: &dyn View) -> Result<Self, Failure> {
        match view.ask(&Request::GetName)? {
            Reply::Name { name, supervisor, .. } => Ok(Self { name, server: supervisor.to_string().into_bytes() }),
            other => Err(unexpected(&other)),
        }
    }
}

fn line(options: &Options, system: &SystemNames, view: Option<&ViewNames>) -> Vec<u8> {
    if options.prompt {
        return prompt(system, view);
    }
    let operating_system: &[u8] = if view.is_some() { b"GNU/Linux/VUOS" } else { b"GNU/Linux" };
    let mut words: Vec<&[u8]> = Vec::new();
    for (asked, word) in [
        (options.kernel_name || options.all, system.kernel.as_slice()),
        (options.nodename || options.all, &system.node),
        (options.kernel_release || options.all, &system.release),
        (options.kernel_version || options.all, &system.version),
        (options.machine || options.all, &system.machine),
        (options.processor, b"unknown"),
        (options.hardware_platform, b"unknown"),
        (options.operating_system || options.all, operating_system),
    ] {
        if asked {
            words.push(word);
        }
    }
    if let Some(view) = view {
        for (asked, word) in [(options.serverid, &view.server), (options.viewname, &view.name)] {
            if asked || options.all {
                words.push(word);
            }
        }
    }
    if words.is_empty() {
        words.push(&system.kernel);
    }
    words.join(&b' ')
}

fn prompt(system: &SystemNames, view: Option<&ViewNames>) -> Vec<u8> {
    match view {
        None => system.node.clone(),
        Some(view) if view.name.is_empty() => [&system.node, b"[".as_slice(), &view.server, b"]"].concat(),
        Some(view) => view.name.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(arguments: &[&str], view: Option<&str>) -> String {
        let system = SystemNames {
            kernel: b"Linux".to_vec(),
            node: b"host".to_vec(),
            release: b"6.1".to_vec(),
            version: b"#1".to_vec(),
            machine: b"x86_64".to_vec(),
        };
        let view = view.map(|name| ViewNames { name: name.as_bytes().to_vec(), server: b"42".to_vec() });
        let options = Options::try_parse_from([&["vuname"], arguments].concat()).unwrap();
        String::from_utf8(line(&options, &system, view.as_ref())).unwrap()
    }

    #[test]
    fn all_leaves_out_what_is_unknown_and_the_view_where_there_is_none() {
        assert_eq!(said(&["-a"], None), "Linux host 6.1 #1 x86_64 GNU/Linux");
        assert_eq!(said(&["-a"], Some("work")), "Linux host 6.1 #1 x86_64 GNU/Linux/VUOS 42 work");
    }

    #[test]
    fn words_come_in_the_order_of_uname() {
        assert_eq!(said(&["-mps"], None), "Linux x86_64 unknown");
        assert_eq!(said(&[], None), "Linux");
    }

    #[test]
    fn a_prompt_is_the_name_or_the_server() {
        assert_eq!(said(&["-P"], None), "host");
        assert_eq!(said(&["-P"], Some("work")), "work");
        assert_eq!(said(&["-P"], Some("")), "host[42]");
    }
}
