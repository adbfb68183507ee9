//! A mix like TPC-C's: its five transactions as reads and one atomic batch each, on keys and
//! values. Unlike the real one, all customers and stock are of the terminal's own warehouse, there
//! is no think time, and isolation is the driver's: a lock a warehouse, the same for all engines.

use std::sync::Mutex;

use clap::Args;
use serde_json::{Value, json};

use crate::data::{self, Rng};
use crate::engine::{Commits, Engine, Op, Res};
use crate::meter::{self, Recorder};
use crate::program::{Program, Run};
use crate::report::Row;

#[path = "tpcc/tables.rs"]
mod tables;
use tables::{DISTRICTS, Record, Scale, Table, key, oldest};

/// The transactions and their share, percent.
const MIX: [(&str, u64); 5] = [
    ("new-order", 45),
    ("payment", 43),
    ("order-status", 4),
    ("delivery", 4),
    ("stock-level", 4),
];

#[derive(Args, Clone, Debug)]
pub struct Options {
    #[arg(long, default_value_t = 2)]
    warehouses: u32,
    /// Items, and stock of each warehouse [default: 100000, quick 5000]
    #[arg(long)]
    items: Option<u32>,
    /// Customers of a district [default: 3000, quick 100]
    #[arg(long)]
    customers: Option<u32>,
    /// Terminals; each has a home warehouse
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    threads: Vec<usize>,
    /// Time of one run, seconds [default: 5, quick 0.3]
    #[arg(long)]
    seconds: Option<f64>,
}

pub struct Tpcc {
    scale: Scale,
    threads: Vec<usize>,
    seconds: f64,
    /// One for each warehouse.
    locks: Vec<Mutex<()>>,
}

impl Tpcc {
    pub fn new(options: &Options, quick: bool) -> Res<Self> {
        let scale = Scale {
            warehouses: options.warehouses,
            items: options.items.unwrap_or(if quick { 5000 } else { 100_000 }),
            customers: options.customers.unwrap_or(if quick { 100 } else { 3000 }),
        };
        let none = scale.warehouses == 0 || scale.customers == 0;
        if none || scale.items < 100 || options.threads.contains(&0) {
            return Err("warehouses, customers and threads: 1 at least; items: 100".into());
        }
        Ok(Self {
            scale,
            threads: options.threads.clone(),
            seconds: options.seconds.unwrap_or(if quick { 0.3 } else { 5.0 }),
            locks: (0..options.warehouses).map(|_| Mutex::new(())).collect(),
        })
    }
}

/// A terminal: one thread's work on its warehouse.
struct Terminal<'a> {
    store: &'a dyn Engine,
    scale: &'a Scale,
    warehouse: u32,
    durable: bool,
    rng: Rng,
    /// Writes of the transaction.
    writes: Vec<(Vec<u8>, Option<Record>)>,
    /// History rows' numbers.
    sequence: u64,
    /// Bytes of keys and values written.
    bytes: u64,
}

