//! Texts of a column on their way to one place, row group by row group, by several threads.
//!
//! Where those of a row group begin is known when all before it are counted: from the file, where
//! its metadata say how many bytes they are, or when they are decoded. Until then a thread keeps
//! the pieces that it decodes. On the host device the row group whose turn it is goes to its place
//! piece by piece, and memory is taken before the size of all is known: what is never written to
//! takes none there, only addresses. Memory of other devices is taken when it is.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use arrow_buffer::Buffer as Bytes;
use arrow_data::ArrayData;
use parking_lot::{Mutex, RwLock, RwLockReadGuard};

use super::chunks::Chunk;
use super::pages::PageKind;
use super::reader::Parquet;
use super::select::Part;
use super::straight::{ALIGN, pad};
use crate::base::align_up;
use crate::engine::{Buffer, Context, Copy, MemoryKind};
use crate::error::{Error, ErrorKind, Result};
use crate::formats::Slice;

/// The texts of a column.
pub(super) struct Texts<'a> {
    context: &'a Context,
    /// Bytes of an offset.
    width: usize,
    rows: u64,
    /// The first row of each part.
    starts: Vec<u64>,
    /// Where offsets go, from the first byte on.
    offsets: Buffer,
    /// Most bytes of texts.
    limit: u64,
    /// Where the texts of each part begin and those of the last one end, as the file says.
    told: Option<Vec<u64>>,
    /// Bytes that are expected in all.
    expected: u64,
    memory: RwLock<Option<Buffer>>,
    /// Behind the last byte that was put there.
    filled: AtomicU64,
    /// Bytes of all that was taken.
    taken: AtomicU64,
    /// The first part that is not counted.
    turn: AtomicUsize,
    order: Mutex<Order>,
    is_too_long: AtomicBool,
    is_told_wrong: AtomicBool,
}

/// What is known of parts.
#[derive(Debug, Default)]
struct Order {
    /// Bytes of the parts that are counted without a gap.
    used: u64,
    /// Bytes of those that were decoded before their turn, and their pieces.
    early: HashMap<usize, (u64, Vec<ArrayData>)>,
    /// Pieces whose place is known.
    waiting: VecDeque<Placed>,
}

/// A piece with its place: its first row, and where its first byte goes.
#[derive(Debug)]
struct Placed {
    data: ArrayData,
    first: u64,
    at: u64,
}

/// What one thread knows of the part that it decodes.
pub(super) struct Own {
    part: usize,
    /// Where the next piece goes, once that is known.
    at: Option<u64>,
    /// Rows and bytes of the part.
    rows: u64,
    size: u64,
    held: Vec<ArrayData>,
}

/// What became of a column.
pub(super) enum End {
    /// The texts, none where they have no bytes.
    Texts(Option<Slice>),
    /// They pass offsets of 32 bits.
    TooLong,
    /// They are not as long as the file says: nothing is right.
    ToldWrong,
}

impl<'a> Texts<'a> {
    /// Of the chunks of a column, whose offsets of `width` bytes go to `offsets`. What the file
    /// says of its texts is believed when `trusts` says so.
    pub fn new(
        context: &'a Context,
        parquet: &Parquet,
        parts: &[Part],
        chunks: &[&Chunk],
        (width, offsets, limit): (usize, &Buffer, u64),
        trusts: bool,
    ) -> Self {
        let start = |sum: &mut u64, part: &Part| {
            let own = *sum;
            *sum = sum.saturating_add(part.count);
            Some(own)
        };
        let mut made = Self {
            context,
            width,
            rows: parts.iter().map(|part| part.count).sum(),
            starts: parts.iter().scan(0, start).collect(),
            offsets: offsets.clone(),
            limit,
            told: None,
            expected: expected(parquet, chunks).min(limit),
            memory: RwLock::default(),
            filled: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            turn: AtomicUsize::new(0),
            order: Mutex::default(),
            is_too_long: AtomicBool::new(false),
            is_told_wrong: AtomicBool::new(false),
        };
        let most = made.limit.min(made.longest());
        let told = told(parquet, parts, chunks).filter(|_| trusts);
        if let Some(told) = told
            && let Some(total) = told.last().copied().filter(|total| *total <= most)
            && let Ok(memory) = made.exactly(total)
        {
            made.memory = RwLock::new(memory);
            made.told = Some(told);
        }
        made
    }

