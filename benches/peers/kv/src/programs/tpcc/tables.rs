//! Tables as keys and values, the first rows, and TPC-C's consistency conditions.

use crate::data::{self, Rng};
use crate::engine::{Engine, Op, Res};
use crate::program::Run;

pub const DISTRICTS: u32 = 10;
/// Rows of one commit of the load.
const LOAD_BATCH: usize = 1000;

/// A table; its letter starts the keys of its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Table {
    /// ytd
    Warehouse = b'W',
    /// next order, ytd
    District = b'D',
    /// balance, ytd payment, payments, deliveries
    Customer = b'C',
    /// quantity, ytd, orders
    Stock = b'S',
    /// price
    Item = b'I',
    /// customer, lines, carrier
    Order = b'O',
    NewOrder = b'N',
    /// item, quantity, amount, delivered
    OrderLine = b'L',
    /// amount
    History = b'H',
    /// The last order of a customer.
    LastOrder = b'K',
}

impl Table {
    /// Bytes of a row, about TPC-C's.
    fn size(self) -> usize {
        match self {
            Self::Warehouse => 89,
            Self::District => 95,
            Self::Customer => 655,
            Self::Stock => 306,
            Self::Item => 82,
            Self::Order | Self::NewOrder => 24,
            Self::OrderLine => 54,
            Self::History => 46,
            Self::LastOrder => 8,
        }
    }
}

/// Table and numbers, big-endian, so that rows are in order.
pub fn key(table: Table, ids: &[u32]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + 4 * ids.len());
    key.push(table as u8);
    for id in ids {
        key.extend_from_slice(&id.to_be_bytes());
    }
    key
}

/// A row: numbers first, then filling.
#[derive(Clone, Debug, Default)]
pub struct Record(pub Vec<u8>);

impl Record {
    pub fn new(table: Table, fields: &[u64]) -> Self {
        let mut bytes = vec![0; table.size()];
        data::fill(&mut bytes, table as u64, fields.iter().sum());
        let mut record = Self(bytes);
        for (index, &field) in fields.iter().enumerate() {
            record.set(index, field);
        }
        record
    }

    pub fn field(&self, index: usize) -> u64 {
        let mut number = [0; 8];
        number.copy_from_slice(&self.0[8 * index..8 * index + 8]);
        u64::from_le_bytes(number)
    }

    pub fn set(&mut self, index: usize, value: u64) {
        self.0[8 * index..8 * index + 8].copy_from_slice(&value.to_le_bytes());
    }
}

/// The oldest order of a district that is not delivered.
pub fn oldest(store: &dyn Engine, warehouse: u32, district: u32) -> Res<Option<u32>> {
    let prefix = key(Table::NewOrder, &[warehouse, district]);
    let mut order = None;
    store.scan(&prefix, 1, &mut |key, _| {
        if key.starts_with(&prefix) {
            order = Some(last_id(key));
        }
    })?;
    Ok(order)
}

/// The last number of a key.
fn last_id(key: &[u8]) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&key[key.len() - 4..]);
    u32::from_be_bytes(number)
}

pub struct Scale {
    pub warehouses: u32,
    pub items: u32,
    pub customers: u32,
}

impl Scale {
    /// Puts the first rows; their bytes.
    pub fn load(&self, store: &dyn Engine) -> Res<u64> {
        let mut rng = Rng(11);
        let mut rows: Vec<(Vec<u8>, Record)> = Vec::new();
        let mut bytes = 0;
        let mut put = |table, ids: &[u32], fields: &[u64], last: bool| -> Res<()> {
            let (key, record) = (key(table, ids), Record::new(table, fields));
            bytes += (key.len() + record.0.len()) as u64;
            rows.push((key, record));
            if last || rows.len() == LOAD_BATCH {
                let ops: Vec<_> = rows.iter().map(|(k, r)| Op::Put(k, &r.0)).collect();
                store.batch(&ops, true)?;
                rows.clear();
            }
            Ok(())
        };
        for item in 0..self.items {
            put(Table::Item, &[item], &[rng.between(100, 10_000)], false)?;
        }
        for w in 0..self.warehouses {
            for item in 0..self.items {
                put(
                    Table::Stock,
                    &[w, item],
                    &[rng.between(10, 100), 0, 0],
                    false,
                )?;
            }
            for d in 0..DISTRICTS {
                for c in 0..self.customers {
                    put(Table::Customer, &[w, d, c], &[0, 0, 0, 0], false)?;
                }
                put(Table::District, &[w, d], &[0, 0], false)?;
            }
            put(Table::Warehouse, &[w], &[0], w + 1 == self.warehouses)?;
        }
        Ok(bytes)
    }

    /// TPC-C's consistency conditions 1 to 4 and 8, from a scan of everything; bytes of all rows.
    pub fn check(&self, run: &Run<'_>, store: &dyn Engine) -> Res<u64> {
        let rows = |table: Table, ids: &[u32]| -> Res<Vec<(u32, Record)>> {
            let mut rows = Vec::new();
            run.scan_all(store, &key(table, ids), &mut |key, value| {
                rows.push((last_id(key), Record(value.to_vec())));
            })?;
            Ok(rows)
        };
        let sum = |rows: &[(u32, Record)], field: usize| -> u64 {
            rows.iter().map(|(_, row)| row.field(field)).sum()
        };
        let demand = |holds: bool, what: &str| match holds {
            true => Ok(()),
            false => Err(run.wrong(&format!("tpcc: {what}"))),
        };
        for w in 0..self.warehouses {
            let districts = rows(Table::District, &[w])?;
            demand(
                districts.len() == DISTRICTS as usize,
                "districts are missing",
            )?;
            let ytd = sum(&rows(Table::Warehouse, &[w])?, 0);
            demand(
                ytd == sum(&districts, 1),
                "a warehouse's ytd is not its districts'",
            )?;
            demand(
                ytd == sum(&rows(Table::History, &[w])?, 0),
                "ytd is not the history's",
            )?;
            let stock = rows(Table::Stock, &[w])?;
            demand(stock.len() == self.items as usize, "stock is missing")?;
            let mut ordered = 0;
            for (d, district) in (0..).zip(&districts) {
                let orders = rows(Table::Order, &[w, d])?;
                let next = district.1.field(0);
                let numbered = (0..).zip(&orders).all(|(number, (id, _))| *id == number);
                demand(
                    numbered && orders.len() as u64 == next,
                    "orders are not 0 to next",
                )?;
                let open = rows(Table::NewOrder, &[w, d])?;
                let undelivered = orders.iter().filter(|(_, order)| order.field(2) == 0);
                demand(
                    open.len() == undelivered.count(),
                    "new orders are not the undelivered",
                )?;
                let lines = rows(Table::OrderLine, &[w, d])?;
                demand(
                    lines.len() as u64 == sum(&orders, 1),
                    "order lines are missing",
                )?;
                ordered += sum(&lines, 1);
                let customers = rows(Table::Customer, &[w, d])?;
                demand(
                    customers.len() == self.customers as usize,
                    "customers are missing",
                )?;
            }
            demand(
                ordered == sum(&stock, 1),
                "stock's ytd is not what was ordered",
            )?;
        }
        let mut bytes = 0;
        run.scan_all(store, b"", &mut |key, value| {
            bytes += (key.len() + value.len()) as u64
        })?;
        Ok(bytes)
    }
}
