//! How far ahead to read: windows that grow on use and shrink on waste.

/// Share of the newest judgement in the accuracy.
const WEIGHT: f64 = 1.0 / 8.0;
/// Accuracy at the start: a few wasted chunks switch it off, one does not.
const ACCURACY_FIRST: f64 = 0.75;
/// Accuracy below which nothing is read ahead.
pub const ACCURACY_OFF: f64 = 0.5;
/// Accuracy from which reading ahead begins again. Apart from `ACCURACY_OFF`, so that it does not
/// flutter.
pub const ACCURACY_ON: f64 = 0.6;

/// Bytes to read ahead of an access: one chunk at first, doubled when a chunk that was read ahead
/// is used, halved when one was read for nothing, and 0 while fewer than half are used.
#[derive(Debug)]
pub struct Window {
    chunk: u64,
    limit: u64,
    size: u64,
    accuracy: f64,
    on: bool,
}

impl Window {
    /// A window from one chunk to `limit` bytes, at least one chunk.
    #[must_use]
    pub fn new(chunk: u64, limit: u64) -> Self {
        Self {
            chunk,
            limit: limit.max(chunk),
            size: chunk,
            accuracy: ACCURACY_FIRST,
            on: true,
        }
    }

    /// Bytes to read ahead now; 0 when it is off.
    #[must_use]
    pub fn size(&self) -> u64 {
        if self.on { self.size } else { 0 }
    }

    /// A chunk that was read ahead is being used: look twice as far.
    pub fn grow(&mut self) {
        if self.on {
            self.size = self.size.saturating_mul(2).min(self.limit);
        }
    }

    /// A chunk was used, or would have been if the window had been on.
    pub fn useful(&mut self) {
        self.judge(1.0);
    }

    /// A chunk was read for nothing, or would have been if the window had been on.
    pub fn wasted(&mut self) {
        self.size = (self.size / 2).max(self.chunk);
        self.judge(0.0);
    }

    fn judge(&mut self, outcome: f64) {
        self.accuracy += (outcome - self.accuracy) * WEIGHT;
        if self.accuracy < ACCURACY_OFF && self.on {
            self.on = false;
            self.size = self.chunk;
        } else if self.accuracy >= ACCURACY_ON {
            self.on = true;
        }
    }

    /// How many of the newest chunks were used, 0.0 to 1.0 (moving average).
    #[must_use]
    pub fn accuracy(&self) -> f64 {
        self.accuracy
    }

    /// Whether it reads ahead. While it does not, `useful` and `wasted` judge predictions that
    /// were not acted upon, and switch it on again.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.on
    }
}
