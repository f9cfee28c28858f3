//! The page of calls, `meta/syscalls.md`: what a view does with each call of the kernel.
//!
//! It does not know more than the rows say.

use crate::trace::errno_name;
use crate::{Condition, Kind, Row, Tier, ROWS};

const HEAD: &str = "# System calls

Every system call of Linux on x86_64 and what a view does with it. This page is generated from the table in
`core/table/src/rows.rs`; do not edit it.

- **native**: the kernel runs the call, the supervisor never sees it.
- **notified**: the supervisor answers the call from the caller's view; the note names the file of its handler and, where
  only some calls are notified, which ones. The others are native.
- **refused**: the call fails with the error given, for the reason given.

Calls by `int 0x80` (i386) and calls of the x32 ABI are refused.
";

/// Renders the page.
pub fn page() -> String {
    let count = |wanted: fn(&Tier) -> bool| ROWS.iter().filter(|row| wanted(&row.tier)).count();
    let mut page = format!(
        "{HEAD}\n{} calls: {} native, {} notified, {} refused.\n\n| number | name | arguments | tier | note |\n|---|---|---|---|---|\n",
        ROWS.len(),
        count(|tier| matches!(tier, Tier::Allow)),
        count(|tier| matches!(tier, Tier::Notify(_))),
        count(|tier| matches!(tier, Tier::Refuse(..))),
    );
    for row in ROWS {
        page.push_str(&line(row));
    }
    page
}

fn line(row: &Row) -> String {
    let arguments: Vec<_> = row.arguments.iter().map(|(name, kind)| format!("{name}: {}", kind_name(*kind))).collect();
    let (tier, mut notes) = match row.tier {
        Tier::Allow => ("native", Vec::new()),
        Tier::Notify(condition) => {
            let mut notes = vec![format!("`handlers/{}`", row.family.unwrap_or_default())];
            notes.extend(condition_text(row, condition));
            ("notified", notes)
        }
        Tier::Refuse(errno, reason) => {
            let name = errno_name(errno).map_or_else(|| errno.to_string(), str::to_owned);
            ("refused", vec![format!("{name}: {reason}")])
        }
    };
    if !matches!(row.tier, Tier::Refuse(..)) {
        notes.extend(row.note.map(str::to_owned));
    }
    format!("| {} | {} | {} | {tier} | {} |\n", row.number, row.name, arguments.join(", "), notes.join("; "))
}

fn kind_name(kind: Kind) -> String {
    format!("{kind:?}")
}

/// Says in words which calls are notified, or `None` if all are.
fn condition_text(row: &Row, condition: Condition) -> Option<String> {
    let name = |index: u8| row.arguments.get(usize::from(index)).map_or("?", |(name, _)| name);
    match condition {
        Condition::Always => None,
        Condition::NonNull(index) => Some(format!("if {} is not null", name(index))),
        Condition::In(index, values) => {
            let values: Vec<_> = values.iter().map(u64::to_string).collect();
            Some(format!("if {} is one of {}", name(index), values.join(", ")))
        }
        Condition::AnyBits(index, mask) => Some(format!("if {} has any bit of {mask:#x}", name(index))),
    }
}