impl Terminal<'_> {
    fn read(&self, key: &[u8]) -> Res<Record> {
        let mut record = Record::default();
        if self.store.get(key, &mut record.0)? {
            return Ok(record);
        }
        Err(format!("a row of table {} is missing", char::from(key[0])).into())
    }

    fn put(&mut self, key: Vec<u8>, record: Record) {
        self.writes.push((key, Some(record)));
    }

    fn commit(&mut self) -> Res<()> {
        let ops: Vec<_> = self
            .writes
            .iter()
            .map(|(key, record)| match record {
                Some(record) => Op::Put(key, &record.0),
                None => Op::Delete(key),
            })
            .collect();
        self.store.batch(&ops, self.durable)?;
        for (key, record) in self.writes.drain(..) {
            self.bytes += (key.len() + record.map_or(0, |r| r.0.len())) as u64;
        }
        Ok(())
    }

    fn district(&mut self) -> u32 {
        self.rng.below(u64::from(DISTRICTS)) as u32
    }

    /// TPC-C's non-uniform choice of a customer.
    fn customer(&mut self) -> u32 {
        let skewed = self.rng.between(0, 1023) | self.rng.below(u64::from(self.scale.customers));
        (skewed % u64::from(self.scale.customers)) as u32
    }

    /// Items of an order, each once.
    fn items(&mut self) -> Vec<u32> {
        let lines = self.rng.between(5, 15) as usize;
        let n = u64::from(self.scale.items);
        let mut items = Vec::with_capacity(lines);
        while items.len() < lines {
            let item = ((self.rng.between(0, 8191) | self.rng.below(n)) % n) as u32;
            if !items.contains(&item) {
                items.push(item);
            }
        }
        items
    }

    fn new_order(&mut self) -> Res<()> {
        let (w, d, c) = (self.warehouse, self.district(), self.customer());
        let items = self.items();
        self.read(&key(Table::Warehouse, &[w]))?;
        self.read(&key(Table::Customer, &[w, d, c]))?;
        let district_key = key(Table::District, &[w, d]);
        let mut district = self.read(&district_key)?;
        let order = district.field(0) as u32;
        district.set(0, u64::from(order) + 1);
        self.put(district_key, district);
        let invalid = self.rng.below(100) == 0;
        for (line, &item) in (0..).zip(&items) {
            if invalid && line as usize + 1 == items.len() {
                // One order in a hundred names an item that does not exist and is rolled back.
                self.writes.clear();
                return Ok(());
            }
            let price = self.read(&key(Table::Item, &[item]))?.field(0);
            let quantity = self.rng.between(1, 10);
            let stock_key = key(Table::Stock, &[w, item]);
            let mut stock = self.read(&stock_key)?;
            let left = stock.field(0);
            let more = if left >= quantity + 10 { 0 } else { 91 };
            stock.set(0, left + more - quantity);
            stock.set(1, stock.field(1) + quantity);
            stock.set(2, stock.field(2) + 1);
            self.put(stock_key, stock);
            let fields = [u64::from(item), quantity, quantity * price, 0];
            let line = Record::new(Table::OrderLine, &fields);
            self.put(
                key(Table::OrderLine, &[w, d, order, self.lines_so_far()]),
                line,
            );
        }
        let fields = [u64::from(c), items.len() as u64, 0];
        self.put(
            key(Table::Order, &[w, d, order]),
            Record::new(Table::Order, &fields),
        );
        self.put(
            key(Table::NewOrder, &[w, d, order]),
            Record::new(Table::NewOrder, &[]),
        );
        let last = Record::new(Table::LastOrder, &[u64::from(order)]);
        self.put(key(Table::LastOrder, &[w, d, c]), last);
        self.commit()
    }

    /// Lines that the order has by now: after the district, a line and its stock each.
    fn lines_so_far(&self) -> u32 {
        (self.writes.len() as u32 - 2) / 2
    }

    fn payment(&mut self) -> Res<()> {
        let (w, d, c) = (self.warehouse, self.district(), self.customer());
        let amount = self.rng.between(100, 500_000);
        for (table, ids, fields) in [
            (Table::Warehouse, &[w][..], &[0][..]),
            (Table::District, &[w, d], &[1]),
        ] {
            let at = key(table, ids);
            let mut record = self.read(&at)?;
            record.set(fields[0], record.field(fields[0]) + amount);
            self.put(at, record);
        }
        let at = key(Table::Customer, &[w, d, c]);
        let mut customer = self.read(&at)?;
        customer.set(0, customer.field(0).wrapping_sub(amount));
        customer.set(1, customer.field(1) + amount);
        customer.set(2, customer.field(2) + 1);
        self.put(at, customer);
        self.sequence += 1;
        let history = key(Table::History, &[w, d, c, self.sequence as u32]);
        self.put(history, Record::new(Table::History, &[amount]));
        self.commit()
    }

    fn lines(&self, ids: &[u32], count: u64) -> Res<Vec<(Vec<u8>, Record)>> {
        let from = key(Table::OrderLine, ids);
        let mut lines = Vec::new();
        self.store.scan(&from, count as usize, &mut |key, value| {
            if key.starts_with(&from) {
                lines.push((key.to_vec(), Record(value.to_vec())));
            }
        })?;
        if lines.len() as u64 == count {
            return Ok(lines);
        }
        Err(format!("an order has {} lines of {count}", lines.len()).into())
    }

    fn order_status(&mut self) -> Res<()> {
        let (w, d, c) = (self.warehouse, self.district(), self.customer());
        self.read(&key(Table::Customer, &[w, d, c]))?;
        let mut last = Record::default();
        if self
            .store
            .get(&key(Table::LastOrder, &[w, d, c]), &mut last.0)?
        {
            let order = last.field(0) as u32;
            let count = self.read(&key(Table::Order, &[w, d, order]))?.field(1);
            self.lines(&[w, d, order], count)?;
        }
        Ok(())
    }

    fn delivery(&mut self) -> Res<()> {
        let w = self.warehouse;
        let carrier = self.rng.between(1, 10);
        for d in 0..DISTRICTS {
            let Some(order) = oldest(self.store, w, d)? else {
                continue;
            };
            self.writes
                .push((key(Table::NewOrder, &[w, d, order]), None));
            let order_key = key(Table::Order, &[w, d, order]);
            let mut record = self.read(&order_key)?;
            record.set(2, carrier);
            let (c, count) = (record.field(0) as u32, record.field(1));
            self.put(order_key, record);
            let mut sum = 0;
            for (line_key, mut line) in self.lines(&[w, d, order], count)? {
                sum += line.field(2);
                line.set(3, 1);
                self.put(line_key, line);
            }
            let customer_key = key(Table::Customer, &[w, d, c]);
            let mut customer = self.read(&customer_key)?;
            customer.set(0, customer.field(0).wrapping_add(sum));
            customer.set(3, customer.field(3) + 1);
            self.put(customer_key, customer);
        }
        self.commit()
    }

    fn stock_level(&mut self) -> Res<()> {
        let (w, d) = (self.warehouse, self.district());
        let limit = self.rng.between(10, 20);
        let next = self.read(&key(Table::District, &[w, d]))?.field(0) as u32;
        let first = next.saturating_sub(20);
        let (from, prefix) = (
            key(Table::OrderLine, &[w, d, first]),
            key(Table::OrderLine, &[w, d]),
        );
        let mut items = Vec::new();
        // 20 orders of at most 15 lines.
        self.store.scan(&from, 300, &mut |key, value| {
            if key.starts_with(&prefix) {
                items.push(Record(value.to_vec()).field(0) as u32);
            }
        })?;
        items.sort_unstable();
        items.dedup();
        let mut low = 0;
        for item in items {
            low += u64::from(self.read(&key(Table::Stock, &[w, item]))?.field(0) < limit);
        }
        std::hint::black_box(low);
        Ok(())
    }

    fn run(&mut self, locks: &[Mutex<()>], recorder: &mut Recorder) -> Res<()> {
        loop {
            let draw = self.rng.below(100);
            let mut below = 0;
            let kind = MIX
                .iter()
                .position(|(_, share)| {
                    below += share;
                    draw < below
                })
                .unwrap_or(0);
            let lock = locks[self.warehouse as usize].lock();
            let _held = lock.map_err(|_| "another terminal panicked")?;
            match kind {
                0 => self.new_order()?,
                1 => self.payment()?,
                2 => self.order_status()?,
                3 => self.delivery()?,
                _ => self.stock_level()?,
            }
            if !recorder.lap_as(kind) {
                return Ok(());
            }
        }
    }
}

