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
pub use program::program;
pub use runner::{Finished, Runner};
pub use terminal::Terminal;

/// Declares the behaviours of a suite and its `main`.
///
/// ```text
/// behaviours! {
///     in_guest at EVERYWHERE { a_fact, another_fact }
///     from_outside at ORDINARY { a_third_fact }
/// }
/// ```
#[macro_export]
macro_rules! behaviours {
    ($($kind:ident at $places:ident { $($name:ident),* $(,)? })*) => {
        fn main() -> std::process::ExitCode {
            $crate::suite::main(env!("CARGO_CRATE_NAME"), &[
                $($($crate::suite::Behaviour {
                    name: stringify!($name),
                    places: $crate::place::$places,
                    body: $crate::suite::Body::$kind($name),
                },)*)*
            ])
        }
    };
}
