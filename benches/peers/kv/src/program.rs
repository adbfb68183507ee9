//! A benchmark program, and one run of it with one engine.

use std::path::PathBuf;

use serde_json::Value;

use crate::data::{self, Rng};
use crate::engine::{Commits, Engine, Kind, Res, Settings};
use crate::meter;
use crate::report::Row;

/// What all programs share.
pub struct Common {
    pub cache_bytes: u64,
    /// Whether cold means the kernel's caches too, not only the store's files.
    pub drop_everything: bool,
}

/// One engine's turn in one stage of one round.
pub struct Run<'a> {
    pub kind: Kind,
    pub round: u32,
    /// The engine's own directory, kept from stage to stage.
    pub dir: PathBuf,
    pub common: &'a Common,
}

/// A benchmark. Its stages run one after the other; within a stage the engines take turns, round
/// by round.
pub trait Program {
    fn name(&self) -> &'static str;
    fn settings(&self) -> Value;
    fn stages(&self) -> usize;
    /// Runs a stage and verifies what the store holds after it.
    fn run(&self, stage: usize, run: &Run<'_>) -> Res<Vec<Row>>;
}

impl Run<'_> {
    pub fn open(&self, commits: Commits, large_values: bool) -> Res<Box<dyn Engine>> {
        let settings = Settings {
            cache_bytes: self.common.cache_bytes,
            commits,
            large_values,
        };
        self.kind.open(&self.dir, &settings)
    }

    /// An empty directory.
    pub fn clear(&self) -> Res<()> {
        if self.dir.exists() {
            std::fs::remove_dir_all(&self.dir)?;
        }
        std::fs::create_dir_all(&self.dir)?;
        Ok(())
    }

    /// Makes the next opening cold. The store must be closed.
    pub fn drop_caches(&self) -> Res<()> {
        meter::drop_caches(&self.dir, self.common.drop_everything)?;
        let (left, all) = (
            meter::page_cache_bytes(&self.dir)?,
            meter::disk_bytes(&self.dir)?,
        );
        if left > all / 50 + (1 << 20) {
            let text = format!("{left} bytes of {all} stay cached: choose a --dir on a disk");
            return Err(self.wrong(&text));
        }
        Ok(())
    }

    pub fn wrong(&self, what: &str) -> Box<dyn std::error::Error + Send + Sync> {
        format!("{}: {what}", self.kind.name()).into()
    }

    /// Checks that record `id` is there, whole, and returns its version.
    pub fn check(&self, store: &dyn Engine, id: u64, into: &mut Vec<u8>) -> Res<u64> {
        if !store.get(&data::key_of(id), into)? {
            return Err(self.wrong(&format!("record {id} is missing")));
        }
        data::version_of(into, id)
            .ok_or_else(|| self.wrong(&format!("record {id} is not what was put")))
    }

    /// Checks records: all of the first `records`, or `sample` of them drawn at random.
    pub fn check_some(&self, store: &dyn Engine, records: u64, sample: u64) -> Res<()> {
        let mut into = Vec::new();
        if sample >= records {
            for id in 0..records {
                self.check(store, id, &mut into)?;
            }
            return Ok(());
        }
        let mut rng = Rng(records);
        for _ in 0..sample {
            self.check(store, rng.below(records), &mut into)?;
        }
        Ok(())
    }

    /// Calls `each` with every key that starts with `prefix`, in order, and its value.
    pub fn scan_all(
        &self,
        store: &dyn Engine,
        prefix: &[u8],
        each: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Res<u64> {
        const PART: usize = 1000;
        let mut from = prefix.to_vec();
        let mut total = 0;
        loop {
            let mut last = Vec::new();
            let mut inside = 0;
            let seen = store.scan(&from, PART, &mut |key, value| {
                if key.starts_with(prefix) {
                    inside += 1;
                    each(key, value);
                }
                last.clear();
                last.extend_from_slice(key);
            })?;
            total += inside;
            if seen < PART || (inside as usize) < seen {
                return Ok(total);
            }
            if last < from {
                return Err(self.wrong("a scan went back"));
            }
            // The next key that can be.
            last.push(0);
            from = last;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Model, Rows};

    fn run(common: &Common) -> Run<'_> {
        Run {
            kind: Kind::Redb,
            round: 0,
            dir: PathBuf::new(),
            common,
        }
    }

    const COMMON: Common = Common {
        cache_bytes: 0,
        drop_everything: false,
    };

    #[test]
    fn a_lost_a_changed_and_a_swapped_record_are_found() {
        let store = Model::default();
        let mut value = vec![0; 1000];
        for id in 0..50 {
            data::fill(&mut value, id, id + 100);
            store.put(&data::key_of(id), &value).expect("a put");
        }
        let run = run(&COMMON);
        run.check_some(&store, 50, 50).expect("all are right");
        let version = run.check(&store, 7, &mut Vec::new()).expect("it is there");
        assert_eq!(version, 107);
        let wrong = |change: &dyn Fn(&mut Rows)| {
            let before = store.rows.lock().expect("a lock").clone();
            change(&mut store.rows.lock().expect("a lock"));
            let result = run.check_some(&store, 50, 50);
            *store.rows.lock().expect("a lock") = before;
            result.is_err()
        };
        let key = data::key_of(7).to_vec();
        assert!(wrong(&|rows| drop(rows.remove(&key))));
        assert!(wrong(&|rows| rows.get_mut(&key).expect("a row")[999] ^= 1));
        assert!(wrong(&|rows| rows
            .get_mut(&key)
            .expect("a row")
            .truncate(15)));
        assert!(wrong(&|rows| {
            let other = rows[&data::key_of(8).to_vec()].clone();
            rows.insert(key.clone(), other);
        }));
        run.check_some(&store, 50, 50).expect("all are right again");
    }

    #[test]
    fn a_scan_of_all_counts_each_key_of_a_prefix_once() {
        let store = Model::default();
        for (prefix, count) in [("a", 3_u32), ("b", 2500), ("c", 1000)] {
            for number in 0..count {
                let key = [prefix.as_bytes(), &number.to_be_bytes()].concat();
                store.put(&key, b"").expect("a put");
            }
        }
        let run = run(&COMMON);
        for (prefix, count) in [("a", 3), ("b", 2500), ("c", 1000), ("d", 0), ("", 3503)] {
            let mut called = 0;
            let total = run.scan_all(&store, prefix.as_bytes(), &mut |_, _| called += 1);
            assert_eq!(total.expect("a scan"), count, "{prefix}");
            assert_eq!(called, count, "{prefix}");
        }
    }
}
