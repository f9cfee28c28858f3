//! Runs the behaviours of one suite: as the test runner that Cargo starts, or, started again by
//! that runner with `--guest NAME`, as the guest program of one behaviour.
//!
//! Deliberately does not know how a place is entered (`place`) or a command is watched (`watch`).

use std::path::PathBuf;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

use crate::failures::Expectations;
use crate::fresh::FreshDir;
use crate::place::{has_namespaces, reaches_packages, Place, Umvu};
use crate::runner::Runner;

/// Where the body of a behaviour runs.
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)] // written by the `behaviours!` macro in the words of its callers
pub enum Body {
    /// The function is the guest program.
    in_guest(fn()),
    /// The function starts commands in the place.
    from_outside(fn(&Runner)),
}

/// A fact about programs, with the places in which it holds.
#[derive(Clone, Copy)]
pub struct Behaviour {
    /// The name of the function.
    pub name: &'static str,
    /// The places it is run in.
    pub places: &'static [Place],
    /// The function.
    pub body: Body,
    /// Says whether the machine has what it needs; it is skipped otherwise.
    pub needs: fn() -> bool,
}

/// Runs a suite and returns the exit code of its executable.
#[must_use]
pub fn main(suite: &'static str, behaviours: &[Behaviour]) -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|first| first == "--guest") {
        let name = args.next().unwrap_or_default();
        return run_as_guest(behaviours, &name.to_string_lossy());
    }
    let arguments = Arguments::from_args();
    if !arguments.list && nix::unistd::geteuid().is_root() {
        eprintln!(
            "umvu-tests: refuses to run as root: the facts tested are those of an ordinary user (see meta/check)"
        );
        return ExitCode::from(2);
    }
    let umvu = Umvu::find();
    let expectations = Expectations::of_suite(suite);
    let trials = behaviours
        .iter()
        .flat_map(|behaviour| {
            behaviour
                .places
                .iter()
                .map(|place| trial(suite, *behaviour, *place, &umvu, &expectations))
                .collect::<Vec<_>>()
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn run_as_guest(behaviours: &[Behaviour], name: &str) -> ExitCode {
    match behaviours.iter().find(|b| b.name == name).map(|b| b.body) {
        Some(Body::in_guest(body)) => {
            body();
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("umvu-tests: {name}: no such guest behaviour");
            ExitCode::from(2)
        }
    }
}

fn trial(suite: &'static str, behaviour: Behaviour, place: Place, umvu: &Umvu, expectations: &Expectations) -> Trial {
    let name = format!("{}::{}", behaviour.name, place.name());
    let expectation = expectations.of(&name);
    let ignored = match place {
        Place::Namespace | Place::User => !has_namespaces(),
        Place::Online => !reaches_packages(),
        _ => place.is_inside() && matches!(umvu, Umvu::NotWrittenYet),
    };
    let ignored = ignored || !(behaviour.needs)();
    Trial::test(name.clone(), move || expectation.judge(|| run(suite, behaviour, place, &name).map_err(Failed::from)))
        .with_ignored_flag(ignored)
}

fn run(suite: &str, behaviour: Behaviour, place: Place, name: &str) -> Result<(), String> {
    let fresh = FreshDir::new(&PathBuf::from(suite).join(name.replace("::", ".")));
    let runner = Runner::new(place, fresh);
    match behaviour.body {
        Body::from_outside(body) => body(&runner),
        Body::in_guest(_) => {
            let guest = std::env::current_exe().map_err(|e| format!("current_exe: {e}"))?;
            let finished = runner.run([guest.as_os_str(), "--guest".as_ref(), behaviour.name.as_ref()]);
            if !finished.status.success() {
                return Err(finished.to_string());
            }
            runner.assert_host_is_as_the_place_promises();
        }
    }
    runner.done();
    Ok(())
}