    /// Bytes that offsets can count.
    fn longest(&self) -> u64 {
        match self.width {
            4 => i32::MAX as u64,
            _ => i64::MAX as u64,
        }
    }

    /// Memory for so many bytes and no more; none for none.
    fn exactly(&self, size: u64) -> Result<Option<Buffer>> {
        let aligned = align_up(size, ALIGN).filter(|size| *size > 0);
        let memory = aligned.map(|size| self.context.alloc(MemoryKind::Device, size));
        memory.transpose()
    }

    pub fn begin(&self, part: usize) -> Own {
        Own {
            part,
            at: self.told.as_ref().and_then(|told| told.get(part)).copied(),
            rows: 0,
            size: 0,
            held: Vec::new(),
        }
    }

    /// Takes the next piece of a part.
    pub fn take(&self, own: &mut Own, data: ArrayData) -> Result<()> {
        let (rows, size) = (data.len() as u64, self.size_of(&data));
        let taken = self.taken.fetch_add(size, Ordering::Relaxed);
        if taken.saturating_add(size) > self.limit {
            let (all, limit) = (taken.saturating_add(size), self.limit);
            let text = format!("texts of {all} bytes, and {limit} are allowed");
            return Err(Error::new(ErrorKind::OutOfHostMemory, text));
        }
        if own.at.is_none()
            && self.context.device().is_host()
            && self.turn.load(Ordering::Acquire) == own.part
        {
            own.at = Some(self.order.lock().used);
        }
        let before: u64 = own.held.iter().map(|held| held.len() as u64).sum();
        let mut first = self.starts[own.part] + own.rows - before;
        own.rows += rows;
        own.size += size;
        own.held.push(data);
        if self.passes_what_was_told(own) {
            own.held.clear();
            return Ok(());
        }
        let Some(at) = &mut own.at else {
            return Ok(());
        };
        for data in own.held.drain(..) {
            let (rows, size) = (data.len() as u64, self.size_of(&data));
            self.put(&Placed {
                data,
                first,
                at: *at,
            })?;
            first += rows;
            *at += size;
        }
        Ok(())
    }

    /// Whether a part is longer than the file says.
    fn passes_what_was_told(&self, own: &Own) -> bool {
        let told = self.told.as_ref();
        let size = told.and_then(|told| Some(told.get(own.part + 1)? - told.get(own.part)?));
        let passes = size.is_some_and(|size| own.size > size);
        if passes {
            self.is_told_wrong.store(true, Ordering::Relaxed);
        }
        passes
    }

    /// Ends a part, all of whose pieces were taken. Puts a few of those to their place that wait
    /// for it: twice as many as it brought, so that they become fewer.
    pub fn end(&self, own: Own) -> Result<()> {
        if let Some(told) = &self.told {
            if told.get(own.part + 1) != own.at.as_ref() {
                self.is_told_wrong.store(true, Ordering::Relaxed);
            }
            return Ok(());
        }
        let brought = own.held.len();
        let mut order = self.order.lock();
        order.early.insert(own.part, (own.size, own.held));
        let mut turn = self.turn.load(Ordering::Acquire);
        while let Some((size, held)) = order.early.remove(&turn) {
            let mut at = order.used;
            let mut first = self.starts[turn];
            order.used = order.used.saturating_add(size);
            for data in held {
                let (rows, size) = (data.len() as u64, self.size_of(&data));
                order.waiting.push_back(Placed { data, first, at });
                first += rows;
                at += size;
            }
            turn += 1;
        }
        if order.used > self.longest() {
            self.is_too_long.store(true, Ordering::Relaxed);
        }
        let is_all = turn == self.starts.len();
        if is_all && !self.context.device().is_host() && order.used <= self.longest() {
            *self.memory.write() = self.exactly(order.used)?;
        }
        self.turn.store(turn, Ordering::Release);
        drop(order);
        self.put_waiting(2 * brought)
    }

