//! The device's primary context: retained while the device is open, never reset, and current on
//! the caller's thread only while a call runs.

use std::marker::PhantomData;
use std::ptr;

use cudarc::driver::sys::{CUcontext, CUdevice};

use super::driver::Driver;
use crate::error::Result;

/// A retained primary context.
pub(super) struct Primary {
    driver: &'static Driver,
    device: CUdevice,
    context: CUcontext,
}

// SAFETY: a CUcontext may be used from any thread; the driver locks inside.
unsafe impl Send for Primary {}
// SAFETY: as above; nothing here changes after creation.
unsafe impl Sync for Primary {}

impl Primary {
    /// Retains the primary context of `device`. Shared with cudart and all other users.
    pub(super) fn retain(driver: &'static Driver, device: CUdevice) -> Result<Self> {
        let mut context = ptr::null_mut();
        // SAFETY: `device` is from cuDeviceGet; the context is written to a live pointer.
        let result = unsafe { (driver.f.cuDevicePrimaryCtxRetain)(&mut context, device) };
        driver.check(result, || {
            format!("retain the primary context of CUDA device {device}")
        })?;
        Ok(Self {
            driver,
            device,
            context,
        })
    }

    /// Makes the context current for the calling thread until the guard goes.
    #[inline]
    pub(super) fn enter(&self) -> Result<Entered<'_>> {
        let driver = self.driver;
        if self.is_current()? {
            return Ok(Entered {
                pushed: None,
                thread: PhantomData,
            });
        }
        // SAFETY: the context is retained, so it is alive.
        let result = unsafe { (driver.f.cuCtxPushCurrent_v2)(self.context) };
        driver.check(result, || {
            format!("make CUDA device {} current", self.device)
        })?;
        Ok(Entered {
            pushed: Some(driver),
            thread: PhantomData,
        })
    }

    /// Makes the context current for the rest of the calling thread's life.
    pub(super) fn adopt(&self) -> Result<()> {
        if self.is_current()? {
            return Ok(());
        }
        // SAFETY: the context is retained, so it is alive.
        let result = unsafe { (self.driver.f.cuCtxSetCurrent)(self.context) };
        self.driver.check(result, || {
            format!("make CUDA device {} current", self.device)
        })
    }

    #[inline]
    fn is_current(&self) -> Result<bool> {
        let mut current = ptr::null_mut();
        // SAFETY: the context is written to a live pointer.
        let result = unsafe { (self.driver.f.cuCtxGetCurrent)(&mut current) };
        self.driver
            .check(result, || "ask for the current CUDA context".to_owned())?;
        Ok(current == self.context)
    }
}

impl Drop for Primary {
    fn drop(&mut self) {
        // A failure means that the driver is already shutting down with the process.
        // SAFETY: retained once in `retain`, released once here.
        unsafe { (self.driver.f.cuDevicePrimaryCtxRelease_v2)(self.device) };
    }
}

/// While it lives, the context is current on the thread that made it; then the earlier one is.
#[must_use]
pub(super) struct Entered<'a> {
    /// Set when there is a push to undo.
    pushed: Option<&'static Driver>,
    /// Bound to its thread and to the context.
    thread: PhantomData<(&'a Primary, *const ())>,
}

impl Drop for Entered<'_> {
    #[inline]
    fn drop(&mut self) {
        let Some(driver) = self.pushed else { return };
        let mut popped = ptr::null_mut();
        // SAFETY: this thread pushed once; calls between push and pop leave the stack alone.
        unsafe { (driver.f.cuCtxPopCurrent_v2)(&mut popped) };
    }
}
