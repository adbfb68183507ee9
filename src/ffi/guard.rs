//! The one way out of Rust: no panic crosses, every failure gets its status and its last error.
//!
//! A panic inside `guard` answers GDS_STATUS_PANIC; the borrowed handles, dropped while the stack
//! unwinds, poison their objects (see `handle`). Panics never reach stderr from here: the text
//! goes into the last error and to the log callback.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::Once;

use super::error::{self, Failure, Outcome};
use super::log;
use super::status::gds_status_t;
use super::types::gds_log_level_t;

thread_local! {
    /// How many guards this thread is in.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    /// Where the panic that is being unwound came from.
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs a body, keeps its failure as the thread's last error, and answers its status.
#[inline]
pub(crate) fn guard(body: impl FnOnce() -> Outcome) -> gds_status_t {
    match caught(body) {
        Ok(()) => gds_status_t::GDS_STATUS_OK,
        Err(failure) => failed(failure),
    }
}

#[cold]
fn failed(failure: Failure) -> gds_status_t {
    let status = failure.status;
    let level = gds_log_level_t::GDS_LOG_LEVEL_DEBUG;
    log::write(level, failure.error.message());
    error::set_last(failure);
    status
}

/// As `guard`, for calls that report errors and must not replace them.
pub(crate) fn guard_quiet(body: impl FnOnce() -> Outcome) -> gds_status_t {
    caught(body).map_or_else(|failure| failure.status, |()| gds_status_t::GDS_STATUS_OK)
}

/// As `guard`, for calls that answer nothing.
pub(crate) fn guard_void(body: impl FnOnce()) {
    if let Err(failure) = caught(|| {
        body();
        Ok(())
    }) {
        error::set_last(failure);
    }
}

#[inline]
fn caught(body: impl FnOnce() -> Outcome) -> Outcome {
    static HOOK: Once = Once::new();
    HOOK.call_once(hook_install);
    let result = DEPTH.with(|depth| {
        depth.set(depth.get() + 1);
        // A borrowed object that saw the panic is poisoned, so nobody sees it half changed.
        let result = catch_unwind(AssertUnwindSafe(body));
        depth.set(depth.get() - 1);
        result
    });
    result.unwrap_or_else(|payload| Err(of_panic(payload)))
}

/// The failure that stands for a caught panic.
#[cold]
pub(crate) fn of_panic(payload: Box<dyn Any + Send>) -> Failure {
    let place = PLACE
        .try_with(|p| p.take())
        .ok()
        .flatten()
        .unwrap_or_default();
    let message = format!(
        "the library panicked{place}: {}; close the objects of this call and report this",
        payload_text(payload.as_ref())
    );
    // A payload may panic when it is dropped, and there is no guard left to catch that.
    std::mem::forget(payload);
    Failure::own(gds_status_t::GDS_STATUS_PANIC, message)
}

fn payload_text(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

/// Panics under a guard, and on the library's own threads, go to the log instead of stderr.
/// All others, in programs that link the Rust crate, go where they went before.
fn hook_install() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let ours = std::thread::current()
            .name()
            .is_some_and(|name| name.starts_with("gds"));
        if DEPTH.get() > 0 || ours {
            hook(info);
        } else {
            before(info);
        }
    }));
}

fn hook(info: &PanicHookInfo<'_>) {
    let place = info
        .location()
        .map(|at| format!(" at {}:{}", at.file(), at.line()))
        .unwrap_or_default();
    let text = format!("panic{place}: {}", payload_text(info.payload()));
    let _ = PLACE.try_with(|p| p.replace(Some(place)));
    log::write(gds_log_level_t::GDS_LOG_LEVEL_ERROR, &text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, ErrorKind};
    use std::ffi::CStr;

    fn last() -> String {
        // SAFETY: never NULL and NUL-terminated, valid until the next failure of this thread.
        let text = unsafe { CStr::from_ptr(error::gds_last_error_message()) };
        text.to_string_lossy().into_owned()
    }

    #[test]
    fn a_panic_answers_its_status_message_and_place() {
        assert_eq!(
            guard(|| panic!("number {}", 7)),
            gds_status_t::GDS_STATUS_PANIC
        );
        let text = last();
        assert!(
            text.contains("number 7") && text.contains("guard.rs:"),
            "{text}"
        );
    }

    #[test]
    fn a_failure_is_kept_and_a_success_does_not_clear_it() {
        let failed = guard(|| Err(Error::new(ErrorKind::NoSpace, "full").into()));
        assert_eq!(failed, gds_status_t::GDS_STATUS_NO_SPACE);
        assert_eq!(guard(|| Ok(())), gds_status_t::GDS_STATUS_OK);
        assert_eq!(last(), "full");
        assert_eq!(guard_quiet(|| Err(Failure::null("x"))) as i32, 1);
        assert_eq!(last(), "full", "a quiet guard leaves it alone");
    }

    #[test]
    fn errors_stay_on_their_thread() {
        let _ = guard(|| Err(Failure::null("here")));
        std::thread::spawn(|| assert_eq!(last(), ""))
            .join()
            .unwrap();
        assert!(last().starts_with("here is NULL"));
    }

    #[test]
    fn a_payload_that_panics_on_drop_is_not_dropped() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("dropped");
            }
        }
        let status = guard(|| std::panic::panic_any(Bomb));
        assert_eq!(status, gds_status_t::GDS_STATUS_PANIC);
    }
}
