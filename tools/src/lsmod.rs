//! vu_lsmod: lists modules of the caller's view. Knows no module.

use std::process::ExitCode;

use clap::Parser;
use umvu_protocol::{ModuleInfo, Reply, Request};

use crate::client::{unexpected, Supervisor, View};
use crate::report::{print, Failure};

/// Lists the modules of the view of the caller.
///
/// Works only inside a view, see umvu(1). Each line is a name and what the module is for.
#[derive(Debug, Parser)]
#[command(name = "vu_lsmod", version)]
pub struct Options {
    /// List also the modules that could be loaded
    #[arg(short, long)]
    all: bool,
    /// Show the state of each module, the number of mounts that use it, and its other names
    #[arg(short, long)]
    long: bool,
    /// List only these; it is an error if one of them is not listed
    #[arg(value_name = "MODULE")]
    modules: Vec<String>,
}

/// Does what the command line says.
///
/// # Errors
/// No view; a module asked for that is not loaded, or with `--all` not known.
pub fn run(options: Options) -> Result<ExitCode, Failure> {
    print(list(&options, &Supervisor::connect()?)?.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn list(options: &Options, view: &dyn View) -> Result<String, Failure> {
    let modules = match view.ask(&Request::List)? {
        Reply::Modules(modules) => modules,
        other => return Err(unexpected(&other)),
    };
    let listed: Vec<&ModuleInfo> = modules.iter().filter(|module| options.all || module.loaded).collect();
    let named = |name: &String| {
        let missing = if options.all { "no such module" } else { "not loaded" };
        listed
            .iter()
            .copied()
            .find(|module| module.name == *name || module.aliases.contains(name))
            .ok_or_else(|| Failure::Failed(format!("{name}: {missing}")))
    };
    let listed = match options.modules.as_slice() {
        [] => listed,
        names => names.iter().map(named).collect::<Result<_, _>>()?,
    };
    Ok(listed.into_iter().map(|module| line(module, options)).collect())
}

fn line(module: &ModuleInfo, options: &Options) -> String {
    let ModuleInfo { name, summary, .. } = module;
    if !options.long {
        return format!("{name}: {summary}\n");
    }
    let state = match (module.loaded, module.permanent) {
        (false, _) => "-",
        (true, false) => "loaded",
        (true, true) => "permanent",
    };
    let aliases = if module.aliases.is_empty() { "-".to_owned() } else { module.aliases.join(",") };
    format!("{name}: {state} {} {aliases} {summary}\n", module.users)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(_: &Request) -> Result<Reply, Failure> {
        let module = |name: &str, loaded| ModuleInfo {
            name: name.to_owned(),
            summary: "does things".to_owned(),
            aliases: vec![format!("vu{name}")],
            loaded,
            permanent: loaded,
            users: 0,
        };
        Ok(Reply::Modules(vec![module("one", true), module("two", false)]))
    }

    fn listed(arguments: &[&str]) -> Result<String, Failure> {
        list(&Options::parse_from([&["vu_lsmod"], arguments].concat()), &view)
    }

    #[test]
    fn only_loaded_modules_are_listed_unless_all_are_asked_for() {
        assert_eq!(listed(&[]).unwrap(), "one: does things\n");
        assert_eq!(listed(&["-a"]).unwrap(), "one: does things\ntwo: does things\n");
    }

    #[test]
    fn a_module_is_found_by_its_other_name() {
        assert_eq!(listed(&["-l", "vuone"]).unwrap(), "one: permanent 0 vuone does things\n");
    }

    #[test]
    fn a_module_that_is_not_loaded_is_an_error() {
        assert_eq!(listed(&["two"]).unwrap_err().to_string(), "two: not loaded");
    }
}
