//! Mistakes that can be switched on, so that the crash tests prove that they would find them.
//!
//! Without the feature `seeded-bugs` no switch exists: [`is_on`] is constantly false and the
//! wrong branches are not compiled in. Never build a product with the feature.

/// A mistake that stores have really made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Bug {
    /// A batch that names data is written without the flush that makes the data durable.
    SkippedFlush,
    /// Records are acknowledged when their batch is sealed, not when it is durable.
    AckBeforePrefix,
    /// Opening a store goes on in the epoch of the run before.
    NoEpochBump,
    /// A new store's name is not made durable in its folder.
    MissingDirSync,
    /// Space is used again before what freed it is durable.
    FreeBeforeDurable,
    /// The superblock tells of a larger file before the file is larger.
    HeaderBeforeExtension,
    /// Checksums are not compared.
    ChecksumSkipped,
    /// An extent is used again while a reader holds it.
    ReusedPinnedExtent,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::SkippedFlush,
        Self::AckBeforePrefix,
        Self::NoEpochBump,
        Self::MissingDirSync,
        Self::FreeBeforeDurable,
        Self::HeaderBeforeExtension,
        Self::ChecksumSkipped,
        Self::ReusedPinnedExtent,
    ];
}

#[cfg(feature = "seeded-bugs")]
mod switches {
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    use super::Bug;

    static ON: AtomicU32 = AtomicU32::new(0);

    /// Makes a mistake from now on, in the whole process.
    pub fn turn_on(bug: Bug) {
        ON.fetch_or(1 << bug as u32, SeqCst);
    }

    /// Makes it no more.
    pub fn turn_off(bug: Bug) {
        ON.fetch_and(!(1 << bug as u32), SeqCst);
    }

    /// Whether a mistake is made.
    #[must_use]
    pub fn is_on(bug: Bug) -> bool {
        ON.load(SeqCst) & (1 << bug as u32) != 0
    }
}

#[cfg(feature = "seeded-bugs")]
pub use switches::{is_on, turn_off, turn_on};

/// Whether a mistake is made: never in this build.
#[cfg(not(feature = "seeded-bugs"))]
#[inline(always)]
#[must_use]
pub const fn is_on(_bug: Bug) -> bool {
    false
}
