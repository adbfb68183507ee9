//! Bounce buffers of compat mode, counted: what may be in flight in batches at once.

/// Bounce buffers of compat mode: largest transfer, bytes, and how many there are. One more in
/// flight makes cuFileBatchIOSubmit wait for ever when the same thread collects the events.
const SLABS: [(usize, usize); 3] = [(4 << 10, 128), (1 << 20, 64), (16 << 20, 64)];

/// How many bounce buffers the transfers in flight may take, by size class.
pub(super) type Slabs = [usize; SLABS.len()];

/// Bounce buffers that one transfer takes: more than one where it is cut.
pub(super) fn slabs_of(size: usize) -> Slabs {
    let mut slabs = [0; SLABS.len()];
    for (index, (largest, count)) in SLABS.iter().enumerate() {
        if size <= *largest {
            slabs[index] = 1;
            return slabs;
        }
        if index + 1 == SLABS.len() {
            slabs[index] = size.div_ceil(*largest).min(*count);
        }
    }
    slabs
}

/// Adds `more` unless a class would pass its limit.
pub(super) fn fits(taken: &mut Slabs, more: Slabs) -> bool {
    let mut sum = *taken;
    for (index, (_, count)) in SLABS.iter().enumerate() {
        sum[index] += more[index];
        if sum[index] > *count {
            return false;
        }
    }
    *taken = sum;
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_takes_buffers_of_its_class() {
        assert_eq!(slabs_of(1), [1, 0, 0]);
        assert_eq!(slabs_of(4096), [1, 0, 0]);
        assert_eq!(slabs_of(4097), [0, 1, 0]);
        assert_eq!(slabs_of(1 << 20), [0, 1, 0]);
        assert_eq!(slabs_of((1 << 20) + 1), [0, 0, 1]);
        assert_eq!(slabs_of((16 << 20) + 1), [0, 0, 2]);
        assert_eq!(slabs_of(usize::MAX), [0, 0, 64]);
    }

    #[test]
    fn the_limit_of_a_class_is_kept_and_a_refusal_takes_nothing() {
        let mut taken = Slabs::default();
        for _ in 0..64 {
            assert!(fits(&mut taken, slabs_of(1 << 20)));
        }
        assert!(!fits(&mut taken, slabs_of(1 << 20)));
        assert_eq!(taken, [0, 64, 0]);
        assert!(fits(&mut taken, slabs_of(4096)));
    }
}
