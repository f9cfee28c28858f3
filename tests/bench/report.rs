//! Medians of all runs, as a table for people and as JSON for programs, and whether the bar is kept.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::measure::Run;
use crate::subject::Subject;

/// Calls that a view must leave alone.
const NATIVE_CALLS: [&str; 3] = ["getppid", "read 4k", "clock_gettime"];

/// Everything measured.
pub struct Report {
    subjects: Vec<Subject>,
    /// In the order of the first run; each with its runs by subject.
    rows: Vec<(String, BTreeMap<Subject, Cell>)>,
    calls: Vec<(String, BTreeMap<Subject, Vec<f64>>)>,
    output: BTreeMap<String, String>,
}

#[derive(Default)]
struct Cell {
    wall: Vec<f64>,
    cpu: Vec<f64>,
}

impl Report {
    /// Starts with nothing.
    #[must_use]
    pub fn new(subjects: &[Subject]) -> Self {
        Self { subjects: subjects.to_vec(), rows: Vec::new(), calls: Vec::new(), output: BTreeMap::new() }
    }

    /// Adds a run of a workload.
    ///
    /// # Errors
    ///
    /// A sentence, when it printed something else than the runs before it.
    pub fn add(&mut self, workload: &str, subject: &Subject, run: Run) -> Result<(), String> {
        let first = self.output.entry(workload.to_owned()).or_insert_with(|| run.output.clone());
        if *first != run.output && !nearly(first, &run.output) {
            return Err(format!("{workload}: {} says {:?}, not {first:?}", subject.name(), run.output));
        }
        let cell = row(&mut self.rows, workload).entry(*subject).or_default();
        cell.wall.push(run.wall.as_secs_f64() * 1e3);
        cell.cpu.push(run.cpu.as_secs_f64() * 1e3);
        Ok(())
    }

    /// Adds a measurement of a call.
    pub fn add_call(&mut self, call: &str, subject: &Subject, nanoseconds: f64) {
        row(&mut self.calls, call).entry(*subject).or_default().push(nanoseconds);
    }

    /// Returns the table: absolute for native, as a multiple of native for the others.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = format!("{:<16}", "CPU / wall");
        for subject in &self.subjects {
            let _ = write!(text, "{:>22}", subject.name());
        }
        text.push('\n');
        for (name, cells) in &self.rows {
            let _ = write!(text, "{name:<16}");
            for subject in &self.subjects {
                let shown = match (cells.get(subject), cells.get(&Subject::Native)) {
                    (Some(cell), Some(native)) if *subject != Subject::Native => format!(
                        "{:.2} / {:.2}",
                        median(&cell.cpu) / median(&native.cpu),
                        median(&cell.wall) / median(&native.wall)
                    ),
                    (Some(cell), _) => format!("{:.0} / {:.0} ms", median(&cell.cpu), median(&cell.wall)),
                    (None, _) => "-".to_owned(),
                };
                let _ = write!(text, "{shown:>22}");
            }
            text.push('\n');
        }
        for (name, cells) in &self.calls {
            let _ = write!(text, "{name:<16}");
            for subject in &self.subjects {
                let shown = cells.get(subject).map_or("-".to_owned(), |cell| format!("{:.0} ns", median(cell)));
                let _ = write!(text, "{shown:>22}");
            }
            text.push('\n');
        }
        text
    }

    /// Returns `{"workloads": {NAME: {SUBJECT: {"cpu_ms", "wall_ms"}}}, "calls": {NAME: {SUBJECT: ns}}}`.
    #[must_use]
    pub fn json(&self) -> String {
        // All names are ours, plain ASCII without quotes.
        let workloads = self.rows.iter().map(|(name, cells)| {
            let cells = cells.iter().map(|(subject, cell)| {
                let (cpu, wall) = (median(&cell.cpu), median(&cell.wall));
                format!("\"{}\": {{\"cpu_ms\": {cpu:.3}, \"wall_ms\": {wall:.3}}}", subject.name())
            });
            format!("    \"{name}\": {{{}}}", cells.collect::<Vec<_>>().join(", "))
        });
        let calls = self.calls.iter().map(|(name, cells)| {
            let cells = cells.iter().map(|(subject, cell)| format!("\"{}\": {:.1}", subject.name(), median(cell)));
            format!("    \"{name}\": {{{}}}", cells.collect::<Vec<_>>().join(", "))
        });
        format!(
            "{{\n  \"workloads\": {{\n{}\n  }},\n  \"calls\": {{\n{}\n  }}\n}}\n",
            workloads.collect::<Vec<_>>().join(",\n"),
            calls.collect::<Vec<_>>().join(",\n")
        )
    }

    /// Returns a sentence for each cell in which the bar is not kept.
    #[must_use]
    pub fn broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        for (name, cells) in &self.rows {
            let Some(proot) = cells.get(&Subject::Proot) else { continue };
            for subject in [Subject::Plain, Subject::CowRoot] {
                let Some(cell) = cells.get(&subject) else { continue };
                let half = if subject == Subject::Plain { 0.5 } else { 1.0 };
                for (what, ours, theirs) in [
                    ("CPU", median(&cell.cpu), median(&proot.cpu) * half),
                    ("wall", median(&cell.wall), median(&proot.wall)),
                ] {
                    if ours > theirs {
                        broken.push(format!("{name}: {}: {what} {ours:.0} ms, bar {theirs:.0} ms", subject.name()));
                    }
                }
            }
        }
        for (name, cells) in &self.calls {
            let Some(native) = cells.get(&Subject::Native) else { continue };
            for subject in [Subject::Plain, Subject::CowRoot] {
                let Some(cell) = cells.get(&subject) else { continue };
                // Every filter costs the kernel the same 30 ns a call, which is more than 0.15 of the shortest calls.
                let least = cells.get(&Subject::Filter).map_or(0.0, |cell| median(cell) * 1.05);
                let (ours, bar) = (median(cell), (median(native) * 1.15).max(least));
                if NATIVE_CALLS.contains(&name.as_str()) {
                    if ours > bar {
                        broken.push(format!("{name}: {}: {ours:.0} ns, bar {bar:.0} ns", subject.name()));
                    }
                } else if let Some(proot) =
                    cells.get(&Subject::Proot).map(|cell| median(cell)).filter(|proot| ours > *proot)
                {
                    broken.push(format!("{name}: {}: {ours:.0} ns, proot {proot:.0} ns", subject.name()));
                }
            }
        }
        broken
    }
}

fn row<'a, T: Default>(rows: &'a mut Vec<(String, T)>, name: &str) -> &'a mut T {
    let at = rows.iter().position(|(of, _)| of == name).unwrap_or_else(|| {
        rows.push((name.to_owned(), T::default()));
        rows.len() - 1
    });
    &mut rows[at].1
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
/// Whether two outputs are counts within a thousandth: a root sees the directories that an ordinary user may not
/// list, as empty ones.
fn nearly(one: &str, other: &str) -> bool {
    let (Ok(one), Ok(other)) = (one.trim().parse::<u64>(), other.trim().parse::<u64>()) else { return false };
    one.abs_diff(other) <= one.max(other) / 1000
}
