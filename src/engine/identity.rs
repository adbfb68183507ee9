//! One number for one file, however often and by whatever name it is open.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Weak};

use parking_lot::Mutex;

type Known = HashMap<(u64, u64), Weak<Identity>>;

/// Files that are open in this process.
static KNOWN: LazyLock<Mutex<Known>> = LazyLock::new(Mutex::default);
static NEXT: AtomicU64 = AtomicU64::new(1);

/// The number of a file while it is open. An inode that is freed may name another file later,
/// which gets another number.
pub(super) struct Identity {
    number: u64,
    key: (u64, u64),
}

impl Identity {
    /// The identity of the file with this `io` identity, which the caller has open.
    pub(super) fn of(key: (u64, u64)) -> Arc<Self> {
        let mut known = KNOWN.lock();
        if let Some(identity) = known.get(&key).and_then(Weak::upgrade) {
            return identity;
        }
        let identity = Arc::new(Self {
            number: NEXT.fetch_add(1, Relaxed),
            key,
        });
        known.insert(key, Arc::downgrade(&identity));
        identity
    }

    #[inline]
    pub(super) fn number(&self) -> u64 {
        self.number
    }
}

impl Drop for Identity {
    fn drop(&mut self) {
        let mut known = KNOWN.lock();
        // Another open may have put a new identity there since the last clone went.
        if known.get(&self.key).is_some_and(|i| i.strong_count() == 0) {
            known.remove(&self.key);
        }
        if known.is_empty() {
            // Memory that is never given back looks like a leak to the caller's tools.
            *known = Known::new();
        }
    }
}
