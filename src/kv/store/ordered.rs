//! The keys in order, for scans.

use std::ops::Bound;

use super::key::Key;
use crate::kv::sync::atomic::{
    AtomicBool,
    Ordering::{Acquire, Relaxed, Release},
};
use crate::kv::sync::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Keys of a run at most.
const RUN: usize = 256;
/// Keys that are inserted into a run one by one; of more the run is sorted again.
const FEW: usize = 8;

/// Keys in order. New ones wait in a list until somebody asks for the order or a checkpoint comes:
/// sorted they are merged in at a fraction of the cost, and no commit waits for that.
#[derive(Debug, Default)]
pub(crate) struct Ordered {
    runs: RwLock<Runs>,
    /// Taken under the lock of the runs, so that a key is in one of the two for whoever holds it.
    fresh: Mutex<Vec<Key>>,
    waiting: AtomicBool,
}

impl Ordered {
    pub fn add(&self, key: Key) {
        let mut fresh = self.fresh.lock();
        fresh.push(key);
        self.waiting.store(true, Release);
    }

    fn settle(&self, runs: &mut Runs) {
        let mut fresh = {
            let mut fresh = self.fresh.lock();
            self.waiting.store(false, Relaxed);
            std::mem::take(&mut *fresh)
        };
        fresh.sort_unstable();
        runs.merge(fresh);
    }

    /// The keys, those that came before the call among them.
    pub fn keys(&self) -> RwLockReadGuard<'_, Runs> {
        if self.waiting.load(Acquire) {
            let mut runs = self.runs.write();
            self.settle(&mut runs);
            return RwLockWriteGuard::downgrade(runs);
        }
        self.runs.read()
    }

    pub fn remove(&self, key: &Key) {
        let mut runs = self.runs.write();
        self.settle(&mut runs);
        runs.remove(key);
    }
}

/// Sorted runs that follow each other, none of them empty: a tree of two levels, whose keys lie
/// side by side for scans.
#[derive(Debug, Default)]
pub(crate) struct Runs(Vec<Vec<Key>>);

impl Runs {
    /// The run from `from` on that has `key`, or would have it. Near ones are looked at first.
    fn run_of(&self, key: &[u8], mut from: usize) -> usize {
        let starts = |run: &Vec<Key>| run.first().is_some_and(|first| first.bytes() <= key);
        let mut step = 1;
        while self.0.get(from + step).is_some_and(starts) {
            from += step;
            step *= 2;
        }
        let end = (from + step).min(self.0.len());
        let more = self.0.get(from + 1..end).unwrap_or(&[]);
        from + more.partition_point(starts)
    }

    /// Adds sorted keys; one that is there already stays alone.
    fn merge(&mut self, mut fresh: Vec<Key>) {
        fresh.dedup();
        if self.0.is_empty() && !fresh.is_empty() {
            self.0.push(Vec::new());
        }
        let mut fresh = fresh.into_iter();
        let mut at = 0;
        // Number and keys of each run that became too long.
        let mut long: Vec<(usize, Vec<Key>)> = Vec::new();
        while let Some(first) = fresh.as_slice().first() {
            at = self.run_of(first.bytes(), at);
            let next = self.0.get(at + 1).and_then(|run| run.first());
            let mine = |key: &&Key| next.is_none_or(|next| *key < next);
            let count = fresh.as_slice().iter().take_while(mine).count();
            let run = &mut self.0[at];
            if run.last().is_some_and(|last| last > first) && count <= FEW {
                for key in fresh.by_ref().take(count) {
                    if let Err(place) = run.binary_search(&key) {
                        run.insert(place, key);
                    }
                }
            } else {
                let ordered = run.last().is_none_or(|last| last < first);
                run.extend(fresh.by_ref().take(count));
                if !ordered {
                    // Two sorted pieces: this merges them.
                    run.sort();
                    run.dedup();
                }
            }
            if run.len() > RUN {
                long.push((at, std::mem::take(run)));
            }
        }
        self.split(long);
    }

    /// Puts the parts of runs that became too long in their places.
    fn split(&mut self, long: Vec<(usize, Vec<Key>)>) {
        if long.is_empty() {
            return;
        }
        let mut long = long.into_iter().peekable();
        let before = std::mem::take(&mut self.0);
        self.0.reserve(before.len() + 2 * long.len());
        for (n, run) in before.into_iter().enumerate() {
            match long.next_if(|(at, _)| *at == n) {
                Some((_, keys)) => {
                    let parts = keys.len().div_ceil(RUN * 3 / 4);
                    let size = keys.len().div_ceil(parts);
                    let mut keys = keys.into_iter();
                    let part = || Some(keys.by_ref().take(size).collect::<Vec<_>>());
                    let parts = std::iter::from_fn(part);
                    self.0.extend(parts.take_while(|part| !part.is_empty()));
                }
                None => self.0.push(run),
            }
        }
    }

