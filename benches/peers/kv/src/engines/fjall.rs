//! fjall: log-structured merge trees with one journal.

use std::path::Path;
use std::time::{Duration, Instant};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, PersistMode};

use crate::engine::{Engine, Op, Res, Settings};

pub struct Fjall {
    database: Database,
    keyspace: Keyspace,
}

impl Fjall {
    pub fn open(dir: &Path, settings: &Settings) -> Res<Self> {
        let database = Database::builder(dir.join("fjall"))
            .cache_size(settings.cache_bytes)
            .open()?;
        let separation = settings.large_values.then(KvSeparationOptions::default);
        let keyspace = database.keyspace("data", || {
            KeyspaceCreateOptions::default().with_kv_separation(separation)
        })?;
        Ok(Self { database, keyspace })
    }
}

impl Engine for Fjall {
    fn put(&self, key: &[u8], value: &[u8]) -> Res<()> {
        self.keyspace.insert(key, value)?;
        Ok(())
    }

    fn put_durable(&self, key: &[u8], value: &[u8]) -> Res<()> {
        self.keyspace.insert(key, value)?;
        self.database.persist(PersistMode::SyncData)?;
        Ok(())
    }

    fn delete(&self, key: &[u8]) -> Res<()> {
        self.keyspace.remove(key)?;
        Ok(())
    }

    fn get(&self, key: &[u8], into: &mut Vec<u8>) -> Res<bool> {
        into.clear();
        let found = self.keyspace.get(key)?;
        if let Some(value) = &found {
            into.extend_from_slice(value);
        }
        Ok(found.is_some())
    }

    fn exists(&self, key: &[u8]) -> Res<bool> {
        Ok(self.keyspace.contains_key(key)?)
    }

    fn batch(&self, ops: &[Op<'_>], durable: bool) -> Res<()> {
        let mode = if durable {
            PersistMode::SyncData
        } else {
            PersistMode::Buffer
        };
        let mut batch = self.database.batch().durability(Some(mode));
        for op in ops {
            match *op {
                Op::Put(key, value) => batch.insert(&self.keyspace, key, value),
                Op::Delete(key) => batch.remove(&self.keyspace, key),
            }
        }
        batch.commit()?;
        Ok(())
    }

    fn scan(&self, from: &[u8], limit: usize, each: &mut dyn FnMut(&[u8], &[u8])) -> Res<usize> {
        let mut seen = 0;
        for item in self.keyspace.range(from..).take(limit) {
            let (key, value) = item.into_inner()?;
            each(&key, &value);
            seen += 1;
        }
        Ok(seen)
    }

    fn flush(&self) -> Res<()> {
        self.keyspace.rotate_memtable_and_wait()?;
        // A compaction is queued a moment after the flush that asks for it: idle must last.
        let end = Instant::now() + Duration::from_secs(120);
        let mut idle = 0;
        while idle < 10 {
            let busy =
                self.database.outstanding_flushes() > 0 || self.database.active_compactions() > 0;
            idle = if busy { 0 } else { idle + 1 };
            if Instant::now() > end {
                return Err("fjall: background work did not end within 120 s".into());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        self.sync()
    }

    fn sync(&self) -> Res<()> {
        self.database.persist(PersistMode::SyncAll)?;
        Ok(())
    }

    fn close(self: Box<Self>) -> Res<()> {
        self.sync()
    }
}