    /// Pieces that wait to be put to their place, which is known.
    pub fn waiting(&self) -> usize {
        self.order.lock().waiting.len()
    }

    /// Puts so many of those that wait to their place, while there are any.
    pub fn put_waiting(&self, most: usize) -> Result<()> {
        let is_all = self.turn.load(Ordering::Acquire) == self.starts.len();
        if !is_all && !self.context.device().is_host() {
            return Ok(());
        }
        for _ in 0..most {
            let Some(piece) = self.order.lock().waiting.pop_front() else {
                break;
            };
            self.put(&piece)?;
        }
        Ok(())
    }

    /// Bytes of the texts of a piece.
    fn size_of(&self, data: &ArrayData) -> u64 {
        let range = self.range_of(data);
        (range.end - range.start) as u64
    }

    /// Where the texts of a piece lie in its bytes.
    fn range_of(&self, data: &ArrayData) -> Range<usize> {
        let (from, to) = (data.offset(), data.offset() + data.len());
        if data.is_empty() {
            return 0..0;
        }
        match self.width {
            4 => {
                let all = data.buffers()[0].typed_data::<i32>();
                all[from] as usize..all[to] as usize
            }
            _ => {
                let all = data.buffers()[0].typed_data::<i64>();
                all[from] as usize..all[to] as usize
            }
        }
    }

    /// The offsets of a piece but the first, when its texts begin at `at`.
    fn offsets_of(&self, data: &ArrayData, at: u64) -> Bytes {
        let own = data.offset()..=data.offset() + data.len();
        // Their difference fits, and so do both.
        match self.width {
            4 => {
                let own = &data.buffers()[0].typed_data::<i32>()[own];
                let add = (at as i64 - i64::from(own[0])) as i32;
                let moved = own[1..].iter().map(|at| at.wrapping_add(add));
                Bytes::from_vec(moved.collect::<Vec<i32>>())
            }
            _ => {
                let own = &data.buffers()[0].typed_data::<i64>()[own];
                let add = at as i64 - own[0];
                let moved = own[1..].iter().map(|at| at.wrapping_add(add));
                Bytes::from_vec(moved.collect::<Vec<i64>>())
            }
        }
    }

