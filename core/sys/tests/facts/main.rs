//! Facts about the kernel interfaces of this crate, each checked on a real guest.
//!
//! The runner has one thread and forks a process for each fact, because a fact forks guests. It understands a part
//! of a name to select facts, and ignores the options of the usual test runner.

mod file;
mod guest;
mod memory;
mod process;
mod redirect;
mod seccomp;
mod tracer;

use std::panic::catch_unwind;
use std::process::ExitCode;

use rustix::process::{waitpid, Pid, WaitOptions};
use umvu_sys::process::{exit_now, fork, Forked};

/// After so many seconds a fact counts as wrong.
const PATIENCE: u32 = 30;

/// A name, and the check that panics if the fact does not hold.
type Fact = (&'static str, fn());

/// Lists functions of a module with their names.
macro_rules! facts {
    ($($name:ident),* $(,)?) => {
        pub const FACTS: &[crate::Fact] = &[$((stringify!($name), $name as fn())),*];
    };
}
use facts;

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let all = [seccomp::FACTS, memory::FACTS, file::FACTS, process::FACTS, redirect::FACTS, tracer::FACTS].concat();
    let chosen = all.iter().filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|part| name.contains(part)));
    let mut wrong = 0;
    for (name, check) in chosen {
        let holds = run(*check);
        println!("fact {name} ... {}", if holds { "ok" } else { "WRONG" });
        wrong += u32::from(!holds);
    }
    if wrong == 0 {
        ExitCode::SUCCESS
    } else {
        println!("{wrong} facts are wrong");
        ExitCode::FAILURE
    }
}

fn run(check: fn()) -> bool {
    match fork().expect("the runner has one thread") {
        Forked::Child => {
            nix::unistd::alarm::set(PATIENCE);
            exit_now(i32::from(catch_unwind(check).is_err()))
        }
        Forked::Parent(pid) => {
            let pid = Pid::from_raw(i32::try_from(pid).unwrap());
            let (_, status) = waitpid(pid, WaitOptions::empty()).unwrap().unwrap();
            status.exit_status() == Some(0)
        }
    }
}
