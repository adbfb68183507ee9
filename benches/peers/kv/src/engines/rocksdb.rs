//! RocksDB, the system's shared library, through the few functions of its C interface that a
//! benchmark needs.

use std::ffi::{CStr, CString, c_char, c_int, c_uchar, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::time::{Duration, Instant};

use crate::engine::{Engine, Op, Res, Settings};

type Handle = *mut c_void;
type Failure = *mut c_char;

/// `rocksdb_no_compression`.
const NO_COMPRESSION: c_int = 0;
/// Bits a key of the tables' Bloom filters.
const BLOOM_BITS: f64 = 10.0;

#[link(name = "rocksdb")]
unsafe extern "C" {
    fn rocksdb_options_create() -> Handle;
    fn rocksdb_options_destroy(options: Handle);
    fn rocksdb_options_set_create_if_missing(options: Handle, on: c_uchar);
    fn rocksdb_options_set_compression(options: Handle, kind: c_int);
    fn rocksdb_options_set_enable_blob_files(options: Handle, on: c_uchar);
    fn rocksdb_options_set_enable_blob_gc(options: Handle, on: c_uchar);
    fn rocksdb_options_set_block_based_table_factory(options: Handle, table: Handle);
    fn rocksdb_block_based_options_create() -> Handle;
    fn rocksdb_block_based_options_destroy(table: Handle);
    fn rocksdb_block_based_options_set_block_cache(table: Handle, cache: Handle);
    fn rocksdb_block_based_options_set_filter_policy(table: Handle, policy: Handle);
    fn rocksdb_filterpolicy_create_bloom_full(bits: f64) -> Handle;
    fn rocksdb_cache_create_lru(bytes: usize) -> Handle;
    fn rocksdb_cache_destroy(cache: Handle);
    fn rocksdb_open(options: Handle, path: *const c_char, failure: *mut Failure) -> Handle;
    fn rocksdb_close(db: Handle);
    fn rocksdb_writeoptions_create() -> Handle;
    fn rocksdb_writeoptions_destroy(options: Handle);
    fn rocksdb_writeoptions_set_sync(options: Handle, on: c_uchar);
    fn rocksdb_readoptions_create() -> Handle;
    fn rocksdb_readoptions_destroy(options: Handle);
    fn rocksdb_flushoptions_create() -> Handle;
    fn rocksdb_flushoptions_destroy(options: Handle);
    fn rocksdb_put(
        db: Handle,
        options: Handle,
        key: *const c_char,
        key_size: usize,
        value: *const c_char,
        value_size: usize,
        failure: *mut Failure,
    );
    fn rocksdb_delete(
        db: Handle,
        options: Handle,
        key: *const c_char,
        key_size: usize,
        failure: *mut Failure,
    );
    fn rocksdb_get_pinned(
        db: Handle,
        options: Handle,
        key: *const c_char,
        key_size: usize,
        failure: *mut Failure,
    ) -> Handle;
    fn rocksdb_pinnableslice_value(slice: Handle, size: *mut usize) -> *const c_char;
    fn rocksdb_pinnableslice_destroy(slice: Handle);
    fn rocksdb_writebatch_create() -> Handle;
    fn rocksdb_writebatch_destroy(batch: Handle);
    fn rocksdb_writebatch_put(
        batch: Handle,
        key: *const c_char,
        key_size: usize,
        value: *const c_char,
        value_size: usize,
    );
    fn rocksdb_writebatch_delete(batch: Handle, key: *const c_char, key_size: usize);
    fn rocksdb_write(db: Handle, options: Handle, batch: Handle, failure: *mut Failure);
    fn rocksdb_create_iterator(db: Handle, options: Handle) -> Handle;
    fn rocksdb_iter_destroy(iter: Handle);
    fn rocksdb_iter_seek(iter: Handle, key: *const c_char, key_size: usize);
    fn rocksdb_iter_valid(iter: Handle) -> c_uchar;
    fn rocksdb_iter_next(iter: Handle);
    fn rocksdb_iter_key(iter: Handle, size: *mut usize) -> *const c_char;
    fn rocksdb_iter_value(iter: Handle, size: *mut usize) -> *const c_char;
    fn rocksdb_iter_get_error(iter: Handle, failure: *mut Failure);
    fn rocksdb_flush(db: Handle, options: Handle, failure: *mut Failure);
    fn rocksdb_flush_wal(db: Handle, sync: c_uchar, failure: *mut Failure);
    fn rocksdb_property_int(db: Handle, name: *const c_char, value: *mut u64) -> c_int;
    fn rocksdb_free(memory: *mut c_void);
}

/// Calls a function that may set a failure, and turns that into an error.
fn checked<T>(call: impl FnOnce(*mut Failure) -> T) -> Res<T> {
    let mut failure: Failure = ptr::null_mut();
    let result = call(&raw mut failure);
    if failure.is_null() {
        return Ok(result);
    }
    // SAFETY: a failure is a C string that we own and give back.
    let text = unsafe {
        let text = CStr::from_ptr(failure).to_string_lossy().into_owned();
        rocksdb_free(failure.cast());
        text
    };
    Err(format!("rocksdb: {text}").into())
}

fn chars(bytes: &[u8]) -> *const c_char {
    bytes.as_ptr().cast()
}

/// The library's version, from the name of the file that was loaded.
pub fn version() -> String {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let name = maps.lines().find_map(|line| {
        let path = line.rsplit_once(' ')?.1;
        let file = std::fs::canonicalize(path).ok()?;
        let name = file.file_name()?.to_str()?;
        Some(name.strip_prefix("librocksdb.so.")?.to_owned())
    });
    name.unwrap_or_else(|| "unknown".to_owned())
}

pub struct Rocksdb {
    db: Handle,
    read: Handle,
    write: Handle,
    write_synced: Handle,
    flush: Handle,
}

// SAFETY: the library lets any thread use a database and options that nobody changes.
unsafe impl Send for Rocksdb {}
// SAFETY: as above.
unsafe impl Sync for Rocksdb {}

impl Rocksdb {
    pub fn open(dir: &Path, settings: &Settings) -> Res<Self> {
        let path = CString::new(dir.join("rocksdb").as_os_str().as_bytes())?;
        let cache_bytes = usize::try_from(settings.cache_bytes)?;
        let large = c_uchar::from(settings.large_values);
        // SAFETY: every object is made here, used as the header says and freed once; the database
        // keeps its own share of the cache, and the table options own the filter policy.
        unsafe {
            let table = rocksdb_block_based_options_create();
            let cache = rocksdb_cache_create_lru(cache_bytes);
            rocksdb_block_based_options_set_block_cache(table, cache);
            let policy = rocksdb_filterpolicy_create_bloom_full(BLOOM_BITS);
            rocksdb_block_based_options_set_filter_policy(table, policy);
            let options = rocksdb_options_create();
            rocksdb_options_set_create_if_missing(options, 1);
            rocksdb_options_set_compression(options, NO_COMPRESSION);
            rocksdb_options_set_enable_blob_files(options, large);
            rocksdb_options_set_enable_blob_gc(options, large);
            rocksdb_options_set_block_based_table_factory(options, table);
            let db = checked(|failure| rocksdb_open(options, path.as_ptr(), failure));
            rocksdb_options_destroy(options);
            rocksdb_block_based_options_destroy(table);
            rocksdb_cache_destroy(cache);
            let db = db?;
            let write_synced = rocksdb_writeoptions_create();
            rocksdb_writeoptions_set_sync(write_synced, 1);
            Ok(Self {
                db,
                read: rocksdb_readoptions_create(),
                write: rocksdb_writeoptions_create(),
                write_synced,
                flush: rocksdb_flushoptions_create(),
            })
        }
    }

    fn write_one(&self, options: Handle, key: &[u8], value: &[u8]) -> Res<()> {
        // SAFETY: the handles live as long as self; key and value are read during the call only.
        checked(|failure| unsafe {
            let (k, v) = (chars(key), chars(value));
            rocksdb_put(self.db, options, k, key.len(), v, value.len(), failure);
        })
    }

    fn lookup(&self, key: &[u8], found: impl FnOnce(&[u8])) -> Res<bool> {
        // SAFETY: as in `write_one`; the slice is ours until it is destroyed, after its last use.
        unsafe {
            let slice = checked(|failure| {
                rocksdb_get_pinned(self.db, self.read, chars(key), key.len(), failure)
            })?;
            if slice.is_null() {
                return Ok(false);
            }
            let mut size = 0;
            let value = rocksdb_pinnableslice_value(slice, &raw mut size);
            found(std::slice::from_raw_parts(value.cast(), size));
            rocksdb_pinnableslice_destroy(slice);
            Ok(true)
        }
    }

    fn property(&self, name: &CStr) -> u64 {
        let mut value = 0;
        // SAFETY: the name is a C string, and the result goes to a local.
        unsafe { rocksdb_property_int(self.db, name.as_ptr(), &raw mut value) };
        value
    }
}

impl Drop for Rocksdb {
    fn drop(&mut self) {
        // SAFETY: nobody uses self any more, and each is freed once.
        unsafe {
            rocksdb_close(self.db);
            rocksdb_readoptions_destroy(self.read);
            rocksdb_writeoptions_destroy(self.write);
            rocksdb_writeoptions_destroy(self.write_synced);
            rocksdb_flushoptions_destroy(self.flush);
        }
    }
}

impl Engine for Rocksdb {
    fn put(&self, key: &[u8], value: &[u8]) -> Res<()> {
        self.write_one(self.write, key, value)
    }

    fn put_durable(&self, key: &[u8], value: &[u8]) -> Res<()> {
        self.write_one(self.write_synced, key, value)
    }

    fn delete(&self, key: &[u8]) -> Res<()> {
        // SAFETY: as in `write_one`.
        checked(|failure| unsafe {
            rocksdb_delete(self.db, self.write, chars(key), key.len(), failure);
        })
    }

    fn get(&self, key: &[u8], into: &mut Vec<u8>) -> Res<bool> {
        into.clear();
        self.lookup(key, |value| into.extend_from_slice(value))
    }

    fn exists(&self, key: &[u8]) -> Res<bool> {
        self.lookup(key, |_| ())
    }

    fn batch(&self, ops: &[Op<'_>], durable: bool) -> Res<()> {
        let options = if durable {
            self.write_synced
        } else {
            self.write
        };
        // SAFETY: as in `write_one`; the batch copies what it is given and is freed once.
        unsafe {
            let batch = rocksdb_writebatch_create();
            for op in ops {
                match *op {
                    Op::Put(key, value) => {
                        let (k, v) = (chars(key), chars(value));
                        rocksdb_writebatch_put(batch, k, key.len(), v, value.len());
                    }
                    Op::Delete(key) => rocksdb_writebatch_delete(batch, chars(key), key.len()),
                }
            }
            let result = checked(|failure| rocksdb_write(self.db, options, batch, failure));
            rocksdb_writebatch_destroy(batch);
            result
        }
    }

    fn scan(&self, from: &[u8], limit: usize, each: &mut dyn FnMut(&[u8], &[u8])) -> Res<usize> {
        let mut seen = 0;
        // SAFETY: as in `write_one`; key and value are valid until the iterator moves.
        unsafe {
            let iter = rocksdb_create_iterator(self.db, self.read);
            rocksdb_iter_seek(iter, chars(from), from.len());
            while seen < limit && rocksdb_iter_valid(iter) != 0 {
                let (mut key_size, mut value_size) = (0, 0);
                let key = rocksdb_iter_key(iter, &raw mut key_size);
                let value = rocksdb_iter_value(iter, &raw mut value_size);
                each(
                    std::slice::from_raw_parts(key.cast(), key_size),
                    std::slice::from_raw_parts(value.cast(), value_size),
                );
                seen += 1;
                rocksdb_iter_next(iter);
            }
            let result = checked(|failure| rocksdb_iter_get_error(iter, failure));
            rocksdb_iter_destroy(iter);
            result?;
        }
        Ok(seen)
    }

    fn flush(&self) -> Res<()> {
        // SAFETY: as in `write_one`.
        checked(|failure| unsafe { rocksdb_flush(self.db, self.flush, failure) })?;
        let end = Instant::now() + Duration::from_secs(120);
        let mut idle = 0;
        while idle < 10 {
            let busy = self.property(c"rocksdb.compaction-pending")
                + self.property(c"rocksdb.num-running-compactions")
                + self.property(c"rocksdb.mem-table-flush-pending")
                + self.property(c"rocksdb.num-running-flushes");
            idle = if busy > 0 { 0 } else { idle + 1 };
            if Instant::now() > end {
                return Err("rocksdb: background work did not end within 120 s".into());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        self.sync()
    }

    fn sync(&self) -> Res<()> {
        // SAFETY: as in `write_one`.
        checked(|failure| unsafe { rocksdb_flush_wal(self.db, 1, failure) })
    }

    fn close(self: Box<Self>) -> Res<()> {
        self.sync()
    }
}