    fn put(&self, piece: &Placed) -> Result<()> {
        let Placed { data, first, at } = piece;
        let range = self.range_of(data);
        let end = at.saturating_add(range.len() as u64);
        if end > self.longest() {
            self.is_too_long.store(true, Ordering::Relaxed);
        }
        if data.is_empty() || self.is_too_long.load(Ordering::Relaxed) {
            return Ok(());
        }
        let offsets = self.offsets_of(data, *at);
        let offsets_at = (first + 1) * self.width as u64;
        let offsets = (offsets.as_slice(), &self.offsets, offsets_at);
        if range.is_empty() {
            return self.context.upload(&[offsets]);
        }
        let room = self.room(end, first + data.len() as u64)?;
        if let Some(memory) = &*room {
            let bytes = &data.buffers()[1].as_slice()[range];
            self.context.upload(&[offsets, (bytes, memory, *at)])?;
            self.filled.fetch_max(end, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Memory for so many bytes of texts, of the first `rows` rows. It stays what it is until the
    /// guard is gone.
    fn room(&self, end: u64, rows: u64) -> Result<RwLockReadGuard<'_, Option<Buffer>>> {
        loop {
            let memory = self.memory.read();
            if memory.as_ref().is_some_and(|memory| memory.size() >= end) {
                return Ok(memory);
            }
            drop(memory);
            self.grow(end, rows)?;
        }
    }

    fn grow(&self, end: u64, rows: u64) -> Result<()> {
        let mut memory = self.memory.write();
        let size = memory.as_ref().map_or(0, Buffer::size);
        if size >= end {
            return Ok(());
        }
        let alike = u128::from(end) * u128::from(self.rows) / u128::from(rows.max(1));
        let alike = u64::try_from(alike).unwrap_or(u64::MAX);
        let likely = match size {
            0 => self.expected.max(alike),
            _ => alike.max(size.saturating_mul(2)),
        };
        let likely = likely.saturating_add(likely / 8).min(self.limit);
        let size = likely.max(end).max(ALIGN);
        let size = align_up(size, ALIGN).unwrap_or(size);
        let larger = match self.context.alloc(MemoryKind::Device, size) {
            Err(_) if size > end => {
                let least = align_up(end, ALIGN).unwrap_or(end);
                self.context.alloc(MemoryKind::Device, least)?
            }
            other => other?,
        };
        let filled = self.filled.load(Ordering::Relaxed);
        if let Some(from) = memory.take().filter(|_| filled > 0) {
            self.context.copy(&[Copy {
                from,
                from_offset: 0,
                to: larger.clone(),
                to_offset: 0,
                size: filled,
            }])?;
        }
        *memory = Some(larger);
        Ok(())
    }

    /// The texts, all of whose pieces are at their place.
    pub fn finish(self) -> Result<End> {
        if self.is_told_wrong.into_inner() {
            return Ok(End::ToldWrong);
        }
        if self.is_too_long.into_inner() {
            return Ok(End::TooLong);
        }
        let told = self.told.and_then(|told| told.last().copied());
        let size = told.unwrap_or_else(|| self.order.into_inner().used);
        let Some(buffer) = self.memory.into_inner() else {
            return Ok(End::Texts(None));
        };
        self.context.upload(&[pad(&buffer, size)])?;
        Ok(End::Texts(Some(Slice {
            buffer,
            offset: 0,
            size,
        })))
    }
}

/// Where the texts of each part begin and those of the last one end, if the file says so.
fn told(parquet: &Parquet, parts: &[Part], chunks: &[&Chunk]) -> Option<Vec<u64>> {
    let mut sum = 0u64;
    let mut told = vec![0];
    for (part, chunk) in parts.iter().zip(chunks) {
        let size = said(parquet, chunk).filter(|_| part.rows.is_none())?;
        sum = sum.checked_add(size)?;
        told.push(sum);
    }
    Some(told)
}

/// Bytes of the texts of a chunk, as the file says.
fn said(parquet: &Parquet, chunk: &Chunk) -> Option<u64> {
    let metadata = parquet.metadata().row_group(chunk.row_group);
    let column = metadata.column(chunk.plan.leaf);
    let said = column.unencoded_byte_array_data_bytes();
    let said = said.and_then(|size| u64::try_from(size).ok());
    said.filter(|_| chunk.plan.pages.is_none())
}

/// Bytes of texts that a file makes us expect: what it says itself, or those of pages as they are.
fn expected(parquet: &Parquet, chunks: &[&Chunk]) -> u64 {
    let of_chunk = |chunk: &&Chunk| {
        let plain = chunk.pages.iter().filter(|page| {
            let is_data = matches!(page.header.kind, PageKind::Data | PageKind::DataV2);
            is_data && matches!(page.header.encoding, 0 | 6)
        });
        let plain = plain.map(|page| u64::from(page.header.uncompressed)).sum();
        said(parquet, chunk).unwrap_or(plain)
    };
    let sum = |sum: u64, size: u64| sum.saturating_add(size);
    chunks.iter().map(of_chunk).fold(0, sum)
}

#[cfg(test)]
mod tests {
    use arrow_array::{Array, StringArray};

    use super::*;
    use crate::config::{Config, DEVICE_HOST};

    fn context() -> Context {
        let config = Config {
            gpu_device: DEVICE_HOST,
            ..Config::default()
        };
        Context::open(config).expect("a host context")
    }

    /// Sixty texts in three parts.
    fn texts<'a>(context: &'a Context, offsets: &Buffer, told: Option<Vec<u64>>) -> Texts<'a> {
        let mut made = Texts {
            context,
            width: 4,
            rows: 60,
            starts: vec![0, 20, 40],
            offsets: offsets.clone(),
            limit: 1 << 20,
            told: None,
            expected: 0,
            memory: RwLock::default(),
            filled: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            turn: AtomicUsize::new(0),
            order: Mutex::default(),
            is_too_long: AtomicBool::new(false),
            is_told_wrong: AtomicBool::new(false),
        };
        if let Some(told) = told {
            let memory = made.exactly(told[3]).expect("memory");
            made.memory = RwLock::new(memory);
            made.told = Some(told);
        }
        made
    }

