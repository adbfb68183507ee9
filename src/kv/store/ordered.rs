//! The keys in order, for scans.

use std::collections::BTreeSet;

use super::key::Key;
use crate::kv::sync::atomic::{
    AtomicBool,
    Ordering::{Acquire, Relaxed, Release},
};
use crate::kv::sync::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Keys in order. New ones wait in a list until somebody asks for the order or a checkpoint comes:
/// sorted they are inserted at a fraction of the cost, and no commit waits for that.
#[derive(Debug, Default)]
pub(crate) struct Ordered {
    set: RwLock<BTreeSet<Key>>,
    /// Taken under `set`'s lock, so that a key is in one of the two for whoever holds that.
    fresh: Mutex<Vec<Key>>,
    waiting: AtomicBool,
}

impl Ordered {
    pub fn add(&self, key: Key) {
        let mut fresh = self.fresh.lock();
        fresh.push(key);
        self.waiting.store(true, Release);
    }

    fn settle(&self, set: &mut BTreeSet<Key>) {
        let mut fresh = {
            let mut fresh = self.fresh.lock();
            self.waiting.store(false, Relaxed);
            std::mem::take(&mut *fresh)
        };
        fresh.sort_unstable();
        if set.is_empty() {
            *set = fresh.into_iter().collect();
        } else {
            set.extend(fresh);
        }
    }

    /// The keys, those that came before the call among them.
    pub fn keys(&self) -> RwLockReadGuard<'_, BTreeSet<Key>> {
        if self.waiting.load(Acquire) {
            let mut set = self.set.write();
            self.settle(&mut set);
            return RwLockWriteGuard::downgrade(set);
        }
        self.set.read()
    }

    pub fn remove(&self, key: &Key) {
        let mut set = self.set.write();
        self.settle(&mut set);
        set.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(ordered: &Ordered) -> Vec<Vec<u8>> {
        ordered.keys().iter().map(|k| k.bytes().to_vec()).collect()
    }

    #[test]
    fn new_keys_are_in_order_for_whoever_asks() {
        let ordered = Ordered::default();
        for key in [b"c", b"a", b"b"] {
            ordered.add(Key::new(key));
        }
        assert_eq!(found(&ordered), [b"a", b"b", b"c"]);
        ordered.add(Key::new(b"ab"));
        ordered.add(Key::new(b"a"));
        assert_eq!(found(&ordered), [&b"a"[..], b"ab", b"b", b"c"]);
    }

    #[test]
    fn a_key_goes_whether_it_had_come_into_order_or_not() {
        let ordered = Ordered::default();
        ordered.add(Key::new(b"x"));
        ordered.remove(&Key::new(b"x"));
        assert!(found(&ordered).is_empty());
        ordered.add(Key::new(b"x"));
        ordered.add(Key::new(b"y"));
        assert_eq!(found(&ordered).len(), 2);
        ordered.remove(&Key::new(b"x"));
        assert_eq!(found(&ordered), [b"y"]);
    }

    #[test]
    fn threads_that_add_while_others_look_lose_nothing() {
        let ordered = Ordered::default();
        let each = if cfg!(miri) { 60 } else { 2000_u16 };
        std::thread::scope(|scope| {
            for thread in 0..2_u16 {
                let ordered = &ordered;
                scope.spawn(move || {
                    for n in 0..each {
                        let number = n * 2 + thread;
                        ordered.add(Key::new(&number.to_le_bytes()));
                        if n % 16 == 0 {
                            assert!(ordered.keys().contains(&number.to_le_bytes()[..]));
                        }
                    }
                });
            }
        });
        assert_eq!(ordered.keys().len(), 2 * usize::from(each));
    }
}
