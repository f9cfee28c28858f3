//! `cargo run --release -p umvu-tests --bin bench`: what a view costs, against the bare host and against
//! `proot -0`, everything interleaved, medians, as a table and as JSON.
//!
//! Build the release umvu first (`cargo build --release`). What is measured is in `workload`, how in `measure`.

mod calls;
mod images;
mod measure;
mod report;
mod subject;
mod workload;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use crate::report::Report;
use crate::subject::Subject;
use crate::workload::Workload;

/// Measures what a view costs.
#[derive(Parser)]
struct Options {
    /// Runs of each cell; the table shows medians
    #[arg(short, long, default_value_t = 5)]
    rounds: usize,
    /// Write the table as JSON too
    #[arg(short, long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Fail unless the bar is kept: nowhere slower than PRoot, without modules at most half of its CPU, and getppid,
    /// read and clock_gettime within 1.15 of native, or within 1.05 of a filter that allows everything
    #[arg(long)]
    check: bool,
    /// Measure in this tree of Debian, too, as its root: one with a compiler, which gets a directory /bench
    #[arg(short, long, value_name = "DIR")]
    tree: Option<PathBuf>,
    /// Measure images of file systems instead: as root, against the kernel's own drivers on a loop device and against
    /// FUSE servers, which are left out otherwise
    #[arg(long)]
    images: bool,
    /// Workloads to run, by a part of their name (default: all)
    #[arg(value_name = "WORKLOAD")]
    only: Vec<String>,
}

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|first| first == measure::HELPER) {
        return measure::helper(&args.collect::<Vec<OsString>>());
    }
    let options = Options::parse();
    match run(&options) {
        Ok(code) => code,
        Err(why) => {
            eprintln!("bench: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<ExitCode, String> {
    if options.images {
        let broken = images::run(options.rounds)?;
        broken.iter().for_each(|sentence| println!("not kept: {sentence}"));
        return Ok(if options.check && !broken.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS });
    }
    let subjects = Subject::all()?;
    let place = workload::Site::prepare()?;
    for subject in &subjects {
        measure::assert_orphans_are_counted(subject, &place)?;
    }
    let wanted = |name: &str| options.only.is_empty() || options.only.iter().any(|part| name.contains(part.as_str()));
    let mut report = Report::new(&subjects);
    for workload in Workload::all().into_iter().filter(|workload| wanted(workload.name)) {
        let able: Vec<_> = subjects.iter().copied().filter(|subject| workload.is_for(*subject)).collect();
        // One run that does not count, so that the first subject is not the one that fills the caches.
        measure::run(&able[0], &place, workload.script)?;
        for round in 0..options.rounds {
            for subject in in_turn(&able, round) {
                eprintln!("{} {}/{} {}", workload.name, round + 1, options.rounds, subject.name());
                report.add(workload.name, &subject, measure::run(&subject, &place, workload.script)?)?;
            }
        }
    }
    if let Some(tree) = &options.tree {
        place.prepare_tree(tree)?;
        for workload in Workload::all_in_a_tree().into_iter().filter(|workload| wanted(workload.name)) {
            let able: Vec<_> = subjects.iter().copied().filter(|s| s.command_line_in(tree, &[]).is_some()).collect();
            measure::run_in(tree, &able[0], &place, workload.script)?;
            for round in 0..options.rounds {
                for subject in in_turn(&able, round) {
                    eprintln!("{} {}/{} {}", workload.name, round + 1, options.rounds, subject.name());
                    report.add(workload.name, &subject, measure::run_in(tree, &subject, &place, workload.script)?)?;
                }
            }
        }
    }
    if wanted("calls") {
        for round in 0..options.rounds {
            for subject in in_turn(&subjects, round) {
                eprintln!("calls {}/{} {}", round + 1, options.rounds, subject.name());
                for (call, nanoseconds) in calls::run(&subject, &place)? {
                    report.add_call(&call, &subject, nanoseconds);
                }
            }
        }
    }
    print!("{}", report.table());
    if let Some(path) = &options.json {
        std::fs::write(path, report.json()).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    let broken = report.broken();
    for sentence in &broken {
        println!("not kept: {sentence}");
    }
    place.remove();
    Ok(if options.check && !broken.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Returns the subjects, each round beginning with another, so that none always follows the same one.
fn in_turn(subjects: &[Subject], round: usize) -> impl Iterator<Item = Subject> + '_ {
    (0..subjects.len()).map(move |turn| subjects[(turn + round) % subjects.len()])
}
