//! Putting values that lie in memory of a context.

use super::{DeviceStore, add};
use crate::engine::{Buffer, Operation, Options, Transfer};
use crate::error::{Error, ErrorKind, Result};
use crate::kv::wal::Lsn;

impl DeviceStore {
    /// Puts the bytes of a range of a buffer as the value of `key`; durable when this returns. What
    /// is queued on streams and makes them must be done before.
    ///
    /// # Errors
    /// As [`crate::kv::store::Store::put`]; `OutOfRange` past the end of the buffer;
    /// `InvalidArgument` for a buffer of another context; `Io`, `Cuda`.
    pub fn put_from(&self, key: &[u8], from: &Buffer, offset: u64, size: u64) -> Result<Lsn> {
        let lsn = self.put_from_async(key, from, offset, size)?;
        self.inner.store.wait(lsn, None)?;
        Ok(lsn)
    }

    /// As `put_from`: visible when this returns, durable when `Store::wait` of the result does. The
    /// buffer may be used again then.
    ///
    /// # Errors
    /// As `put_from`.
    pub fn put_from_async(&self, key: &[u8], from: &Buffer, offset: u64, size: u64) -> Result<Lsn> {
        let inner = &*self.inner;
        if !from.is_of(&inner.context) {
            let message = "put a value: the buffer belongs to another context";
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        if offset.checked_add(size).is_none_or(|end| end > from.size()) {
            let message = format!(
                "put {size} bytes at offset {offset} of a buffer of {} bytes",
                from.size()
            );
            return Err(Error::new(ErrorKind::OutOfRange, message));
        }
        let lsn = if size <= inner.store.config().inline_max as u64 {
            let mut value = vec![0; size as usize];
            inner.context.download(from, offset, &mut value)?;
            inner.store.put_async(key, &value)?
        } else {
            self.put_large(key, from, offset, size)?
        };
        add(&inner.counters.puts, 1);
        add(&inner.counters.bytes_written, size);
        Ok(lsn)
    }

    fn put_large(&self, key: &[u8], from: &Buffer, offset: u64, size: u64) -> Result<Lsn> {
        let context = &self.inner.context;
        let mut writer = self.inner.store.put_writer(key, size)?;
        let mut done = 0;
        while done < size {
            let run = writer.reserve_run(size - done)?;
            let now = run.len.min(size - done);
            let at = offset + done;
            if done + now < size && !now.is_multiple_of(run.chunk) {
                // Too little room in one piece for a whole chunk: the store divides it.
                let mut chunk = vec![0; run.chunk.min(size - done) as usize];
                context.download(from, at, &mut chunk)?;
                writer.write(&chunk)?;
                done += chunk.len() as u64;
                continue;
            }
            let write = Transfer {
                operation: Operation::Write,
                file: self.inner.file.clone(),
                file_offset: run.offset,
                buffer: from.clone(),
                buffer_offset: at,
                size: now,
            };
            let ticket = context.submit(vec![write], &Options::default())?;
            // The device sums up what the disk is writing.
            let crcs = context.crc32c_chunks(from, at, now, run.chunk);
            let written = ticket.wait(None)?.bytes;
            if written != now {
                let message = format!("write {now} bytes of a value: {written} were written");
                return Err(Error::new(ErrorKind::Io, message).with_offset(run.offset));
            }
            writer.fill_run(&run, now, &crcs?)?;
            done += now;
        }
        writer.commit_async()
    }
}
