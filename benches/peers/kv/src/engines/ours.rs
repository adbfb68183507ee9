//! Ours: gds_rs::kv::Store in one file.

use std::path::Path;

use gds_rs::kv::store::{Batch, KvConfig, Store};

use crate::engine::{Engine, Op, Res, Settings, Tickets};

pub struct Ours {
    store: Store,
}

impl Ours {
    pub fn open(dir: &Path, settings: &Settings) -> Res<Self> {
        let config = KvConfig {
            cache_bytes: settings.cache_bytes,
            ..KvConfig::default()
        };
        let store = Store::open(&dir.join("data.gds"), config)?;
        Ok(Self { store })
    }
}

impl Engine for Ours {
    fn put(&self, key: &[u8], value: &[u8]) -> Res<()> {
        self.store.put_async(key, value)?;
        Ok(())
    }

    fn put_durable(&self, key: &[u8], value: &[u8]) -> Res<()> {
        self.store.put(key, value)?;
        Ok(())
    }

    fn delete(&self, key: &[u8]) -> Res<()> {
        self.store.delete_async(key)?;
        Ok(())
    }

    fn get(&self, key: &[u8], into: &mut Vec<u8>) -> Res<bool> {
        // One call when the memory is longer than the value; only what it grows by is zeroed.
        into.resize(into.capacity(), 0);
        loop {
            let Some(read) = self.store.get_into(key, 0, into)? else {
                into.clear();
                return Ok(false);
            };
            if read < into.len() {
                into.truncate(read);
                return Ok(true);
            }
            let size = usize::try_from(self.store.len_of(key).unwrap_or(0))?;
            into.reserve_exact((size + 1).saturating_sub(into.len()));
            into.resize(into.capacity().max(1), 0);
        }
    }

    fn exists(&self, key: &[u8]) -> Res<bool> {
        Ok(self.store.len_of(key).is_some())
    }

    fn batch(&self, ops: &[Op<'_>], durable: bool) -> Res<()> {
        let mut batch = Batch::new();
        for op in ops {
            match *op {
                Op::Put(key, value) => batch.put(key, value),
                Op::Delete(key) => batch.delete(key),
            };
        }
        if durable {
            self.store.write(&batch)?;
        } else {
            self.store.write_async(&batch)?;
        }
        Ok(())
    }

    fn scan(&self, from: &[u8], limit: usize, each: &mut dyn FnMut(&[u8], &[u8])) -> Res<usize> {
        let mut seen = 0;
        let mut scan = self.store.scan(from.to_vec().., limit as u64)?;
        while let Some(entry) = scan.next_entry()? {
            each(entry.key, entry.value);
            seen += 1;
        }
        Ok(seen)
    }

    fn flush(&self) -> Res<()> {
        self.store.checkpoint()?;
        Ok(())
    }

    fn sync(&self) -> Res<()> {
        self.store.sync()?;
        Ok(())
    }

    fn close(self: Box<Self>) -> Res<()> {
        self.store.close()?;
        Ok(())
    }

    fn tickets(&self) -> Option<&dyn Tickets> {
        Some(self)
    }
}

impl Tickets for Ours {
    fn put(&self, key: &[u8], value: &[u8]) -> Res<u64> {
        Ok(self.store.put_async(key, value)?)
    }

    fn durable(&self) -> u64 {
        self.store.durable_lsn()
    }

    fn wait(&self, ticket: u64) -> Res<()> {
        self.store.wait(ticket, None)?;
        Ok(())
    }
}
