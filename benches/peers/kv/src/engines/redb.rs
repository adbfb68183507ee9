//! redb: one file, copy-on-write B-trees.

use std::path::Path;

use redb::{Database, Durability, ReadableDatabase, TableDefinition};

use crate::engine::{Engine, Op, Res, Settings};

const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("data");

pub struct Redb {
    database: Database,
}

impl Redb {
    pub fn open(dir: &Path, settings: &Settings) -> Res<Self> {
        let database = Database::builder()
            .set_cache_size(usize::try_from(settings.cache_bytes)?)
            .create(dir.join("data.redb"))?;
        // Reads fail on a table that no write has made.
        let write = database.begin_write()?;
        write.open_table(TABLE)?;
        write.commit()?;
        Ok(Self { database })
    }

    fn write(&self, ops: &[Op<'_>], durability: Durability) -> Res<()> {
        let mut write = self.database.begin_write()?;
        write.set_durability(durability)?;
        {
            let mut table = write.open_table(TABLE)?;
            for op in ops {
                match *op {
                    Op::Put(key, value) => table.insert(key, value)?,
                    Op::Delete(key) => table.remove(key)?,
                };
            }
        }
        write.commit()?;
        Ok(())
    }
}

impl Engine for Redb {
    fn put(&self, key: &[u8], value: &[u8]) -> Res<()> {
        self.write(&[Op::Put(key, value)], Durability::None)
    }

    fn put_durable(&self, key: &[u8], value: &[u8]) -> Res<()> {
        self.write(&[Op::Put(key, value)], Durability::Immediate)
    }

    fn delete(&self, key: &[u8]) -> Res<()> {
        self.write(&[Op::Delete(key)], Durability::None)
    }

    fn get(&self, key: &[u8], into: &mut Vec<u8>) -> Res<bool> {
        into.clear();
        let table = self.database.begin_read()?.open_table(TABLE)?;
        let found = table.get(key)?;
        if let Some(value) = &found {
            into.extend_from_slice(value.value());
        }
        Ok(found.is_some())
    }

    fn exists(&self, key: &[u8]) -> Res<bool> {
        let table = self.database.begin_read()?.open_table(TABLE)?;
        Ok(table.get(key)?.is_some())
    }

    fn batch(&self, ops: &[Op<'_>], durable: bool) -> Res<()> {
        let durability = if durable {
            Durability::Immediate
        } else {
            Durability::None
        };
        self.write(ops, durability)
    }

    fn scan(&self, from: &[u8], limit: usize, each: &mut dyn FnMut(&[u8], &[u8])) -> Res<usize> {
        let table = self.database.begin_read()?.open_table(TABLE)?;
        let mut seen = 0;
        for item in table.range(from..)?.take(limit) {
            let (key, value) = item?;
            each(key.value(), value.value());
            seen += 1;
        }
        Ok(seen)
    }

    fn flush(&self) -> Res<()> {
        self.sync()
    }

    fn sync(&self) -> Res<()> {
        self.write(&[], Durability::Immediate)
    }

    fn close(self: Box<Self>) -> Res<()> {
        self.database.close()?;
        Ok(())
    }
}
