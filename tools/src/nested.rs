//! umvu inside a view: a view stacked on the caller's, made by the supervisor that is already there. Starts none.

use std::ffi::OsString;
use std::path::PathBuf;

use umvu_protocol::{Reply, Request};

use crate::client::{unexpected, View};
use crate::rc;
use crate::report::Failure;

/// What the nested view is to be.
#[derive(Debug, Default)]
pub struct Stacked {
    /// Its name.
    pub name: Option<Vec<u8>>,
    /// Modules to load in it, with their options.
    pub load: Vec<Vec<u8>>,
    /// Modules that it takes, unless they are loaded already.
    pub implied: Vec<Vec<u8>>,
    /// Debug tags to switch on in it.
    pub debug_tags: Vec<u8>,
    /// Files to run in it.
    pub rc: Vec<PathBuf>,
    /// What it is made for.
    pub command: Vec<OsString>,
}

/// Gives the calling process a view of its own and becomes the command; returns only when that fails.
pub fn run(stacked: &Stacked, view: &dyn View) -> Failure {
    match enter(stacked, view) {
        Ok(()) => rc::run_then_become(&stacked.rc, &stacked.command),
        Err(failure) => failure,
    }
}

fn enter(stacked: &Stacked, view: &dyn View) -> Result<(), Failure> {
    view.order(&Request::Nest { name: stacked.name.clone() })?;
    for module in &stacked.load {
        view.order(&Request::Insert { module: module.clone(), permanent: false })?;
    }
    if !stacked.implied.is_empty() {
        let loaded = match view.ask(&Request::List)? {
            Reply::Modules(modules) => modules,
            other => return Err(unexpected(&other)),
        };
        let is_loaded = |name: &[u8]| loaded.iter().any(|module| module.loaded && module.name.as_bytes() == name);
        for module in stacked.implied.iter().filter(|name| !is_loaded(name)) {
            view.order(&Request::Insert { module: module.clone(), permanent: false })?;
        }
    }
    if !stacked.debug_tags.is_empty() {
        view.order(&Request::Debug { add: stacked.debug_tags.clone(), remove: Vec::new() })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn the_view_is_made_before_anything_is_loaded_into_it() {
        let asked = RefCell::new(Vec::new());
        let view = |request: &Request| {
            asked.borrow_mut().push(request.clone());
            Ok(Reply::Done)
        };
        let stacked = Stacked { load: vec![b"viewfs".to_vec()], ..Stacked::default() };
        enter(&stacked, &view).unwrap();
        let expected = [Request::Nest { name: None }, Request::Insert { module: b"viewfs".to_vec(), permanent: false }];
        assert_eq!(*asked.borrow(), expected);
    }

    #[test]
    fn a_refused_view_ends_it_before_anything_is_loaded() {
        let view = |request: &Request| match request {
            Request::Nest { .. } => Err(Failure::Refused { message: "no".to_owned(), errno: 1 }),
            other => panic!("{other:?}"),
        };
        let stacked = Stacked { load: vec![b"viewfs".to_vec()], ..Stacked::default() };
        assert_eq!(run(&stacked, &view).to_string(), "no");
    }
}
