//! What a store must hold: every state that a prefix of the commits makes.

use std::collections::BTreeMap;

use crate::kv::store::Store;
use crate::kv::wal::Lsn;

/// Keys and values.
pub type Map = BTreeMap<Vec<u8>, Vec<u8>>;
/// A key, and its value unless it was deleted.
type Change = (Vec<u8>, Option<Vec<u8>>);

/// What was committed, in order, and what was acknowledged when.
#[derive(Debug, Default)]
pub struct Oracle {
    base: Map,
    commits: Vec<(Lsn, Vec<Change>)>,
    /// (moment of the disk, number that was durable then).
    acknowledged: Vec<(usize, Lsn)>,
}

fn apply(map: &mut Map, changes: &[Change]) {
    for (key, value) in changes {
        match value {
            Some(value) => drop(map.insert(key.clone(), value.clone())),
            None => drop(map.remove(key)),
        }
    }
}

impl Oracle {
    /// Of a store that holds `base` already.
    #[must_use]
    pub fn of(base: Map) -> Self {
        Self {
            base,
            ..Self::default()
        }
    }

    /// A commit: its last record, and what it changed.
    pub fn commit(&mut self, lsn: Lsn, changes: Vec<Change>) {
        self.commits.push((lsn, changes));
    }

    /// At this moment of the disk everything up to `lsn` was known to be durable.
    pub fn acknowledge(&mut self, moment: usize, lsn: Lsn) {
        self.acknowledged.push((moment, lsn));
    }

    /// The first moment at which there surely was a store.
    #[must_use]
    pub fn begins(&self) -> Option<usize> {
        self.acknowledged.first().map(|(moment, _)| *moment)
    }

    /// Commits so far.
    #[must_use]
    pub fn commits(&self) -> usize {
        self.commits.len()
    }

    /// The newest state.
    #[must_use]
    pub fn now(&self) -> Map {
        let mut map = self.base.clone();
        for (_, changes) in &self.commits {
            apply(&mut map, changes);
        }
        map
    }

    /// Whether `found` is the state after some prefix of the commits that holds everything that
    /// was acknowledged by `moment`: nothing acknowledged is lost, there is no hole, and each
    /// commit is whole. Answers how many commits it holds.
    ///
    /// # Errors
    /// What differs, in words.
    pub fn check(&self, found: &Map, moment: usize) -> Result<usize, String> {
        let durable = self.acknowledged.iter().filter(|(m, _)| *m <= moment);
        let durable = durable.map(|(_, lsn)| *lsn).max().unwrap_or(0);
        let must = self
            .commits
            .iter()
            .take_while(|(lsn, _)| *lsn <= durable)
            .count();
        let mut map = self.base.clone();
        for n in 0..=self.commits.len() {
            if n >= must && map == *found {
                return Ok(n);
            }
            if let Some((_, changes)) = self.commits.get(n) {
                apply(&mut map, changes);
            }
        }
        let now = self.now();
        let wrong = found.iter().find(|(k, v)| now.get(*k) != Some(v));
        let missing = now.keys().find(|k| !found.contains_key(*k));
        Err(format!(
            "moment {moment}: {} keys recovered are no prefix of {} commits with at least {must}; \
             first difference from the end: {:?}, missing {missing:?}",
            found.len(),
            self.commits.len(),
            wrong.map(|(k, v)| (k, v.len()))
        ))
    }
}

/// Everything in a store, each value read and verified.
///
/// # Errors
/// What the store answers, in words.
pub fn contents(store: &Store) -> Result<Map, String> {
    let scan = store
        .scan(.., u64::MAX)
        .map_err(|e| format!("scan: {e:?}"))?;
    scan.map(|item| {
        let value = item.value();
        let value = value.map_err(|e| format!("get {:?}: {e:?}", item.key))?;
        Ok((item.key, value))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: u8, value: u8) -> Vec<Change> {
        vec![(vec![key], Some(vec![value]))]
    }

    #[test]
    fn a_prefix_passes_and_anything_else_does_not() {
        let mut oracle = Oracle::default();
        oracle.acknowledge(0, 0);
        oracle.commit(1, put(1, 1));
        oracle.commit(2, put(2, 2));
        oracle.acknowledge(10, 1);
        oracle.commit(3, vec![(vec![1], None)]);
        let map = |pairs: &[(u8, u8)]| -> Map {
            pairs.iter().map(|(k, v)| (vec![*k], vec![*v])).collect()
        };
        assert_eq!(oracle.check(&map(&[]), 5), Ok(0));
        assert_eq!(oracle.check(&map(&[(1, 1)]), 10), Ok(1));
        assert_eq!(oracle.check(&map(&[(1, 1), (2, 2)]), 10), Ok(2));
        assert_eq!(oracle.check(&map(&[(2, 2)]), 10), Ok(3));
        assert!(oracle.check(&map(&[]), 10).is_err(), "acknowledged, lost");
        assert!(oracle.check(&map(&[(2, 3)]), 10).is_err(), "other bytes");
        assert!(oracle.check(&map(&[(3, 3)]), 0).is_err(), "never put");
    }
}