impl Program for Tpcc {
    fn name(&self) -> &'static str {
        "tpcc"
    }

    fn settings(&self) -> Value {
        json!({
            "warehouses": self.scale.warehouses, "items": self.scale.items,
            "customers_of_a_district": self.scale.customers, "seconds": self.seconds,
            "mix": MIX.iter().map(|(name, share)| json!([name, share])).collect::<Vec<_>>(),
        })
    }

    fn stages(&self) -> usize {
        self.threads.len() * 2
    }

    fn run(&self, stage: usize, run: &Run<'_>) -> Res<Vec<Row>> {
        let commits = [Commits::Durable, Commits::Deferred][stage % 2];
        let threads = self.threads[stage / 2];
        run.clear()?;
        let store = run.open(commits, false)?;
        let loaded = self.scale.load(&*store)?;
        store.flush()?;
        let bytes = std::sync::atomic::AtomicU64::new(0);
        let measured = meter::drive(threads, self.seconds, MIX.len(), |thread, recorder| {
            let mut terminal = Terminal {
                store: &*store,
                scale: &self.scale,
                warehouse: thread as u32 % self.scale.warehouses,
                durable: commits == Commits::Durable,
                rng: Rng(data::mix((u64::from(run.round) << 32) + thread as u64)),
                writes: Vec::new(),
                sequence: (thread as u64) << 24,
                bytes: 0,
            };
            terminal.run(&self.locks, recorder)?;
            bytes.fetch_add(terminal.bytes, std::sync::atomic::Ordering::AcqRel);
            Ok(())
        })?;
        store.flush()?;
        let written = bytes.into_inner() as f64;
        let live = self.scale.check(run, &*store)?;
        let mut row = Row::new(run, "mix", threads, &measured, 0.0)
            .commits(commits)
            .write_amp(&measured, written)?
            .space(run, live as f64)?
            .with("loaded MB", loaded as f64 / 1e6);
        // Percentiles of all kinds together.
        let mut all = measured.histograms[0].clone();
        for other in &measured.histograms[1..] {
            all.add(other)?;
        }
        for (name, value) in &mut row.values {
            let percentile = match *name {
                "P50 us" => 50.0,
                "P99 us" => 99.0,
                "P99.9 us" => 99.9,
                _ => continue,
            };
            *value = all.value_at_percentile(percentile) as f64 / 1e3;
        }
        row.values.retain(|(name, _)| *name != "MB/s");
        let orders = measured.histograms[0].len() as f64;
        row = row.with("new orders/min", 60.0 * orders / measured.used.seconds);
        let names = [
            "new-order P50",
            "payment P50",
            "status P50",
            "delivery P50",
            "stock P50",
        ];
        for (kind, name) in names.into_iter().enumerate() {
            row = row.with(name, measured.us(kind, 50.0));
        }
        store.close()?;
        let store = run.open(commits, false)?;
        if self.scale.check(run, &*store)? != live {
            return Err(run.wrong("after it was opened again the store has other rows"));
        }
        store.close()?;
        Ok(vec![row])
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::engine::Kind;
    use crate::model::Model;
    use crate::program::Common;

    #[test]
    fn transactions_keep_the_conditions_and_a_lost_write_breaks_one() {
        let scale = Scale {
            warehouses: 2,
            items: 200,
            customers: 20,
        };
        let store = Model::default();
        scale.load(&store).expect("a load");
        for warehouse in 0..2 {
            let mut terminal = Terminal {
                store: &store,
                scale: &scale,
                warehouse,
                durable: false,
                rng: Rng(u64::from(warehouse)),
                writes: Vec::new(),
                sequence: 0,
                bytes: 0,
            };
            for _ in 0..100 {
                terminal.new_order().expect("a new order");
                terminal.payment().expect("a payment");
                terminal.order_status().expect("a status");
                terminal.stock_level().expect("a level");
            }
            terminal.delivery().expect("a delivery");
        }
        let common = Common {
            cache_bytes: 0,
            drop_everything: false,
        };
        let run = Run {
            kind: Kind::Redb,
            round: 0,
            dir: PathBuf::new(),
            common: &common,
        };
        scale.check(&run, &store).expect("consistent");
        let whole = store.rows.lock().expect("a lock").clone();
        // One row of each table that the transactions write is lost.
        for table in *b"WDCSONLH" {
            let key = whole.keys().rfind(|key| key[0] == table).expect("a row");
            store.rows.lock().expect("a lock").remove(key);
            let letter = char::from(table);
            assert!(scale.check(&run, &store).is_err(), "{letter} was lost");
            *store.rows.lock().expect("a lock") = whole.clone();
        }
        // One write to a number is lost.
        for (table, field) in [
            (b'W', 0),
            (b'D', 0),
            (b'D', 1),
            (b'S', 1),
            (b'O', 2),
            (b'H', 0),
        ] {
            let found = whole
                .iter()
                .find(|(key, value)| key[0] == table && Record((*value).clone()).field(field) != 0);
            let (key, value) = found.expect("a row that was written");
            let mut record = Record(value.clone());
            record.set(field, 0);
            store.put(key, &record.0).expect("a put");
            let letter = char::from(table);
            assert!(
                scale.check(&run, &store).is_err(),
                "{letter} {field} was lost"
            );
            *store.rows.lock().expect("a lock") = whole.clone();
        }
        scale.check(&run, &store).expect("consistent again");
    }
}
