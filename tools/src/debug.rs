//! vudebug: switches tags of the view's log. Which tags there are is the supervisor's business.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode};

use clap::Parser;
use nix::sys::signal::{SigSet, Signal};
use umvu_protocol::{Reply, Request, TagInfo};

use crate::client::{unexpected, Supervisor, View};
use crate::program::cannot_execute;
use crate::report::{print, shown, Failure};

/// Switches tags of the view's log on and off, or tells which are on.
///
/// Works only inside a view, see umvu(1). A tag is one letter: "+s" switches it on, "-s" switches it off, "?" lists
/// all. A sign without letters means all tags. With COMMAND, the tags are switched while it runs and switched back
/// after it; the log is that of the view, so other processes of the view appear in it as well.
#[derive(Debug, Parser)]
#[command(name = "vudebug", version, disable_version_flag = true, disable_help_flag = true)]
#[command(
    override_usage = "vudebug [+TAGS|-TAGS|?TAGS]...\n       vudebug {+TAGS|-TAGS|?TAGS}... -- COMMAND [ARGUMENT...]"
)]
pub struct Options {
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// Print version
    #[arg(long, action = clap::ArgAction::Version)]
    version: (),
    /// Tags to switch on, switch off, or ask about; after "--" a command
    #[arg(value_name = "+TAGS|-TAGS|?TAGS", allow_hyphen_values = true, trailing_var_arg = true)]
    words: Vec<OsString>,
}

/// Does what the command line says.
///
/// # Errors
/// No view; a tag that does not exist; the command cannot be executed.
pub fn run(options: Options) -> Result<ExitCode, Failure> {
    let view = Supervisor::connect()?;
    let (words, command) = divide(&options.words);
    let tags = tags(&view)?;
    let changes = Changes::of(words, &tags)?;
    print(changes.listing(&tags, words.is_empty() && command.is_empty()).as_bytes())?;
    switch(&view, &changes.add, &changes.remove)?;
    let Some((program, arguments)) = command.split_first() else { return Ok(ExitCode::SUCCESS) };

    // A signal typed at the terminal ends the command, not us: the tags must be switched back. What std starts has
    // its own, empty mask.
    let interrupts = SigSet::from_iter([Signal::SIGINT, Signal::SIGQUIT]);
    interrupts.thread_block().map_err(|errno| Failure::of("signal mask", errno))?;
    let ended = Command::new(program).args(arguments).status();
    let was_on = |letter: &u8| tags.iter().any(|tag| tag.tag == *letter && tag.on);
    let switched_on: Vec<u8> = changes.add.iter().copied().filter(|letter| !was_on(letter)).collect();
    let switched_off: Vec<u8> = changes.remove.iter().copied().filter(was_on).collect();
    switch(&view, &switched_off, &switched_on)?;
    let status = ended.map_err(|error| cannot_execute(program, &error))?;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
}

/// Divides the operands at the first "--"; tags may look like options, so clap cannot.
fn divide(operands: &[OsString]) -> (&[OsString], &[OsString]) {
    match operands.iter().position(|word| word == "--") {
        Some(at) => (&operands[..at], &operands[at + 1..]),
        None => (operands, &[]),
    }
}

fn tags(view: &dyn View) -> Result<Vec<TagInfo>, Failure> {
    match view.ask(&Request::DebugTags)? {
        Reply::Tags(tags) => Ok(tags),
        other => Err(unexpected(&other)),
    }
}

fn switch(view: &dyn View, add: &[u8], remove: &[u8]) -> Result<(), Failure> {
    if add.is_empty() && remove.is_empty() {
        return Ok(());
    }
    view.order(&Request::Debug { add: add.to_vec(), remove: remove.to_vec() })
}

/// What is to be done, each a list of letters.
#[derive(Debug, Default, PartialEq, Eq)]
struct Changes {
    add: Vec<u8>,
    remove: Vec<u8>,
    ask: Vec<u8>,
}

impl Changes {
    fn of(words: &[OsString], tags: &[TagInfo]) -> Result<Self, Failure> {
        let mut changes = Self::default();
        for word in words {
            let Some((sign, letters)) = word.as_bytes().split_first() else { continue };
            if !b"+-?".contains(sign) {
                return Err(Failure::Usage(format!("{}: does not begin with '+', '-' or '?'", shown(word))));
            }
            let letters = match letters {
                [] => tags.iter().map(|tag| tag.tag).collect(),
                given => given.to_vec(),
            };
            if letters.contains(&b':') {
                return Err(Failure::Usage(format!("{}: colours are not supported", shown(word))));
            }
            if let Some(unknown) = letters.iter().find(|letter| !tags.iter().any(|tag| tag.tag == **letter)) {
                return Err(Failure::Failed(format!("{}: no such tag", unknown.escape_ascii())));
            }
            changes.add.retain(|letter| !letters.contains(letter) || *sign == b'?');
            changes.remove.retain(|letter| !letters.contains(letter) || *sign == b'?');
            match sign {
                b'+' => changes.add.extend(letters),
                b'-' => changes.remove.extend(letters),
                _ => changes.ask.extend(letters),
            }
        }
        Ok(changes)
    }

    /// Shows the tags asked about, or all when nothing at all was asked for.
    fn listing(&self, tags: &[TagInfo], all: bool) -> String {
        let asked = tags.iter().filter(|tag| all || self.ask.contains(&tag.tag));
        let line = |tag: &TagInfo| {
            let letter = char::from(tag.tag);
            format!("{letter} {}   {}\n", if tag.on { '+' } else { '-' }, tag.summary)
        };
        asked.map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Vec<TagInfo> {
        let tag = |tag, on| TagInfo { tag, summary: "shows".to_owned(), on };
        vec![tag(b'p', true), tag(b's', false)]
    }

    fn changes(arguments: &[&str]) -> Result<Changes, Failure> {
        let options = Options::try_parse_from([&["vudebug"], arguments].concat()).unwrap();
        Changes::of(&options.words, &known())
    }

    #[test]
    fn signs_alone_mean_all_tags() {
        assert_eq!(changes(&["-"]).unwrap().remove, b"ps");
        assert_eq!(changes(&["+"]).unwrap().add, b"ps");
    }

    #[test]
    fn the_last_word_on_a_tag_wins() {
        let changes = changes(&["+ps", "-p", "?s"]).unwrap();
        assert_eq!((changes.add.as_slice(), changes.remove.as_slice()), (b"s".as_slice(), b"p".as_slice()));
        assert_eq!(changes.listing(&known(), false), "s -   shows\n");
    }

    #[test]
    fn an_unknown_tag_is_named() {
        assert_eq!(changes(&["+z"]).unwrap_err().to_string(), "z: no such tag");
        assert_eq!(changes(&["p"]).unwrap_err().to_string(), "p: does not begin with '+', '-' or '?'");
    }

    #[test]
    fn a_command_keeps_its_own_options() {
        for arguments in [&["+s", "--", "ls", "-l", "--help"][..], &["-s", "--", "ls", "--", "--help"]] {
            let options = Options::try_parse_from([&["vudebug"], arguments].concat()).unwrap();
            let (words, command) = divide(&options.words);
            assert_eq!((words.len(), command.len()), (1, 3));
        }
    }
}
