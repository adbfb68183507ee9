//! A key in memory: short ones lie in the table itself, so that a look-up follows no pointer.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::sync::Arc;

const SHORT: usize = 30;

/// A key of 32 bytes, or a pointer to a longer one, which all copies share: who comes from the
/// ordered keys has the bytes at hand that the table compares.
#[derive(Clone)]
pub(crate) enum Key {
    Short(u8, [u8; SHORT]),
    Long(Arc<[u8]>),
}

impl Key {
    pub fn new(bytes: &[u8]) -> Self {
        if bytes.len() <= SHORT {
            let mut short = [0; SHORT];
            short[..bytes.len()].copy_from_slice(bytes);
            Self::Short(bytes.len() as u8, short)
        } else {
            Self::Long(bytes.into())
        }
    }

    #[inline]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Short(len, bytes) => &bytes[..usize::from(*len).min(SHORT)],
            Self::Long(bytes) => bytes,
        }
    }

    /// The first eight bytes, zeroes where there are fewer: in the order of the keys where they
    /// differ, for zero is the least byte.
    #[inline]
    fn first(&self) -> u64 {
        let bytes = match self {
            Self::Short(_, bytes) => &bytes[..],
            Self::Long(bytes) => &bytes[..],
        };
        bytes
            .first_chunk()
            .map_or(0, |b| u64::from_le_bytes(*b).swap_bytes())
    }

    /// Bytes outside of the 32, those of all copies.
    pub fn heap(&self) -> u64 {
        match self {
            Self::Short(..) => 0,
            Self::Long(bytes) => bytes.len() as u64 + 16,
        }
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({})", self.bytes().escape_ascii())
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        // Most keys differ early: one comparison of words instead of a call.
        let first = self.first().cmp(&other.first());
        first.then_with(|| self.bytes().cmp(other.bytes()))
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        self.bytes()
    }
}

/// A keyed hash: nobody who chooses keys can choose where they collide.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hasher {
    seed: u64,
}

const M1: u64 = 0xA076_1D64_78BD_642F;
const M2: u64 = 0xE703_7ED1_A0B4_28DB;

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

impl Hasher {
    pub fn random() -> Self {
        use std::hash::BuildHasher;
        Self {
            seed: std::collections::hash_map::RandomState::new().hash_one(0u64) | 1,
        }
    }

    #[inline]
    pub fn hash(self, key: &[u8]) -> u64 {
        let mut state = self.seed ^ (key.len() as u64).wrapping_mul(M2);
        let mut chunks = key.chunks_exact(8);
        for chunk in &mut chunks {
            let word = u64::from_le_bytes(chunk.try_into().unwrap_or([0; 8]));
            state = fold(state ^ word, M1);
        }
        let rest = chunks.remainder();
        if !rest.is_empty() {
            let mut word = [0; 8];
            word[..rest.len()].copy_from_slice(rest);
            state = fold(state ^ u64::from_le_bytes(word), M1);
        }
        fold(state ^ self.seed, M2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_keep_their_bytes_and_order() {
        let mut keys: Vec<Vec<u8>> = (0..100usize).map(|n| vec![n as u8; n]).collect();
        keys.push(vec![255; SHORT]);
        keys.push(vec![255; SHORT + 1]);
        keys.extend([&b"\0"[..], b"\0\0", b"a", b"a\0", b"a\0b", b"ab"].map(<[u8]>::to_vec));
        keys.push([&b"same first eight"[..], &[0; 20]].concat());
        keys.push(b"same first".to_vec());
        for k in &keys {
            assert_eq!(Key::new(k).bytes(), k.as_slice());
            for other in &keys {
                assert_eq!(Key::new(k).cmp(&Key::new(other)), k.cmp(other));
            }
        }
        assert_eq!(std::mem::size_of::<Key>(), 32);
    }

    #[test]
    fn hashes_differ_by_length_content_and_seed() {
        let h = Hasher { seed: 12345 };
        let mut seen = std::collections::HashSet::new();
        for n in 0..10_000u32 {
            assert!(seen.insert(h.hash(&n.to_le_bytes())));
            assert!(seen.insert(h.hash(format!("user{n:012}").as_bytes())));
        }
        assert!(seen.insert(h.hash(&[0; 7])) && seen.insert(h.hash(&[0; 8])));
        assert_ne!(h.hash(b"a"), Hasher { seed: 999 }.hash(b"a"));
    }
}
