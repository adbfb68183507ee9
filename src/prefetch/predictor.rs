//! A small model that learns, online, which step follows the last steps.
//!
//! For the last one, two and three steps a hashed table remembers which step came next, and how
//! surely (order-k Markov with confidence; the longest context that is known answers). Each
//! access is first predicted and then learned, whether or not anybody asked: these shadow
//! predictions measure the accuracy, which switches the model off below one half and on again
//! when it would pay. About 6 KiB, no allocation after the start but for the answers.

/// Steps that the longest context looks at.
const ORDERS: usize = 3;
/// Entries of each order's table.
const ENTRIES: usize = 128;
/// Highest confidence of an entry.
const CONFIDENCE_MAX: u8 = 7;
/// Confidence from which an entry's prediction is acted upon.
const CONFIDENCE_SURE: u8 = 2;
/// Share of the newest shadow prediction in the accuracy.
const WEIGHT: f64 = 1.0 / 16.0;
/// Accuracy below which it is switched off.
pub const ACCURACY_OFF: f64 = 0.5;
/// Accuracy from which it is switched on. Apart from `ACCURACY_OFF`, so that it does not flutter.
pub const ACCURACY_ON: f64 = 0.6;

/// Which step followed a context.
#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    /// Tells contexts that share the entry apart; 0 is an empty entry.
    tag: u32,
    confidence: u8,
    step: i64,
}

const _: () = assert!(size_of::<[[Entry; ENTRIES]; ORDERS]>() <= 8 << 10);

/// The last steps, the newest first.
type Recent = [i64; ORDERS];

/// Learns the steps of one file's accesses. Steps are in pages, or any other unit.
#[derive(Debug)]
pub struct Predictor {
    tables: Box<[[Entry; ENTRIES]; ORDERS]>,
    recent: Recent,
    /// Steps seen.
    count: u64,
    accuracy: f64,
    on: bool,
    predictions: u64,
    right: u64,
}

impl Default for Predictor {
    fn default() -> Self {
        Self::new()
    }
}

impl Predictor {
    /// A model that knows nothing. It is off until its shadow predictions are right.
    #[must_use]
    pub fn new() -> Self {
        Self {
            tables: Box::new([[Entry::default(); ENTRIES]; ORDERS]),
            recent: [0; ORDERS],
            count: 0,
            accuracy: 0.0,
            on: false,
            predictions: 0,
            right: 0,
        }
    }

    /// Learns a step: compares it with what was predicted, then remembers it.
    pub fn record(&mut self, step: i64) {
        let guess = self.guess(&self.recent, 1);
        self.judge(guess == Some(step));
        let orders = ORDERS.min(usize::try_from(self.count).unwrap_or(ORDERS));
        for order in 1..=orders {
            let (index, tag) = place(&self.recent[..order]);
            learn(&mut self.tables[order - 1][index], tag, step);
        }
        self.recent.rotate_right(1);
        self.recent[0] = step;
        self.count += 1;
    }

    /// No prediction counts as a wrong one: a model that knows nothing is worth nothing.
    fn judge(&mut self, right: bool) {
        self.predictions += 1;
        self.right += u64::from(right);
        self.accuracy += (f64::from(u8::from(right)) - self.accuracy) * WEIGHT;
        if self.accuracy < ACCURACY_OFF {
            self.on = false;
        } else if self.accuracy >= ACCURACY_ON {
            self.on = true;
        }
    }

    /// The step that the longest known context names with at least this confidence.
    fn guess(&self, recent: &Recent, confidence: u8) -> Option<i64> {
        (1..=ORDERS).rev().find_map(|order| {
            let (index, tag) = place(&recent[..order]);
            let entry = self.tables[order - 1][index];
            (entry.tag == tag && entry.confidence >= confidence).then_some(entry.step)
        })
    }

    /// The next steps, at most `count`, as far as it is sure of them. None while it is off.
    #[must_use]
    pub fn predict(&self, count: usize) -> Vec<i64> {
        let mut steps = Vec::new();
        let mut recent = self.recent;
        while self.on && steps.len() < count {
            let Some(step) = self.guess(&recent, CONFIDENCE_SURE) else {
                break;
            };
            steps.push(step);
            recent.rotate_right(1);
            recent[0] = step;
        }
        steps
    }

    /// How many of its newest shadow predictions were right, 0.0 to 1.0 (moving average).
    #[must_use]
    pub fn accuracy(&self) -> f64 {
        self.accuracy
    }

    /// Whether it predicts now.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.on
    }

    /// Shadow predictions so far, and how many were right.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.predictions, self.right)
    }
}

/// A step that was right gains confidence. A wrong one loses it twice as fast, and is replaced
/// once it has none.
fn learn(entry: &mut Entry, tag: u32, step: i64) {
    if entry.tag == tag && entry.step == step {
        entry.confidence = (entry.confidence + 1).min(CONFIDENCE_MAX);
    } else if entry.confidence > 2 {
        entry.confidence -= 2;
    } else {
        *entry = Entry {
            tag,
            confidence: 1,
            step,
        };
    }
}

/// Where a context is in its table, and the tag that tells it from others there.
fn place(context: &[i64]) -> (usize, u32) {
    let mut hash = 0x9e37_79b9_7f4a_7c15_u64;
    for step in context {
        hash = (hash ^ step.cast_unsigned()).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash ^= hash >> 29;
    }
    let index = (hash >> 32) as usize % ENTRIES;
    (index, (hash as u32) | 1)
}
