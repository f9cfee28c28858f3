//! What was made of pieces of an image lately. Knows nothing of what it is.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use umvu_interface::Result;

/// The most recently used of some values.
pub struct Recent<T: ?Sized> {
    most: usize,
    kept: Mutex<Kept<T>>,
}

struct Kept<T: ?Sized> {
    values: HashMap<u64, (u64, Arc<T>)>,
    clock: u64,
}

impl<T: ?Sized> Recent<T> {
    /// Keeps at most `most` values.
    pub fn new(most: usize) -> Self {
        Self { most: most.max(1), kept: Mutex::new(Kept { values: HashMap::new(), clock: 0 }) }
    }

    /// Gives the value of a key, made if it is not there. Two threads may make the same one.
    pub fn get(&self, key: u64, make: impl FnOnce() -> Result<Arc<T>>) -> Result<Arc<T>> {
        if let Some(found) = self.find(key) {
            return Ok(found);
        }
        let value = make()?;
        let mut kept = self.kept.lock();
        if kept.values.len() >= self.most {
            let oldest = kept.values.iter().min_by_key(|(_, (used, _))| *used).map(|(key, _)| *key);
            oldest.and_then(|oldest| kept.values.remove(&oldest));
        }
        kept.clock += 1;
        let now = kept.clock;
        kept.values.insert(key, (now, value.clone()));
        Ok(value)
    }

    fn find(&self, key: u64) -> Option<Arc<T>> {
        let mut kept = self.kept.lock();
        kept.clock += 1;
        let now = kept.clock;
        let (used, value) = kept.values.get_mut(&key)?;
        *used = now;
        Some(value.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_goes_first() {
        let recent: Recent<u8> = Recent::new(2);
        let make = |key: u64, value: u8| *recent.get(key, || Ok(Arc::new(value))).unwrap();
        assert_eq!((make(1, 1), make(2, 2), make(1, 9)), (1, 2, 1));
        assert_eq!(make(3, 3), 3);
        assert_eq!((make(1, 9), make(2, 8)), (1, 8));
    }
}
