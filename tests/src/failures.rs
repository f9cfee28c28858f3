//! The behaviours that are known to fail, listed in git with a reason each; one of them that
//! passes fails the suite, so the list cannot rot. Behind `deny-filter` a second list counts too.

use std::collections::BTreeMap;
use std::panic::{catch_unwind, AssertUnwindSafe};

use libtest_mimic::Failed;

const LIST: &str = include_str!("../expected-failures.txt");
const DENIED_LIST: &str = include_str!("../expected-failures-denied.txt");

/// The variable that `deny-filter` sets for its command.
pub const DENIED: &str = "UMVU_TESTS_DENIED";

/// What the list says about one suite.
pub struct Expectations {
    failing: BTreeMap<String, String>,
}

/// What the list says about one behaviour in one place.
#[derive(Clone)]
pub enum Expectation {
    /// It is not listed.
    Passes,
    /// It is listed, with this reason.
    Fails(String),
}

impl Expectations {
    /// Reads the lines `SUITE BEHAVIOUR::PLACE REASON` of one suite.
    ///
    /// # Panics
    ///
    /// When a line has no reason.
    #[must_use]
    pub fn of_suite(suite: &str) -> Self {
        let mut failing = BTreeMap::new();
        let denied = if std::env::var_os(DENIED).is_some() { DENIED_LIST } else { "" };
        for line in LIST.lines().chain(denied.lines()).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let mut words = line.splitn(3, ' ');
            let (Some(of), Some(name), Some(reason)) = (words.next(), words.next(), words.next()) else {
                panic!("expected failures: not SUITE BEHAVIOUR::PLACE REASON: {line}");
            };
            if of == suite {
                failing.insert(name.to_owned(), reason.to_owned());
            }
        }
        Self { failing }
    }

    /// Returns what is expected of one behaviour in one place.
    #[must_use]
    pub fn of(&self, name: &str) -> Expectation {
        self.failing.get(name).map_or(Expectation::Passes, |reason| Expectation::Fails(reason.clone()))
    }
}

impl Expectation {
    /// Turns the result of a behaviour, or its panic, into the verdict of the suite.
    ///
    /// # Errors
    ///
    /// The failure of a behaviour that should pass, or the pass of one that is listed.
    pub fn judge(&self, run: impl FnOnce() -> Result<(), Failed>) -> Result<(), Failed> {
        match self {
            Self::Passes => run(),
            Self::Fails(reason) => match catch_unwind(AssertUnwindSafe(run)) {
                Ok(Ok(())) => Err(format!("passes, but is listed as an expected failure: {reason}").into()),
                Ok(Err(_)) | Err(_) => Ok(()),
            },
        }
    }
}
