//! A store in memory, to test that the checks of the programs find what is wrong.

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::engine::{Engine, Op, Res};

pub type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Default)]
pub struct Model {
    pub rows: Mutex<Rows>,
}

impl Engine for Model {
    fn put(&self, key: &[u8], value: &[u8]) -> Res<()> {
        self.batch(&[Op::Put(key, value)], false)
    }

    fn put_durable(&self, key: &[u8], value: &[u8]) -> Res<()> {
        self.put(key, value)
    }

    fn delete(&self, key: &[u8]) -> Res<()> {
        self.batch(&[Op::Delete(key)], false)
    }

    fn get(&self, key: &[u8], into: &mut Vec<u8>) -> Res<bool> {
        into.clear();
        let rows = self.rows.lock().map_err(|_| "poisoned")?;
        let found = rows.get(key);
        into.extend_from_slice(found.map_or(&[], |value| value));
        Ok(found.is_some())
    }

    fn exists(&self, key: &[u8]) -> Res<bool> {
        self.get(key, &mut Vec::new())
    }

    fn batch(&self, ops: &[Op<'_>], _durable: bool) -> Res<()> {
        let mut rows = self.rows.lock().map_err(|_| "poisoned")?;
        for op in ops {
            match *op {
                Op::Put(key, value) => rows.insert(key.to_vec(), value.to_vec()),
                Op::Delete(key) => rows.remove(key),
            };
        }
        Ok(())
    }

    fn scan(&self, from: &[u8], limit: usize, each: &mut dyn FnMut(&[u8], &[u8])) -> Res<usize> {
        let rows = self.rows.lock().map_err(|_| "poisoned")?;
        let mut seen = 0;
        for (key, value) in rows.range(from.to_vec()..).take(limit) {
            each(key, value);
            seen += 1;
        }
        Ok(seen)
    }

    fn flush(&self) -> Res<()> {
        Ok(())
    }

    fn sync(&self) -> Res<()> {
        Ok(())
    }

    fn close(self: Box<Self>) -> Res<()> {
        Ok(())
    }
}
