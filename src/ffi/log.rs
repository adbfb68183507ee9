//! Log messages go to the caller's callback and nowhere else.

use core::ffi::{c_char, c_void};
use std::cell::Cell;
use std::sync::Arc;

use parking_lot::RwLock;

use super::error::{Failure, Outcome, text};
use super::guard::guard;
use super::handle;
use super::status::gds_status_t;
use super::types::{gds_log_fn, gds_log_level_t, gds_release_fn};

/// The caller's callback. Dropped, and `release` called, once no thread is inside the
/// callback.
struct Sink {
    call: unsafe extern "C" fn(i32, *const c_char, *mut c_void),
    user_data: *mut c_void,
    release: gds_release_fn,
}

// SAFETY: the header asks for a callback and user data that work from any thread.
unsafe impl Send for Sink {}
// SAFETY: as above; the callback may run on several threads at once.
unsafe impl Sync for Sink {}

impl Drop for Sink {
    fn drop(&mut self) {
        if let Some(release) = self.release {
            // SAFETY: the caller gave both together for this one call.
            unsafe { release(self.user_data) };
        }
    }
}

static SINK: RwLock<Option<Arc<Sink>>> = RwLock::new(None);

thread_local! {
    /// Whether this thread is inside the callback, whose own calls must not log again.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Gives a message to the callback, if there is one.
pub(crate) fn write(level: gds_log_level_t, message: &str) {
    // In a forked child another thread may have held the lock for ever.
    if handle::is_forked() || INSIDE.get() {
        return;
    }
    let Some(sink) = SINK.read().clone() else {
        return;
    };
    let message = text(message.as_bytes());
    INSIDE.set(true);
    // SAFETY: the callback and its data live as long as the sink; the text is NUL-terminated.
    unsafe { (sink.call)(level as i32, message.as_ptr(), sink.user_data) };
    drop(sink);
    INSIDE.set(false);
}

/// Send log messages to a callback, in place of the one before. The library never prints.
///
/// The callback of before gets its `release` once no thread is inside it, which may be
/// before or after this call returns. Any thread, at any time; one callback for the process.
///
/// @param callback   NULL to log nothing; then user_data and release must be NULL as well.
/// @param user_data  handed to every call.
/// @param release    called exactly once with user_data when it is not needed any more, on
///                   the thread that is the last to use it. May be NULL.
/// @return GDS_STATUS_INVALID_ARGUMENT: data or release without a callback (release is not
///         called); GDS_STATUS_FORKED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gds_set_log_callback(
    callback: gds_log_fn,
    user_data: *mut c_void,
    release: gds_release_fn,
) -> gds_status_t {
    guard(|| {
        handle::not_forked()?;
        let sink = sink_of(callback, user_data, release)?;
        let before = std::mem::replace(&mut *SINK.write(), sink);
        // Outside the lock: the release may call the library.
        drop(before);
        Ok(())
    })
}

fn sink_of(
    callback: gds_log_fn,
    user_data: *mut c_void,
    release: gds_release_fn,
) -> Outcome<Option<Arc<Sink>>> {
    match callback {
        Some(call) => Ok(Some(Arc::new(Sink {
            call,
            user_data,
            release,
        }))),
        None if user_data.is_null() && release.is_none() => Ok(None),
        None => Err(Failure::argument(
            "gds_set_log_callback got user_data or release without a callback; \
             give a callback, or NULL for all three",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    #[derive(Default)]
    struct Seen {
        calls: AtomicU32,
        releases: AtomicU32,
    }

    unsafe extern "C" fn note(_: i32, _: *const c_char, data: *mut c_void) {
        // SAFETY: the tests hand out a `Seen` that outlives the callback.
        let seen = unsafe { &*data.cast::<Seen>() };
        seen.calls.fetch_add(1, SeqCst);
        write(gds_log_level_t::GDS_LOG_LEVEL_ERROR, "from inside: dropped");
    }

    unsafe extern "C" fn give_back(data: *mut c_void) {
        // SAFETY: as in `note`.
        unsafe { &*data.cast::<Seen>() }
            .releases
            .fetch_add(1, SeqCst);
    }

    // One test: the callback belongs to the process.
    #[test]
    fn the_callback_is_called_and_released_exactly_once() {
        let seen = Seen::default();
        let data = (&raw const seen).cast_mut().cast::<c_void>();
        // SAFETY: `seen` lives until the callback is replaced below.
        let set = |f: gds_log_fn, d, r: gds_release_fn| unsafe { gds_set_log_callback(f, d, r) };
        assert_eq!(set(Some(note), data, Some(give_back)) as i32, 0);
        write(gds_log_level_t::GDS_LOG_LEVEL_INFO, "hello");
        assert!(seen.calls.load(SeqCst) >= 1);
        assert_eq!(seen.releases.load(SeqCst), 0);
        assert_eq!(set(None, data, None) as i32, 1, "data without a callback");
        assert_eq!(set(None, std::ptr::null_mut(), None) as i32, 0);
        // Another test's failure may still be inside the callback for a moment.
        while seen.releases.load(SeqCst) == 0 {
            std::thread::yield_now();
        }
        let calls = seen.calls.load(SeqCst);
        write(gds_log_level_t::GDS_LOG_LEVEL_INFO, "nobody listens");
        assert_eq!(
            (seen.calls.load(SeqCst), seen.releases.load(SeqCst)),
            (calls, 1)
        );
    }
}
