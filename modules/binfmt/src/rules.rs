//! The rules of one mount, and its files: `register`, `status` and one for each rule. Follows `fs/binfmt_misc.c`;
//! knows nothing of how a rule is written.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;

use parking_lot::RwLock;
use umvu_interface::{
    Argv0, Caller, Errno, HeldProgram, IdentityOf, Program, ProgramClaim, ProgramDescriptor, Result, TextEntry,
    TextFiles, World,
};

use crate::rule::{Flag, Rule};

const STATUS: u64 = 2;
const REGISTER: u64 = 3;
const FIRST_RULE: u64 = 4;
/// More than anybody has formats; each is looked at whenever a program is executed.
const MOST: usize = 4096;

/// The rules of one mount.
pub(crate) struct Rules {
    /// Newest first, which is the order in which they are asked.
    entries: RwLock<Vec<Arc<Entry>>>,
    enabled: AtomicBool,
    next: AtomicU64,
    /// Only programs below this path are claimed.
    below: Option<Vec<u8>>,
}

struct Entry {
    number: u64,
    rule: Rule,
    enabled: AtomicBool,
    /// The interpreter, where the rule wants it opened when it is registered.
    held: Option<HeldProgram>,
}

impl Rules {
    /// Makes an empty list for all programs, or those below a path.
    pub(crate) fn new(below: Option<Vec<u8>>) -> Self {
        let next = AtomicU64::new(FIRST_RULE);
        Self { entries: RwLock::default(), enabled: AtomicBool::new(true), next, below }
    }

    /// Registers a rule: `bm_register_write`.
    ///
    /// # Errors
    /// - `EINVAL`: a field is wrong; the log says which.
    /// - those of opening the interpreter, for the flag `F`.
    /// - `ENAMETOOLONG`: the name is longer than 255 bytes.
    /// - `EEXIST`: there is a file of that name.
    /// - `ENOSPC`: too many rules.
    pub(crate) fn register(&self, text: &[u8], world: &dyn World) -> Result<()> {
        let rule = Rule::parse(text).map_err(|why| {
            let start = &text[..text.len().min(40)];
            tracing::warn!(rule = %start.escape_ascii(), "binfmt: not registered: {why}");
            Errno::INVAL
        })?;
        let held = match rule.flags.fix_binary {
            Flag::Absent => None,
            Flag::Given => Some(world.hold_program(&rule.interpreter).inspect_err(|errno| {
                let interpreter = rule.interpreter.escape_ascii().to_string();
                tracing::warn!(%interpreter, "binfmt: not registered: {}", umvu_interface::cause(*errno));
            })?),
        };
        if rule.name.len() > 255 {
            return Err(Errno::NAMETOOLONG);
        }
        let mut entries = self.entries.write();
        if matches!(&rule.name[..], b"register" | b"status") || entries.iter().any(|e| e.rule.name == rule.name) {
            return Err(Errno::EXIST);
        }
        if entries.len() >= MOST {
            return Err(Errno::NOSPC);
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        entries.insert(0, Arc::new(Entry { number, rule, enabled: AtomicBool::new(true), held }));
        Ok(())
    }

    fn find(&self, number: u64) -> Result<Arc<Entry>> {
        self.entries.read().iter().find(|entry| entry.number == number).cloned().ok_or(Errno::NOENT)
    }

    fn concerns(&self, program: &Program<'_>) -> bool {
        let Some(below) = &self.below else { return true };
        let inside = program.place.and_then(|place| place.strip_prefix(&below[..]));
        inside.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
    }
}

fn word(enabled: &AtomicBool) -> &'static str {
    if enabled.load(Ordering::Relaxed) {
        "enabled"
    } else {
        "disabled"
    }
}

/// What is written to an entry or to `status`.
enum Command {
    Nothing,
    Disable,
    Enable,
    Remove,
}

/// `parse_command`.
fn command(bytes: &[u8]) -> Result<Command> {
    if bytes.len() > 3 {
        return Err(Errno::INVAL);
    }
    match bytes.strip_suffix(b"\n").unwrap_or(bytes) {
        b"" if bytes.is_empty() => Ok(Command::Nothing),
        b"0" => Ok(Command::Disable),
        b"1" => Ok(Command::Enable),
        b"-1" => Ok(Command::Remove),
        _ => Err(Errno::INVAL),
    }
}

impl TextFiles for Rules {
    fn entries(&self) -> Vec<TextEntry> {
        let fixed = [(&b"register"[..], REGISTER, 0o200), (b"status", STATUS, 0o644)];
        let fixed = fixed.map(|(name, number, mode)| TextEntry { name: name.to_vec(), number, mode });
        let entries = self.entries.read();
        let of_rule = |e: &Arc<Entry>| TextEntry { name: e.rule.name.clone(), number: e.number, mode: 0o644 };
        fixed.into_iter().chain(entries.iter().map(of_rule)).collect()
    }

    fn content(&self, number: u64) -> Result<Vec<u8>> {
        match number {
            REGISTER => Ok(Vec::new()),
            STATUS => Ok(format!("{}\n", word(&self.enabled)).into_bytes()),
            number => {
                let entry = self.find(number)?;
                Ok(entry.rule.status(word(&entry.enabled)))
            }
        }
    }

    fn write(&self, number: u64, _: &Caller<'_>, bytes: &[u8], world: &dyn World) -> Result<usize> {
        if number == REGISTER {
            self.register(bytes, world)?;
            return Ok(bytes.len());
        }
        let done = match (number, command(bytes)?) {
            // What a rule is told whose file has been removed changes nothing any more, but is taken.
            (_, Command::Nothing) => 0,
            (STATUS, Command::Disable) => {
                self.enabled.store(false, Ordering::Relaxed);
                bytes.len()
            }
            (STATUS, Command::Enable) => {
                self.enabled.store(true, Ordering::Relaxed);
                bytes.len()
            }
            (STATUS, Command::Remove) => {
                self.entries.write().clear();
                bytes.len()
            }
            (number, Command::Remove) => {
                self.entries.write().retain(|entry| entry.number != number);
                bytes.len()
            }
            (number, Command::Disable) => {
                self.find(number).into_iter().for_each(|entry| entry.enabled.store(false, Ordering::Relaxed));
                bytes.len()
            }
            (number, Command::Enable) => {
                self.find(number).into_iter().for_each(|entry| entry.enabled.store(true, Ordering::Relaxed));
                bytes.len()
            }
        };
        Ok(done)
    }

    fn claims_programs(&self) -> bool {
        self.enabled.load(Ordering::Relaxed) && !self.entries.read().is_empty()
    }

    fn claim_program(&self, program: &Program<'_>) -> Option<ProgramClaim> {
        if !self.enabled.load(Ordering::Relaxed) || !self.concerns(program) {
            return None;
        }
        let entries = self.entries.read();
        let mut enabled = entries.iter().filter(|entry| entry.enabled.load(Ordering::Relaxed));
        let entry = enabled.find(|entry| entry.rule.is_for(program))?;
        let given = |flag: Flag| flag == Flag::Given;
        let flags = entry.rule.flags;
        Some(ProgramClaim {
            interpreter: entry.rule.interpreter.clone(),
            held: entry.held.clone(),
            argv0: if given(flags.preserve_argv0) { Argv0::Kept } else { Argv0::Dropped },
            descriptor: match given(flags.open_binary) {
                true => ProgramDescriptor::Given,
                false => ProgramDescriptor::None,
            },
            identity: if given(flags.credentials) { IdentityOf::Program } else { IdentityOf::Interpreter },
        })
    }
}
