//! Access patterns: what the last accesses of a file have in common.
//!
//! Two views of the same history. `pattern` looks at the last 64 accesses and names the whole
//! (specification, section 4.1). `trend` asks for the step that most of the newest accesses took
//! (Boyer-Moore majority vote, in windows that grow from 4 to 32), and so follows a change within
//! a few accesses.

use std::fmt;

/// Accesses that are remembered.
pub const HISTORY: usize = 64;
/// Newest steps that may vote for a trend.
pub const TREND_STEPS: usize = 32;
/// Fewest accesses that make a pattern.
const ACCESSES_MIN: usize = 4;
/// Steps of the smallest vote.
const VOTE_MIN: usize = 4;

/// What accesses have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pattern {
    /// Each begins behind the last one, within a chunk or where that ended.
    Sequential,
    /// Each is as far from the last one, give or take a tenth of a chunk.
    Strided {
        /// Bytes from one access to the next; negative goes towards the start of the file.
        stride: i64,
    },
    /// Hardly two steps are alike.
    Random,
    /// Too few accesses, or none of the above.
    Unknown,
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sequential => f.write_str("sequential"),
            Self::Strided { stride } => write!(f, "strided by {stride}"),
            Self::Random => f.write_str("random"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

/// A step from one access to the next.
#[derive(Debug, Clone, Copy, Default)]
struct Step {
    /// Bytes between the two starts; never 0.
    delta: i64,
    /// It goes on behind the access before: within a chunk, or where that ended.
    follows: bool,
}

/// The last accesses of one file, and what they have in common.
#[derive(Debug)]
pub struct Detector {
    chunk: i64,
    /// A ring: step number n is at `n % steps.len()`.
    steps: [Step; HISTORY - 1],
    count: usize,
    last: Option<(i64, i64)>,
}

impl Detector {
    /// A detector that has seen nothing. Steps up to `chunk` bytes forward are sequential.
    #[must_use]
    pub fn new(chunk: u64) -> Self {
        Self {
            chunk: signed(chunk).max(1),
            steps: [Step::default(); HISTORY - 1],
            count: 0,
            last: None,
        }
    }

    /// Remembers an access. One at the offset of the last one tells nothing and is passed over:
    /// a program that looks at a page again and again has no stride of 0.
    pub fn record(&mut self, offset: u64, size: u64) {
        let (offset, size) = (signed(offset), signed(size));
        if let Some((before, length)) = self.last {
            let delta = offset - before;
            if delta == 0 {
                self.last = Some((offset, length.max(size)));
                return;
            }
            let index = self.count % self.steps.len();
            self.steps[index] = Step {
                delta,
                follows: delta > 0 && delta <= self.chunk.max(length),
            };
            self.count += 1;
        }
        self.last = Some((offset, size));
    }

    /// Steps that are remembered.
    fn known(&self) -> usize {
        self.count.min(self.steps.len())
    }

    /// Steps, the newest first.
    fn newest(&self) -> impl Iterator<Item = Step> + '_ {
        (1..=self.known()).map(|back| self.steps[(self.count - back) % self.steps.len()])
    }

    /// The pattern of the accesses that are remembered.
    #[must_use]
    pub fn pattern(&self) -> Pattern {
        let known = self.known();
        if known + 1 < ACCESSES_MIN {
            return Pattern::Unknown;
        }
        let follows = self.newest().filter(|step| step.follows).count();
        if follows * 10 > known * 8 {
            return Pattern::Sequential;
        }
        let tolerance = self.chunk.unsigned_abs() / 10;
        let is_stride = |stride: i64| {
            let close = |step: &Step| step.delta.abs_diff(stride) < tolerance.max(1);
            self.newest().filter(close).count() * 10 > known * 7
        };
        let common = majority(|| self.newest().map(|step| step.delta));
        if let Some(stride) = common.filter(|stride| is_stride(*stride)) {
            return Pattern::Strided { stride };
        }
        let mut deltas: Vec<i64> = self.newest().map(|step| step.delta).collect();
        deltas.sort_unstable();
        // A stride that most steps come close to lies in their middle, wherever odd steps
        // stand: the first step may be one of those.
        let stride = deltas[known / 2];
        if is_stride(stride) {
            return Pattern::Strided { stride };
        }
        deltas.dedup();
        if deltas.len() * 10 > known * 8 {
            return Pattern::Random;
        }
        Pattern::Unknown
    }

    /// The step that more than half of the newest accesses took: of the last 4 steps if those
    /// agree, else of the last 8, 16 or 32.
    #[must_use]
    pub fn trend(&self) -> Option<i64> {
        let mut steps = VOTE_MIN;
        while steps <= TREND_STEPS && steps <= self.known() {
            if let Some(delta) = majority(|| self.newest().take(steps).map(|step| step.delta)) {
                return Some(delta);
            }
            steps *= 2;
        }
        None
    }

    /// Whether a step of `delta` bytes goes on behind an access of the last one's size.
    #[must_use]
    pub fn is_forward(&self, delta: i64) -> bool {
        let length = self.last.map_or(0, |(_, length)| length);
        delta > 0 && delta <= self.chunk.max(length)
    }
}

/// The value that more than half of the values have (Boyer-Moore): one pass finds the only
/// candidate, a second one counts it.
fn majority<I: Iterator<Item = i64>>(values: impl Fn() -> I) -> Option<i64> {
    let mut candidate = 0;
    let mut lead = 0usize;
    for value in values() {
        if lead == 0 {
            candidate = value;
        }
        if value == candidate {
            lead += 1;
        } else {
            lead -= 1;
        }
    }
    let mut total = 0;
    let count = values()
        .inspect(|_| total += 1)
        .filter(|v| *v == candidate)
        .count();
    (count * 2 > total).then_some(candidate)
}

/// File offsets end at `i64::MAX`.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
