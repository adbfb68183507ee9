//! Our page cache with every page resident, through Rust and through the C functions.
//!
//! Pages are 4 KiB of a file of holes, on the host device. Memory for them is taken, and read into.

use std::ffi::CString;
use std::hint::black_box;
use std::mem::zeroed;
use std::path::PathBuf;
use std::ptr::null_mut;

use gds_rs::cache::{Cache, CacheConfig};
use gds_rs::config::{Config, DEVICE_HOST};
use gds_rs::engine::{Context, File};
use gds_rs::ffi;
use gds_rs::ffi::status::gds_status_t;
use gds_rs::ffi::types::{
    gds_cache_config_t, gds_cache_range_t, gds_cache_t, gds_config_t, gds_context_t, gds_file_t,
    gds_page_t,
};
use gds_rs::io::OpenMode;

use crate::Contender;

const PAGE: u64 = 4096;

/// Through Rust.
pub struct Rust {
    cache: Cache,
    file: File,
}

/// Through the C functions.
pub struct C {
    context: *mut gds_context_t,
    cache: *mut gds_cache_t,
    file: *mut gds_file_t,
}

// SAFETY: handles of the ABI are used from many threads, as its header allows.
unsafe impl Sync for C {}

/// Removes the file of holes.
struct Holes(PathBuf);

impl Drop for Holes {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Shards differ in how many of the pages they get.
fn device_bytes(entries: u64) -> u64 {
    (entries + entries / 16 + 1024) * PAGE
}

/// Both, with the pages below `entries` resident.
pub fn open(entries: usize) -> (Rust, C) {
    let folder = std::env::var_os("TMPDIR").unwrap_or_else(|| "/var/tmp".into());
    let name = format!("gds_hit_cost.{}", std::process::id());
    let holes = Holes(PathBuf::from(folder).join(name));
    let made = std::fs::File::create(&holes.0).expect("a file in TMPDIR");
    made.set_len(entries as u64 * PAGE).expect("holes");
    (open_rust(&holes, entries), open_c(&holes, entries))
}

fn open_rust(holes: &Holes, entries: usize) -> Rust {
    let config = Config {
        gpu_device: DEVICE_HOST,
        ..Config::default()
    };
    let context = Context::open(config).expect("the host device");
    let mode = OpenMode::read_only();
    let file = context.open_file(&holes.0, mode).expect("it was made");
    let config = CacheConfig {
        page_size: PAGE as u32,
        device_bytes: device_bytes(entries as u64),
        ..CacheConfig::default()
    };
    let cache = Cache::open(&context, config).expect("memory for every page");
    let all = (0, entries as u64 * PAGE);
    cache.warm(&file, &[all]).expect("holes can be read");
    assert_eq!(cache.stats().resident, entries as u64);
    Rust { cache, file }
}

fn ok(status: gds_status_t) {
    assert_eq!(status as i32, 0);
}

fn open_c(holes: &Holes, entries: usize) -> C {
    let mut c = C {
        context: null_mut(),
        cache: null_mut(),
        file: null_mut(),
    };
    let name = CString::new(holes.0.to_str().expect("a plain path")).expect("no NUL");
    let all = gds_cache_range_t {
        offset: 0,
        size: entries as u64 * PAGE,
    };
    // SAFETY: structs of integers of the stated sizes, filled by the library, and places for
    // handles.
    unsafe {
        let (mut config, mut sizes): (gds_config_t, gds_cache_config_t) = (zeroed(), zeroed());
        let (config_size, sizes_size) = (size_of_val(&config), size_of_val(&sizes));
        ok(ffi::config::gds_config_init(
            (&raw mut config).cast(),
            config_size,
        ));
        ok(ffi::cache::gds_cache_config_init(
            (&raw mut sizes).cast(),
            sizes_size,
        ));
        config.gpu_device = DEVICE_HOST;
        sizes.page_bytes = PAGE as u32;
        sizes.device_bytes = device_bytes(entries as u64);
        ok(ffi::context::gds_context_open(&config, &mut c.context));
        ok(ffi::cache::gds_cache_open(c.context, &sizes, &mut c.cache));
        ok(ffi::file::gds_file_open(
            c.context,
            name.as_ptr(),
            1,
            &mut c.file,
        ));
        let mut read = 0;
        ok(ffi::cache::gds_cache_warm(
            c.cache, c.file, &all, 1, &mut read,
        ));
        assert_eq!(read, entries as u64);
    }
    c
}

impl Contender for Rust {
    fn name(&self) -> &'static str {
        "gds, Rust"
    }

    fn hit(&self, key: u32) -> bool {
        // As for the others: a page that is not there is not read.
        let page = self.cache.try_get(&self.file, u64::from(key) * PAGE);
        page.map(|page| black_box((page.address(), page.size())))
            .is_some()
    }
}

impl Contender for C {
    fn name(&self) -> &'static str {
        "gds, C"
    }

    fn hit(&self, key: u32) -> bool {
        let mut page = gds_page_t {
            address: null_mut(),
            offset_bytes: 0,
            size_bytes: 0,
            token: 0,
        };
        let offset = u64::from(key) * PAGE;
        // SAFETY: open handles and a page of this frame.
        let got = unsafe { ffi::cache::gds_cache_get(self.cache, self.file, offset, &mut page) };
        black_box((page.address, page.size_bytes));
        // SAFETY: as above.
        let gone = unsafe { ffi::cache::gds_cache_release(self.cache, &mut page) };
        got as i32 == 0 && gone as i32 == 0
    }
}

impl Drop for C {
    fn drop(&mut self) {
        // SAFETY: open handles, each closed once.
        unsafe {
            ffi::file::gds_file_close(self.file);
            ffi::cache::gds_cache_close(self.cache);
            ffi::context::gds_context_close(self.context);
        }
    }
}
