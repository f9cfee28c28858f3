//! vu_insmod: loads modules into the caller's view. Knows no module: names and options are the supervisor's business.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;

use clap::Parser;
use umvu_protocol::Request;

use crate::client::{Supervisor, View};
use crate::report::Failure;

/// Loads modules into the view of the caller.
///
/// Works only inside a view, see umvu(1). Modules are loaded in the order given; the first that cannot be loaded
/// ends the command with status 1, and those before it stay loaded. "vu_lsmod -a" lists the modules there are.
#[derive(Debug, Parser)]
#[command(name = "vu_insmod", version)]
pub struct Options {
    /// Load them for good: vu_rmmod will refuse to remove them
    #[arg(short, long)]
    permanent: bool,
    /// Names of modules, each with its options after commas
    #[arg(value_name = "MODULE[,OPTION...]", required = true)]
    modules: Vec<OsString>,
}

/// Does what the command line says.
///
/// # Errors
/// No view; or the supervisor's reason for the first module it refuses.
pub fn run(options: Options) -> Result<ExitCode, Failure> {
    insert(options, &Supervisor::connect()?)
}

fn insert(options: Options, view: &dyn View) -> Result<ExitCode, Failure> {
    for module in options.modules {
        view.order(&Request::Insert { module: module.into_vec(), permanent: options.permanent })?;
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use umvu_protocol::Reply;

    use super::*;

    #[test]
    fn the_first_refusal_ends_it_and_later_modules_are_not_asked_for() {
        let asked = RefCell::new(Vec::new());
        let view = |request: &Request| {
            let Request::Insert { module, permanent: true } = request else { panic!("{request:?}") };
            asked.borrow_mut().push(module.clone());
            match module.as_slice() {
                b"bad" => Err(Failure::Refused { message: "bad: no such module".to_owned(), errno: 2 }),
                _ => Ok(Reply::Done),
            }
        };
        let options = Options::parse_from(["vu_insmod", "-p", "viewfs,x=1", "bad", "later"]);
        assert_eq!(insert(options, &view).unwrap_err().to_string(), "bad: no such module");
        assert_eq!(*asked.borrow(), [b"viewfs,x=1".to_vec(), b"bad".to_vec()]);
    }
}