    /// Texts that become longer, so that memory for them has to grow, and their offsets.
    fn all() -> (Vec<String>, Vec<u8>) {
        let texts: Vec<String> = (0..60).map(|i| "ab".repeat(i * i)).collect();
        let mut ends = vec![0u32];
        ends.extend(texts.iter().scan(0, |end, text| {
            *end += text.len() as u32;
            Some(*end)
        }));
        let offsets = ends.iter().flat_map(|end| end.to_le_bytes()).collect();
        (texts, offsets)
    }

    /// Takes texts of three parts in the order of `steps`, part and how many of its pieces, ends
    /// the part after its last one, and compares what has become of them.
    fn check(steps: &[(usize, usize)], cuts: &[usize], told: Option<Vec<u64>>) {
        let (wanted, offsets) = all();
        let context = context();
        let memory = context.alloc(MemoryKind::Device, 4096).expect("memory");
        context.upload(&[(&[0; 4], &memory, 0)]).expect("a zero");
        let texts = texts(&context, &memory, told);
        let mut parts: Vec<Option<(Own, usize)>> =
            (0..3).map(|p| Some((texts.begin(p), 0))).collect();
        for (part, pieces) in steps {
            let (mut own, mut at) = parts[*part].take().expect("it goes on");
            for _ in 0..*pieces {
                let range = part * 20 + cuts[at]..part * 20 + cuts[at + 1];
                let piece: StringArray = wanted[range].iter().map(Some).collect();
                texts.take(&mut own, piece.to_data()).expect("room");
                at += 1;
            }
            if at + 1 == cuts.len() {
                texts.end(own).expect("room");
            } else {
                parts[*part] = Some((own, at));
            }
        }
        texts.put_waiting(usize::MAX).expect("room");
        assert_eq!(texts.waiting(), 0);
        let Ok(End::Texts(Some(slice))) = texts.finish() else {
            panic!("there are texts");
        };
        let bring = |buffer: &Buffer, size: usize| {
            let mut bytes = vec![0; size];
            let got = context.download(buffer, 0, &mut bytes);
            got.map(|()| bytes).expect("it comes back")
        };
        let bytes = bring(&slice.buffer, slice.size as usize);
        assert!(bytes == wanted.concat().as_bytes(), "{steps:?}");
        assert_eq!(bring(&memory, offsets.len()), offsets, "{steps:?}");
    }

    #[test]
    fn texts_follow_each_other_whoever_comes_first() {
        let sum = |to: usize| (0..to).map(|i| 2 * (i * i) as u64).sum();
        let told = Some(vec![0, sum(20), sum(40), sum(60)]);
        let cuts = [0, 7, 12, 12, 20];
        for told in [None, told] {
            for steps in [
                &[(0, 4), (1, 4), (2, 4)][..],
                &[(2, 4), (1, 4), (0, 4)],
                &[(2, 4), (1, 1), (0, 4), (1, 3)],
                &[(1, 2), (2, 3), (0, 1), (2, 1), (0, 3), (1, 2)],
            ] {
                check(steps, &cuts, told.clone());
            }
        }
    }

    #[test]
    fn texts_that_are_not_as_long_as_told_are_not_believed() {
        let context = context();
        let memory = context.alloc(MemoryKind::Device, 4096).expect("memory");
        let piece: StringArray = (0..20).map(|_| Some("three")).collect();
        for told in [vec![0, 99, 199, 299], vec![0, 101, 200, 300]] {
            let texts = texts(&context, &memory, Some(told));
            for part in [1, 0, 2] {
                let mut own = texts.begin(part);
                texts.take(&mut own, piece.to_data()).expect("room");
                texts.end(own).expect("nothing waits");
            }
            assert!(matches!(texts.finish(), Ok(End::ToldWrong)));
        }
    }
}
