//! Finding and opening devices, within a deadline.
//!
//! A broken driver can hang in its initialisation, where nothing can interrupt it. So it is
//! initialised once a process on a thread of its own, and whoever asks waits no longer than the
//! deadline. A late answer is kept: the next one who asks gets it.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, Weak, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::cuda::{self, CudaDevice, Driver};
use super::host::{self, HostDevice};
use super::{Device, DeviceInfo};
use crate::config::{DEVICE_AUTO, DEVICE_HOST};
use crate::error::{Error, ErrorKind, Result};

/// Opens a device: a CUDA ordinal, `DEVICE_HOST`, or `DEVICE_AUTO` (CUDA device 0 when it works,
/// else the host; [`open_auto`] also tells why). Everyone who opens an ordinal shares one device.
///
/// # Errors
/// `DriverMissing`, `DriverTooOld`, `DriverTimeout`, `NoDevice` or `Cuda`, each with what to do;
/// `InvalidArgument` for a number that names no device.
pub fn open(ordinal: i32, probe_timeout: Duration) -> Result<Arc<dyn Device>> {
    match ordinal {
        DEVICE_HOST => Ok(host()),
        DEVICE_AUTO => Ok(open_auto(probe_timeout).0),
        0.. => Ok(open_cuda(ordinal, probe_timeout)?),
        _ => Err(Error::new(
            ErrorKind::InvalidArgument,
            format!(
                "open device {ordinal}: no such device; pass a CUDA ordinal (0 and up), \
                 {DEVICE_HOST} for the host or {DEVICE_AUTO} to choose"
            ),
        )),
    }
}

/// CUDA device 0 when it works, else the host device and why CUDA cannot be used.
pub fn open_auto(probe_timeout: Duration) -> (Arc<dyn Device>, Option<Error>) {
    match open_cuda(0, probe_timeout) {
        Ok(device) => (device, None),
        Err(error) => (host(), Some(error)),
    }
}

/// Every device of this process, the host last. The error says why there is no CUDA device, or
/// what went wrong with one of several.
pub fn list(probe_timeout: Duration) -> (Vec<DeviceInfo>, Option<Error>) {
    let mut devices = Vec::new();
    let mut trouble = None;
    match driver(probe_timeout) {
        Ok(driver) => {
            for ordinal in 0..driver.count {
                match cuda::describe(driver, ordinal) {
                    Ok(info) => devices.push(info),
                    Err(error) => trouble = Some(error),
                }
            }
        }
        Err(error) => trouble = Some(error),
    }
    devices.push(host::info());
    (devices, trouble)
}

/// The host device. There is one a process, so that it knows every allocation.
pub fn host() -> Arc<dyn Device> {
    static HOST: OnceLock<Arc<HostDevice>> = OnceLock::new();
    HOST.get_or_init(|| Arc::new(HostDevice::new())).clone()
}

/// Open CUDA devices by ordinal.
static OPEN: Mutex<BTreeMap<i32, Weak<CudaDevice>>> = Mutex::new(BTreeMap::new());

fn open_cuda(ordinal: i32, timeout: Duration) -> Result<Arc<CudaDevice>> {
    let began = Instant::now();
    let driver = driver(timeout)?;
    let mut open = OPEN.lock();
    if let Some(device) = open.get(&ordinal).and_then(Weak::upgrade) {
        return Ok(device);
    }
    let what = format!("open CUDA device {ordinal}");
    let left = timeout.saturating_sub(began.elapsed());
    let device = within(left, timeout, &what, move || {
        CudaDevice::open(driver, ordinal)
    })?;
    let device = Arc::new(device);
    open.insert(ordinal, Arc::downgrade(&device));
    Ok(device)
}

/// Runs `work` on a thread of its own and waits for it. A result that comes too late is dropped.
fn within<T: Send + 'static>(
    left: Duration,
    timeout: Duration,
    what: &str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let (sender, receiver) = mpsc::sync_channel(1);
    spawn(what, move || drop(sender.send(work())))?;
    match receiver.recv_timeout(left) {
        Ok(result) => result,
        Err(mpsc::RecvTimeoutError::Timeout) => Err(too_slow(what, timeout)),
        Err(mpsc::RecvTimeoutError::Disconnected) => Err(fault(what)),
    }
}

fn spawn(what: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    let builder = thread::Builder::new().name("gds-driver".to_owned());
    builder.spawn(work).map(drop).map_err(|error| {
        let errno = error.raw_os_error().unwrap_or(0);
        Error::os(errno, format!("start the thread to {what}"))
    })
}

fn too_slow(what: &str, timeout: Duration) -> Error {
    let text = format!(
        "{what}: the CUDA driver did not answer within {} ms; raise probe_timeout_ms \
         (GDS_PROBE_TIMEOUT_MS), look at `nvidia-smi` and the kernel's log, or run on the host \
         device (GDS_DEVICE=host)",
        timeout.as_millis()
    );
    Error::new(ErrorKind::DriverTimeout, text)
}

fn fault(what: &str) -> Error {
    Error::new(
        ErrorKind::Internal,
        format!("{what}: the thread that did it stopped; report this"),
    )
}

/// How far the one initialisation of the driver has come.
enum Probe {
    Idle,
    Running { since: Instant },
    Done(Result<&'static Driver>),
}

static PROBE: Mutex<Probe> = Mutex::new(Probe::Idle);
static PROBED: Condvar = Condvar::new();

/// libcuda, initialised. The deadline counts from the start of the initialisation, so that with a
/// hung driver only the first to ask waits.
fn driver(timeout: Duration) -> Result<&'static Driver> {
    const WHAT: &str = "initialise the CUDA driver";
    let mut probe = PROBE.lock();
    if matches!(*probe, Probe::Idle) {
        *probe = Probe::Running {
            since: Instant::now(),
        };
        if let Err(error) = spawn(WHAT, initialise) {
            *probe = Probe::Idle;
            return Err(error);
        }
    }
    loop {
        let since = match &*probe {
            Probe::Done(outcome) => return outcome.clone(),
            Probe::Running { since } => *since,
            Probe::Idle => return Err(fault(WHAT)),
        };
        let left = timeout.saturating_sub(since.elapsed());
        if left.is_zero() {
            return Err(too_slow(WHAT, timeout));
        }
        PROBED.wait_for(&mut probe, left);
    }
}

/// Publishes an outcome even when the work unwinds.
struct Outcome(Option<Result<&'static Driver>>);

impl Drop for Outcome {
    fn drop(&mut self) {
        let outcome = self
            .0
            .take()
            .unwrap_or_else(|| Err(fault("initialise the CUDA driver")));
        *PROBE.lock() = Probe::Done(outcome);
        PROBED.notify_all();
    }
}

fn initialise() {
    let mut outcome = Outcome(None);
    // The driver stays for the life of the process: its threads and handlers do too.
    outcome.0 = Some(Driver::open().map(|driver| &*Box::leak(Box::new(driver))));
}