    fn remove(&mut self, key: &Key) {
        let at = self.run_of(key.bytes(), 0);
        let Some(run) = self.0.get_mut(at) else {
            return;
        };
        let Ok(place) = run.binary_search(key) else {
            return;
        };
        run.remove(place);
        let left = run.len();
        if left == 0 {
            self.0.remove(at);
        } else if left < RUN / 4
            && let Some(next) = self.0.get(at + 1)
            && left + next.len() <= RUN * 3 / 4
        {
            let next = self.0.remove(at + 1);
            self.0[at].extend(next);
        }
    }

    /// The keys in order between two bounds, the first of which is not after the second.
    pub fn range<'a>(
        &'a self,
        from: Bound<&[u8]>,
        to: Bound<&'a [u8]>,
    ) -> impl Iterator<Item = &'a Key> {
        let (at, place) = match from {
            Bound::Unbounded => (0, 0),
            Bound::Included(key) | Bound::Excluded(key) => {
                let at = self.run_of(key, 0);
                let excluded = matches!(from, Bound::Excluded(_));
                let before = |other: &Key| {
                    let other = other.bytes();
                    other < key || excluded && other == key
                };
                let run = self.0.get(at);
                (at, run.map_or(0, |run| run.partition_point(before)))
            }
        };
        let runs = self.0.get(at..).unwrap_or(&[]);
        let keys = runs.iter().flatten().skip(place);
        keys.take_while(move |key| match to {
            Bound::Unbounded => true,
            Bound::Included(last) => key.bytes() <= last,
            Bound::Excluded(end) => key.bytes() < end,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(runs: &Runs) -> impl Iterator<Item = &Key> {
        runs.range(Bound::Unbounded, Bound::Unbounded)
    }

    fn found(ordered: &Ordered) -> Vec<Vec<u8>> {
        all(&ordered.keys()).map(|k| k.bytes().to_vec()).collect()
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
                            assert!({
                                let key = number.to_le_bytes();
                                let only = Bound::Included(&key[..]);
                                ordered.keys().range(only, only).next().is_some()
                            });
                        }
                    }
                });
            }
        });
        assert_eq!(all(&ordered.keys()).count(), 2 * usize::from(each));
    }

    #[test]
    fn runs_hold_what_a_tree_holds_whatever_comes_and_goes() {
        use std::collections::BTreeSet;
        let mut random = 7u64;
        let mut next = |limit: u64| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (random >> 33) % limit
        };
        let key = |n: u64| format!("{n:08}").into_bytes();
        let (mut runs, mut tree) = (Runs::default(), BTreeSet::new());
        let (rounds, many) = if cfg!(miri) { (6, 300) } else { (400u64, 1500) };
        for round in 0..rounds {
            // Few or many keys, near each other, all over, or behind the others.
            let count = [1, 5, 40, many][next(4) as usize];
            let (low, span) = [
                (0, 60_000),
                (next(60_000), 300),
                (60_000 + round * 100, 2000),
            ][next(3) as usize];
            let fresh: BTreeSet<Vec<u8>> = (0..count)
                .map(|_| key(low + next(span)))
                .filter(|key| !tree.contains(key))
                .collect();
            runs.merge(fresh.iter().map(|key| Key::new(key)).collect());
            tree.extend(fresh);
            if next(2) == 0 {
                let from = key(low + next(span));
                let gone: Vec<Vec<u8>> = tree.range(from.clone()..).take(900).cloned().collect();
                for key in gone {
                    runs.remove(&Key::new(&key));
                    tree.remove(&key);
                }
                runs.remove(&Key::new(&from));
            }
            assert!(
                all(&runs)
                    .map(Key::bytes)
                    .eq(tree.iter().map(Vec::as_slice))
            );
            assert!(runs.0.iter().all(|run| !run.is_empty() && run.len() <= RUN));
            assert!(
                runs.0.len() < 8 + 8 * tree.len() / RUN,
                "{} runs",
                runs.0.len()
            );
            let (a, b) = (key(next(70_000)), key(next(70_000)));
            let (a, b) = (a.clone().min(b.clone()), a.max(b));
            for (from, to) in [
                (Bound::Included(&a[..]), Bound::Excluded(&b[..])),
                (Bound::Excluded(&a[..]), Bound::Included(&b[..])),
                (Bound::Excluded(&a[..]), Bound::Unbounded),
            ] {
                if a == b {
                    continue;
                }
                let want = tree.range::<[u8], _>((from, to)).map(Vec::as_slice);
                assert!(
                    runs.range(from, to).map(Key::bytes).eq(want),
                    "round {round}"
                );
            }
        }
    }
}
