//! Behaviour tests: each runs natively first and inside a view second, with the same assertions.
//!
//! A *behaviour* is a function; the places it is run in are a list of [`Place`]s. Two kinds exist:
//!
//! - `in_guest`: the function is the guest program. The suite's own executable is started again in
//!   the place, in a fresh directory, and the function runs on its only thread.
//! - `from_outside`: the function stays outside, gets a [`Runner`] and starts commands with it.
//!
//! The crate knows umvu by its command line alone and links none of its code.

pub mod archive;
pub mod assert;
pub mod failures;
pub mod fresh;
pub mod place;
pub mod program;
pub mod runner;
pub mod suite;
pub mod terminal;
pub mod watch;

pub use assert::{fails, works};
pub use place::Place;
pub use program::{program, program_for_i386, Linking};
pub use runner::{Finished, Runner};
pub use terminal::Terminal;

/// Declares the behaviours of a suite and its `main`.
///
/// ```text
/// behaviours! {
///     in_guest at EVERYWHERE { a_fact, another_fact }
///     from_outside at ORDINARY { a_third_fact }
///     from_outside at ORDINARY if umvu_tests::program::has_i386_compiler { skipped_and_counted_otherwise }
/// }
/// ```
#[macro_export]
macro_rules! behaviours {
    (@ $kind:ident $places:ident $needed:tt $($name:ident)*) => {
        vec![$($crate::suite::Behaviour {
            name: stringify!($name),
            places: $crate::place::$places,
            body: $crate::suite::Body::$kind($name),
            needs: $crate::needs!($needed),
        }),*]
    };
    ($($kind:ident at $places:ident $(if $needed:path)? { $($name:ident),* $(,)? })*) => {
        fn main() -> std::process::ExitCode {
            $crate::suite::main(
                env!("CARGO_CRATE_NAME"),
                &[$($crate::behaviours!(@ $kind $places ($($needed)?) $($name)*)),*].concat(),
            )
        }
    };
}

/// What behaviours need: nothing, or what a function finds.
#[doc(hidden)]
#[macro_export]
macro_rules! needs {
    (()) => {
        || true
    };
    (($needed:path)) => {
        $needed
    };
}
