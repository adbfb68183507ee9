//! Rounding of offsets and sizes to a power of two.

/// Rounds `value` up to a multiple of `alignment`, or `None` when that passes `u64::MAX`.
///
/// `alignment` must be a power of two.
#[inline]
#[must_use]
pub const fn align_up(value: u64, alignment: u64) -> Option<u64> {
    assert!(alignment.is_power_of_two());
    match value.checked_add(alignment - 1) {
        Some(sum) => Some(sum & !(alignment - 1)),
        None => None,
    }
}

/// Rounds `value` down to a multiple of `alignment`, a power of two.
#[inline]
#[must_use]
pub const fn align_down(value: u64, alignment: u64) -> u64 {
    assert!(alignment.is_power_of_two());
    value & !(alignment - 1)
}

/// Whether `value` is a multiple of `alignment`, a power of two.
#[inline]
#[must_use]
pub const fn is_aligned(value: u64, alignment: u64) -> bool {
    assert!(alignment.is_power_of_two());
    value & (alignment - 1) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_to_powers_of_two() {
        assert_eq!(align_up(0, 4096), Some(0));
        assert_eq!(align_up(1, 4096), Some(4096));
        assert_eq!(align_up(4096, 4096), Some(4096));
        assert_eq!(align_down(8191, 4096), 4096);
        assert!(is_aligned(8192, 4096));
        assert!(!is_aligned(8193, 4096));
    }

    #[test]
    fn rounding_up_past_the_end_is_none() {
        assert_eq!(align_up(u64::MAX, 4096), None);
        assert_eq!(align_up(u64::MAX - 4095, 4096), Some(u64::MAX - 4095));
    }
}
