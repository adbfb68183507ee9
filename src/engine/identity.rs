//! One number for one file, however often and by whatever name it is open.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Weak};

use parking_lot::Mutex;

/// Files that are open in this process.
#[derive(Default)]
struct Known {
    files: HashMap<(u64, u64), Weak<Identity>>,
    /// Indexes that were given out: those below, and 0, which is none.
    indexes: u32,
    /// Of these, those that came back.
    free: Vec<u32>,
}

static KNOWN: LazyLock<Mutex<Known>> = LazyLock::new(Mutex::default);
static NEXT: AtomicU64 = AtomicU64::new(1);

/// The number of a file while it is open. An inode that is freed may name another file later,
/// which gets another number. Its index is another file's once this is dropped.
pub(super) struct Identity {
    number: u64,
    index: u32,
    key: (u64, u64),
}

impl Identity {
    /// The identity of the file with this `io` identity, which the caller has open.
    pub(super) fn of(key: (u64, u64)) -> Arc<Self> {
        let mut known = KNOWN.lock();
        if let Some(identity) = known.files.get(&key).and_then(Weak::upgrade) {
            return identity;
        }
        let identity = Arc::new(Self {
            number: NEXT.fetch_add(1, Relaxed),
            index: known.take_index(),
            key,
        });
        known.files.insert(key, Arc::downgrade(&identity));
        identity
    }

    #[inline]
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Not 0, and of no other identity that is there now.
    pub(super) fn index(&self) -> u32 {
        self.index
    }
}

impl Known {
    fn take_index(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            // Memory for identities ends long before the numbers do.
            self.indexes += 1;
            self.indexes
        })
    }
}

impl Drop for Identity {
    fn drop(&mut self) {
        let mut known = KNOWN.lock();
        // Another open may have put a new identity there since the last clone went.
        let gone = |i: &Weak<Self>| i.strong_count() == 0;
        if known.files.get(&self.key).is_some_and(gone) {
            known.files.remove(&self.key);
        }
        known.free.push(self.index);
        if known.files.is_empty() && known.free.len() == known.indexes as usize {
            // Memory that is never given back looks like a leak to the caller's tools.
            *known = Known::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device that no file of another test is on.
    const DEVICE: u64 = u64::MAX;

    #[test]
    fn an_index_is_of_one_file_at_a_time_and_a_number_of_one_for_good() {
        let all: Vec<_> = (0..100).map(|i| Identity::of((DEVICE, i))).collect();
        let again = Identity::of((DEVICE, 7));
        assert!(Arc::ptr_eq(&again, &all[7]), "one file, one identity");
        let mut indexes: Vec<u32> = all.iter().map(|i| i.index()).collect();
        indexes.sort_unstable();
        indexes.dedup();
        assert!(indexes.len() == 100 && indexes[0] > 0);
        let (number, most) = (all[99].number(), indexes[99]);
        drop((all, again));
        let later: Vec<_> = (0..100).map(|i| Identity::of((DEVICE, i))).collect();
        assert!(later.iter().all(|i| i.number() > number));
        // Other tests of this process may have taken some of them.
        let reused = later.iter().filter(|i| i.index() <= most).count();
        assert!(reused > 0, "indexes come back");
    }
}
