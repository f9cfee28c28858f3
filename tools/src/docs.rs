//! umvu-docs: writes the man pages and shell completions of all tools, from the definitions of their command lines.
//! Knows no tool but by that definition.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Command, CommandFactory, Parser, ValueHint};
use clap_complete::Shell;
use clap_mangen::Man;

use crate::report::{shown, Failure};
use crate::{debug, insmod, launch, lsmod, mount, rmmod, su, uname, unmount};

/// Writes the man pages and shell completions of umvu and its tools below a directory.
///
/// The files go where a system looks for them below a prefix: share/man/man1, share/bash-completion/completions,
/// share/zsh/site-functions and share/fish/vendor_completions.d. Existing ones are replaced.
#[derive(Debug, Parser)]
#[command(name = "umvu-docs", version)]
pub struct Options {
    /// Prefix, for instance /usr/local
    #[arg(value_name = "DIRECTORY", value_hint = ValueHint::DirPath)]
    prefix: PathBuf,
}

/// Does what the command line says.
///
/// # Errors
/// A directory cannot be made, or a file cannot be written.
pub fn run(options: Options) -> Result<ExitCode, Failure> {
    for tool in tools() {
        write_tool(&options.prefix, tool)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Lists the command lines of all tools.
fn tools() -> Vec<Command> {
    vec![
        launch::Options::command(),
        insmod::Options::command(),
        rmmod::Options::command(),
        lsmod::Options::command(),
        mount::Options::command(),
        unmount::Options::command(),
        su::Options::command(),
        uname::Options::command(),
        debug::Options::command(),
        Options::command(),
    ]
}

fn write_tool(prefix: &Path, mut tool: Command) -> Result<(), Failure> {
    let name = tool.get_name().to_owned();
    let page = man_page(&tool).map_err(|error| Failure::of(&name, &error))?;
    write(&prefix.join("share/man/man1").join(format!("{name}.1")), &page)?;
    for (shell, place) in [
        (Shell::Bash, format!("share/bash-completion/completions/{name}")),
        (Shell::Zsh, format!("share/zsh/site-functions/_{name}")),
        (Shell::Fish, format!("share/fish/vendor_completions.d/{name}.fish")),
    ] {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut tool, &name, &mut script);
        write(&prefix.join(place), &script)?;
    }
    Ok(())
}

fn man_page(tool: &Command) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    Man::new(tool.clone()).manual("View OS").render(&mut page)?;
    let others: Vec<String> = tools()
        .iter()
        .map(Command::get_name)
        .filter(|name| *name != tool.get_name())
        .map(|name| format!("\\fB{}\\fR(1)", name.replace('-', "\\-")))
        .collect();
    page.extend_from_slice(format!(".SH \"SEE ALSO\"\n{}\n", others.join(", ")).as_bytes());
    Ok(page)
}

fn write(path: &Path, contents: &[u8]) -> Result<(), Failure> {
    let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
    made.and_then(|()| std::fs::write(path, contents)).map_err(|error| Failure::of(shown(path), &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_definition_is_sound() {
        tools().into_iter().for_each(Command::debug_assert);
    }

    #[test]
    fn every_option_has_a_help_line() {
        for tool in tools() {
            for argument in tool.get_arguments().filter(|argument| !argument.is_hide_set()) {
                assert!(argument.get_help().is_some(), "{}: {}", tool.get_name(), argument.get_id());
            }
        }
    }

    #[test]
    fn a_page_refers_to_the_other_tools() {
        let page = String::from_utf8(man_page(&mount::Options::command()).unwrap()).unwrap();
        assert!(page.contains("SEE ALSO") && page.contains("\\fBvuumount\\fR(1)") && !page.contains("run\\-rc"));
    }
}
