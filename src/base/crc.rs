//! CRC32C (Castagnoli), with the CPU's instruction where there is one.

/// CRC32C of `bytes`, continued from `crc` (0 to start).
#[inline]
#[must_use]
pub fn crc32c(crc: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc, bytes)
}

/// CRC32C of two pieces joined, from the CRC of each and the length of the second.
#[inline]
#[must_use]
pub fn crc32c_join(first: u32, second: u32, second_size: u64) -> u32 {
    crc32c::crc32c_combine(
        first,
        second,
        usize::try_from(second_size).unwrap_or(usize::MAX),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_value_of_the_castagnoli_polynomial() {
        // The check value that RFC 3720 appendix B.4 and the CRC catalogue give for "123456789".
        assert_eq!(crc32c(0, b"123456789"), 0xE306_9283);
    }

    #[test]
    fn joined_pieces_equal_the_whole() {
        let data: Vec<u8> = (0..10_000u32).map(|i| (i * 7 + i / 13) as u8).collect();
        let whole = crc32c(0, &data);
        for cut in [0, 1, 4095, 4096, 9_999, 10_000] {
            let (a, b) = data.split_at(cut);
            assert_eq!(
                crc32c_join(crc32c(0, a), crc32c(0, b), b.len() as u64),
                whole
            );
        }
    }
}
