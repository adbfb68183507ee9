//! LMDB by heed: a memory-mapped copy-on-write B-tree.

use std::ops::Bound;
use std::path::Path;

use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, RwTxn, WithTls};

use crate::engine::{Commits, Engine, Op, Res, Settings};

/// Address space for the map; the file grows as it is written.
const MAP_BYTES: usize = 256 << 30;
const READERS: u32 = 256;

pub struct Lmdb {
    env: Env<WithTls>,
    database: Database<'static, Bytes, Bytes>,
}

impl Lmdb {
    /// LMDB has no cache of its own: `cache_bytes` means nothing to it, the page cache is all.
    pub fn open(dir: &Path, settings: &Settings) -> Res<Self> {
        let dir = dir.join("lmdb");
        std::fs::create_dir_all(&dir)?;
        let mut options = EnvOpenOptions::new();
        options.map_size(MAP_BYTES).max_readers(READERS);
        if settings.commits == Commits::Deferred {
            // SAFETY: a power loss may break the file then; a benchmark's file may be lost.
            unsafe { options.flags(EnvFlags::NO_SYNC) };
        }
        // SAFETY: nobody else opens or changes the files in this directory of ours.
        let env = unsafe { options.open(&dir)? };
        let database = env
            .create_databases_and_commit(env.write_txn()?, |opener, write| {
                let database = opener.create_database(write, None)?;
                Res::Ok(CommitOrAbort::<_, ()>::Commit(database))
            })?
            .unwrap_commit();
        Ok(Self { env, database })
    }

    fn write(&self, change: impl FnOnce(&mut RwTxn<'_>) -> Res<()>) -> Res<()> {
        let mut write = self.env.write_txn()?;
        change(&mut write)?;
        write.commit()?;
        Ok(())
    }

    /// A commit syncs by itself unless the environment was opened with NOSYNC.
    fn durable(&self) -> Res<()> {
        if self.env.get_flags()? & EnvFlags::NO_SYNC.bits() != 0 {
            self.env.force_sync()?;
        }
        Ok(())
    }
}

impl Engine for Lmdb {
    fn put(&self, key: &[u8], value: &[u8]) -> Res<()> {
        self.write(|write| Ok(self.database.put(write, key, value)?))
    }

    fn put_durable(&self, key: &[u8], value: &[u8]) -> Res<()> {
        self.put(key, value)?;
        self.durable()
    }

    fn delete(&self, key: &[u8]) -> Res<()> {
        self.write(|write| {
            self.database.delete(write, key)?;
            Ok(())
        })
    }

    fn get(&self, key: &[u8], into: &mut Vec<u8>) -> Res<bool> {
        into.clear();
        let read = self.env.read_txn()?;
        let found = self.database.get(&read, key)?;
        if let Some(value) = found {
            into.extend_from_slice(value);
        }
        Ok(found.is_some())
    }

    fn exists(&self, key: &[u8]) -> Res<bool> {
        let read = self.env.read_txn()?;
        Ok(self.database.get(&read, key)?.is_some())
    }

    fn batch(&self, ops: &[Op<'_>], durable: bool) -> Res<()> {
        self.write(|write| {
            for op in ops {
                match *op {
                    Op::Put(key, value) => self.database.put(write, key, value)?,
                    Op::Delete(key) => {
                        self.database.delete(write, key)?;
                    }
                }
            }
            Ok(())
        })?;
        if durable {
            self.durable()?;
        }
        Ok(())
    }

    fn scan(&self, from: &[u8], limit: usize, each: &mut dyn FnMut(&[u8], &[u8])) -> Res<usize> {
        let read = self.env.read_txn()?;
        // An empty key is no key to LMDB.
        let start = if from.is_empty() {
            Bound::Unbounded
        } else {
            Bound::Included(from)
        };
        let range = (start, Bound::Unbounded);
        let mut seen = 0;
        for item in self.database.range(&read, &range)?.take(limit) {
            let (key, value) = item?;
            each(key, value);
            seen += 1;
        }
        Ok(seen)
    }

    fn flush(&self) -> Res<()> {
        self.sync()
    }

    fn sync(&self) -> Res<()> {
        self.env.force_sync()?;
        Ok(())
    }

    fn close(self: Box<Self>) -> Res<()> {
        self.sync()?;
        // heed shares environments by path: the next opening must not find this one.
        self.env.prepare_for_closing().wait();
        Ok(())
    }
}
