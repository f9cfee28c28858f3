//! `/proc/PID/uid_map`, `gid_map` and `setgroups`: what they say. Knows nothing of descriptors.

use std::sync::atomic::Ordering;
use std::sync::Arc;

use umvu_interface::{Extent, IdMap, UserNamespace};

/// One of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    /// `uid_map`.
    Users,
    /// `gid_map`.
    Groups,
    /// `setgroups`.
    Setgroups,
}

impl File {
    /// Finds it by its name in `/proc/PID`.
    pub fn named(name: &[u8]) -> Option<Self> {
        match name {
            b"uid_map" => Some(File::Users),
            b"gid_map" => Some(File::Groups),
            b"setgroups" => Some(File::Setgroups),
            _ => None,
        }
    }

    fn map(self, of: &UserNamespace) -> &IdMap {
        match self {
            File::Users => &of.users,
            File::Groups | File::Setgroups => &of.groups,
        }
    }
}

/// What is read from a file of a namespace (`None`: the view's own) by somebody in another.
pub fn text(file: File, of: Option<&Arc<UserNamespace>>, reader: Option<&Arc<UserNamespace>>) -> Vec<u8> {
    if file == File::Setgroups {
        let denied = of.is_some_and(|n| n.setgroups_denied.load(Ordering::Acquire));
        return if denied { b"deny\n".to_vec() } else { b"allow\n".to_vec() };
    }
    // Who reads the map of the own namespace reads the ids of its parent: uid_m_show.
    let lower = match (of, reader) {
        (Some(own), Some(reader)) if own == reader => reader.parent.as_ref(),
        _ => reader,
    };
    let told = |id: u32| lower.map_or(Some(id), |n| file.map(n).to_inside(id)).unwrap_or(u32::MAX);
    let line = |e: &Extent| format!("{:10} {:10} {:10}\n", e.inside, told(e.view), e.count);
    match of {
        None => line(&Extent { inside: 0, view: 0, count: u32::MAX }).into_bytes(),
        Some(of) => file.map(of).extents().iter().flat_map(|e| line(e).into_bytes()).collect(),
    }
}
