//! The page of calls, `meta/syscalls.md`: what a view does with each call of the kernel.
//!
//! It does not know more than the rows say.

use crate::i386::{self, Form, Meaning, Word};
use crate::trace::errno_name;
use crate::{Condition, Kind, Row, Tier, ROWS};

const HEAD: &str = "# System calls

Every system call of Linux on x86_64 and what a view does with it. This page is generated from the tables in
`core/table/src/rows.rs` and `core/table/src/i386/rows.rs`; do not edit it.

- **native**: the kernel runs the call, the supervisor never sees it.
- **notified**: the supervisor answers the call from the caller's view; the note names the file of its handler and, where
  only some calls are notified, which ones. The others are native.
- **numbered**: notified in views that are started with `--pid-namespaces`, native in all others.
- **refused**: the call fails with the error given, for the reason given.

Calls of 32-bit programs (`int 0x80`) stand at the end. Calls of the x32 ABI are refused with ENOSYS.
";

const I386_HEAD: &str = "
## Calls of 32-bit programs

Most are a call of the table above, which says what becomes of them; the form is the generation of its structures and numbers:

- **first**: `struct __old_kernel_stat` and the like, as in the first Linux.
- **narrow**: 16-bit ids, and sizes, offsets and times of 32 bits.
- **wide**: 32-bit ids, and 64 bits where the kernel has a form with them.

The arguments are the words in their order, unless they are listed: `1:2` is one number in two words.

| number | name | is | form | note |
|---|---|---|---|---|
";

/// Renders the page.
pub fn page() -> String {
    let count = |wanted: fn(&Tier) -> bool| ROWS.iter().filter(|row| wanted(&row.tier)).count();
    let mut page = format!(
        "{HEAD}\n{} calls: {} native, {} notified, {} numbered, {} refused.\n\n| number | name | arguments | tier | note |\n|---|---|---|---|---|\n",
        ROWS.len(),
        count(|tier| matches!(tier, Tier::Allow)),
        count(|tier| matches!(tier, Tier::Notify(_))),
        count(|tier| matches!(tier, Tier::Number)),
        count(|tier| matches!(tier, Tier::Refuse(..))),
    );
    for row in ROWS {
        page.push_str(&line(row));
    }
    page.push_str(I386_HEAD);
    for row in i386::ROWS {
        page.push_str(&i386_line(row));
    }
    page
}

fn i386_line(row: &i386::Row) -> String {
    let note = row.note.unwrap_or_default();
    let (is, form, note) = match row.meaning {
        Meaning::Native => ("native".to_owned(), "", note.to_owned()),
        Meaning::Refused(errno) => ("refused".to_owned(), "", refusal(errno, note)),
        Meaning::Call { name, form, words } => {
            (format!("`{name}`{}", words_text(words)), form_name(form), note.to_owned())
        }
        Meaning::Multiplexed(calls) => {
            let listed: Vec<_> = calls.iter().map(|(value, name)| format!("{value} `{name}`")).collect();
            (
                "one of several".to_owned(),
                "wide",
                format!("by the first word: {}; others are native", listed.join(", ")),
            )
        }
    };
    format!("| {} | {} | {is} | {form} | {note} |\n", row.number, row.name)
}

fn words_text(words: Option<&[Word]>) -> String {
    let Some(words) = words else { return String::new() };
    let listed: Vec<_> = words
        .iter()
        .map(|word| match word {
            Word::One(at) => at.to_string(),
            Word::Two(low, high) => format!("{low}:{high}"),
        })
        .collect();
    format!(" ({})", listed.join(", "))
}

fn form_name(form: Form) -> &'static str {
    match form {
        Form::First => "first",
        Form::Narrow => "narrow",
        Form::Wide => "wide",
    }
}

fn refusal(errno: i32, reason: &str) -> String {
    let name = errno_name(errno).map_or_else(|| errno.to_string(), str::to_owned);
    format!("{name}: {reason}")
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
        Tier::Number => ("numbered", vec![format!("`handlers/{}`", row.family.unwrap_or_default())]),
        Tier::Refuse(errno, reason) => ("refused", vec![refusal(errno, reason)]),
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
