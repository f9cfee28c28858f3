//! The price of single system calls, measured by the guest itself (`programs/percall.c`).

use umvu_tests::program;

use crate::measure::run_line;
use crate::subject::Subject;
use crate::workload::Site;

/// Returns nanoseconds per call, by name.
///
/// # Errors
///
/// A sentence, when the program fails.
pub fn run(subject: &Subject, site: &Site) -> Result<Vec<(String, f64)>, String> {
    let run = run_line(subject, site, &[program("percall").into_os_string()])?;
    run.output
        .lines()
        .filter(|line| !line.is_empty())
        .map(|line| {
            let (name, nanoseconds) = line.rsplit_once(' ').ok_or_else(|| format!("percall: {line}"))?;
            Ok((name.to_owned(), nanoseconds.parse().map_err(|e| format!("percall: {line}: {e}"))?))
        })
        .collect()
}
