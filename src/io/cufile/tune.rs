//! How libcufile is set up before its driver opens: without litter, and with its pool on.
//!
//! What the user configured wins: nothing here applies where a cufile.json or a variable of
//! libcufile says otherwise.

use std::ffi::{CStr, c_char};
use std::path::Path;
use std::sync::atomic::{AtomicPtr, Ordering};

use super::library::Symbols;
use super::sys;

/// Where libcufile looks for its configuration unless `CUFILE_ENV_PATH_JSON` names another.
const SYSTEM_CONFIGURATION: &str = "/etc/cufile.json";
const LOG_VARIABLE: &str = "CUFILE_LOGFILE_PATH";
const LOG_NOWHERE: &CStr = c"CUFILE_LOGFILE_PATH=/dev/null";

const IO_THREADS: usize = 8;
const REQUEST_PARALLELISM: usize = 4;

unsafe extern "C" {
    static mut environ: *mut *mut c_char;
}

fn configured_by_user() -> bool {
    std::env::var_os("CUFILE_ENV_PATH_JSON").is_some() || Path::new(SYSTEM_CONFIGURATION).exists()
}

/// Turns the pool on where it is off: stream calls need it, and 1.14 and 1.15 start without it.
/// Libraries before 1.14 have no such call; they keep their defaults. A parameter that is refused
/// stays as it is, because every one of them only tunes.
pub(super) fn parameters(symbols: &Symbols) {
    let (Some(get_size), Some(set_size)) = (symbols.get_size, symbols.set_size) else {
        return;
    };
    if configured_by_user() {
        return;
    }
    for (parameter, value) in [
        (sys::PARAMETER_MAX_IO_THREADS, IO_THREADS),
        (sys::PARAMETER_MAX_REQUEST_PARALLELISM, REQUEST_PARALLELISM),
    ] {
        let mut current = 0;
        // SAFETY: current outlives the call.
        let status = unsafe { get_size(parameter, &raw mut current) };
        if status.err.0 == 0 && current == 0 {
            // SAFETY: plain values, before the driver is opened.
            let _refused = unsafe { set_size(parameter, value) };
        }
    }
    if let Some(set_bool) = symbols.set_bool {
        // SAFETY: plain values, before the driver is opened.
        let _refused = unsafe { set_bool(sys::PARAMETER_PARALLEL_IO, true) };
    }
}

/// While this lives, libcufile finds a log file that goes nowhere in the environment.
#[derive(Debug)]
pub(super) struct Quiet {
    before: *mut *mut c_char,
    during: *mut *mut c_char,
}

/// Keeps libcufile from writing cufile.log into the current directory, which it does at the first
/// opening of its driver. Does nothing where the user chose a log file or a cufile.json.
///
/// Only the environment decides: the parameters for the log's path and folder come too late, the
/// log is open by then. `setenv` may free the array that another thread's `getenv` walks, so the
/// array is copied, extended and swapped in with one store, and the old one stays valid: a reader
/// sees the one or the other. What remains is a race with another thread's `setenv` at the very
/// moment of the first open; a process that must not have it sets CUFILE_LOGFILE_PATH itself.
pub(super) fn quiet() -> Option<Quiet> {
    if std::env::var_os(LOG_VARIABLE).is_some() || configured_by_user() {
        return None;
    }
    let before = current().load(Ordering::Acquire);
    let mut entries = Vec::new();
    if !before.is_null() {
        let mut at = before;
        // SAFETY: environ is an array of pointers that ends with NULL.
        while let entry = unsafe { *at }
            && !entry.is_null()
        {
            entries.push(entry);
            // SAFETY: the entry was not the last one.
            at = unsafe { at.add(1) };
        }
    }
    entries.push(LOG_NOWHERE.as_ptr().cast_mut());
    entries.push(std::ptr::null_mut());
    // Never freed: another thread may be reading it when it is swapped out again.
    let during = Vec::leak(entries).as_mut_ptr();
    current().store(during, Ordering::Release);
    Some(Quiet { before, during })
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // Somebody else's setenv may have replaced our array by a copy of it; then that one stays.
        let _replaced = current().compare_exchange(
            self.during,
            self.before,
            Ordering::AcqRel,
            Ordering::Acquire,
        );
    }
}

fn current() -> &'static AtomicPtr<*mut c_char> {
    // SAFETY: environ lives as long as the process and is aligned as a pointer.
    unsafe { AtomicPtr::from_ptr(&raw mut environ) }
}
