//! Measures how long a small transfer takes, in a fraction of the time that it takes.
//!
//! Two readings of the monotonic clock cost a tenth of a 4 KiB read from the page cache. Where the
//! kernel itself keeps time by the processor's counter, that counter is read instead, at half the
//! cost. Its speed is learnt from the clock while the first transfers are timed by the clock.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// A running measurement.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stopwatch {
    /// The counter at the start, and its speed.
    Counter { start: u64, scale: u64 },
    /// The clock at the start.
    Clock(Instant),
}

/// Nanoseconds of one tick, times 2^32; 0 while that is not known.
static SCALE: AtomicU64 = AtomicU64::new(0);

impl Stopwatch {
    /// Begins to measure.
    #[inline]
    pub(super) fn start() -> Self {
        match SCALE.load(Relaxed) {
            0 => Self::Clock(clock_start()),
            scale => Self::Counter {
                start: counter::read(),
                scale,
            },
        }
    }

    /// Nanoseconds since the start.
    #[inline]
    pub(super) fn elapsed_ns(self) -> u64 {
        match self {
            // Two processors may differ by a few ticks.
            Self::Counter { start, scale } => scaled(counter::read().saturating_sub(start), scale),
            Self::Clock(start) => clock_elapsed(start),
        }
    }
}

#[inline]
fn scaled(ticks: u64, scale: u64) -> u64 {
    ((u128::from(ticks) * u128::from(scale)) >> 32) as u64
}

#[cold]
fn clock_start() -> Instant {
    counter::learn();
    Instant::now()
}

#[cold]
fn clock_elapsed(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(target_arch = "x86_64")]
mod counter {
    use std::sync::OnceLock;
    use std::sync::atomic::Ordering::Relaxed;
    use std::time::{Duration, Instant};

    use super::SCALE;

    /// How long the counter runs beside the clock before its speed is known.
    const LESSON: Duration = Duration::from_millis(50);
    /// Most ticks between the two readings of a pair, about a microsecond: with more, the thread
    /// was interrupted in between. The speed is then right to one part in 10,000.
    const PAIR_TICKS: u64 = 4000;
    const PAIR_TRIES: usize = 20;

    #[inline]
    pub(super) fn read() -> u64 {
        // SAFETY: every x86_64 processor has the instruction, and the clock in user space, which
        // the kernel offers where `is_trusted`, uses it too.
        unsafe { core::arch::x86_64::_rdtsc() }
    }

    /// Finds the speed of the counter, once it has run beside the clock for long enough.
    pub(super) fn learn() {
        static FIRST: OnceLock<Option<(u64, Instant)>> = OnceLock::new();
        let first = FIRST.get_or_init(|| is_trusted().then(pair).flatten());
        let Some((ticks, time)) = first else { return };
        if time.elapsed() < LESSON {
            return;
        }
        let Some((ticks_now, time_now)) = pair() else {
            return;
        };
        let passed = time_now.duration_since(*time).as_nanos();
        let ticks = u128::from(ticks_now.saturating_sub(*ticks)).max(1);
        if let Ok(scale) = u64::try_from((passed << 32) / ticks) {
            SCALE.store(scale, Relaxed);
        }
    }

    /// Counter and clock at the same moment.
    fn pair() -> Option<(u64, Instant)> {
        (0..PAIR_TRIES).find_map(|_| {
            let (before, time, after) = (read(), Instant::now(), read());
            (after.saturating_sub(before) < PAIR_TICKS).then_some((before, time))
        })
    }

    /// Whether the kernel keeps time by the counter: it then runs evenly, and alike on all
    /// processors.
    fn is_trusted() -> bool {
        let path = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
        std::fs::read_to_string(path).is_ok_and(|name| name.trim() == "tsc")
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod counter {
    /// Never called: no speed is ever learnt.
    pub(super) fn read() -> u64 {
        0
    }

    pub(super) fn learn() {}
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn counter_and_clock_agree() {
        let pause = Duration::from_millis(20);
        // The first rounds are by the clock; later ones by the counter, where there is one.
        for _ in 0..6 {
            let outer = Instant::now();
            let inner = Stopwatch::start();
            std::thread::sleep(pause);
            let found = inner.elapsed_ns() as f64;
            let most = outer.elapsed().as_nanos() as f64 * 1.001;
            let least = pause.as_nanos() as f64 * 0.999;
            assert!((least..=most).contains(&found), "{found} by {inner:?}");
        }
    }

    #[test]
    fn ticks_become_nanoseconds_without_overflow() {
        assert_eq!(scaled(3_000, (1 << 32) / 3), 999);
        assert_eq!(scaled(u64::MAX, 1 << 31), u64::MAX / 2);
    }
}
