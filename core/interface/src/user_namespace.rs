//! User namespaces: whose capabilities reach how far, and by which numbers users are known in them. Linux's rules are
//! those of user_namespaces(7) and `kernel/user_namespace.c`. Knows nothing of processes and of files.
//!
//! Ids in [`Credentials`](crate::Credentials) and [`Stat`](crate::Stat) are those of the view, as kuids are those of
//! the kernel; only what a guest says or is told is translated.

use std::hash::{Hash, Hasher};
use std::sync::{Arc, OnceLock};

/// What an id that has no number in a namespace is shown as: `/proc/sys/kernel/overflowuid`.
pub const OVERFLOW_ID: u32 = 65534;

/// A range of ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The first id in the namespace.
    pub inside: u32,
    /// The first id of the view.
    pub view: u32,
    /// How many.
    pub count: u32,
}

/// What is called what in a user namespace. It is written once.
#[derive(Debug, Default)]
pub struct IdMap(OnceLock<Vec<Extent>>);

impl IdMap {
    /// The ranges; none as long as nothing was written.
    pub fn extents(&self) -> &[Extent] {
        self.0.get().map_or(&[], Vec::as_slice)
    }

    /// Writes the map; false if that was done before.
    pub fn write(&self, extents: Vec<Extent>) -> bool {
        self.0.set(extents).is_ok()
    }

    /// The id of the view that `inside` stands for.
    pub fn to_view(&self, inside: u32) -> Option<u32> {
        let found = self.extents().iter().find(|e| inside.checked_sub(e.inside).is_some_and(|n| n < e.count))?;
        Some(found.view + (inside - found.inside))
    }

    /// The number in the namespace of an id of the view.
    pub fn to_inside(&self, view: u32) -> Option<u32> {
        let found = self.extents().iter().find(|e| view.checked_sub(e.view).is_some_and(|n| n < e.count))?;
        Some(found.inside + (view - found.view))
    }
}

/// A user namespace that was made in the view. What is not in one is in the view's own, where every id is itself.
#[derive(Debug)]
pub struct UserNamespace {
    /// Unique within the supervisor, and what `stat` shows as its inode.
    pub number: u64,
    /// How many namespaces it stands in; the view's own is at 0.
    pub level: u32,
    /// The namespace it was made in; `None` for the view's own.
    pub parent: Option<Arc<UserNamespace>>,
    /// Effective user and group, in the view's ids, of who made it.
    pub owner: (u32, u32),
    /// Whether who made it may map groups, and setgroups(2) be left allowed, without privilege: a `deny` was written.
    pub setgroups_denied: std::sync::atomic::AtomicBool,
    /// Users.
    pub users: IdMap,
    /// Groups.
    pub groups: IdMap,
}

impl PartialEq for UserNamespace {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for UserNamespace {}

impl Hash for UserNamespace {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.number.hash(state);
    }
}

/// What a namespace, or the view's own, knows an id of the view by.
pub fn to_inside(map: Option<&IdMap>, view: u32) -> Option<u32> {
    map.map_or(Some(view), |map| map.to_inside(view))
}

/// What id of the view somebody in a namespace, or the view's own, means.
pub fn to_view(map: Option<&IdMap>, inside: u32) -> Option<u32> {
    map.map_or(Some(inside), |map| map.to_view(inside))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_translated_within_their_ranges_alone() {
        let map = IdMap::default();
        assert_eq!(map.to_view(0), None);
        assert!(
            map.write(vec![Extent { inside: 0, view: 1000, count: 1 }, Extent { inside: 1, view: 100_000, count: 10 }])
        );
        assert!(!map.write(Vec::new()));
        assert_eq!((map.to_view(0), map.to_view(10), map.to_view(11)), (Some(1000), Some(100_009), None));
        assert_eq!((map.to_inside(1000), map.to_inside(100_000), map.to_inside(0)), (Some(0), Some(1), None));
    }
}
