//! What tensors are made of: the types of safetensors and of ggml under one list of numbers.
//!
//! Sizes of safetensors' types are those of the reference crate (safetensors 0.8, `bitsize`); of
//! ggml's those of `GGML_QUANT_SIZES` in the gguf package (0.19).

/// Numbers of ggml's own types: this and the type's number in GGUF.
const GGML: u32 = 1000;

/// The type of a tensor's elements. Numbers are those of the C header and never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Dtype(u32);

/// Number, name as its format writes it, elements of a block, bytes of a block.
type Row = (u32, &'static str, u64, u64);

const TABLE: &[Row] = &[
    (1, "BOOL", 1, 1),
    (2, "U8", 1, 1),
    (3, "I8", 1, 1),
    (4, "U16", 1, 2),
    (5, "I16", 1, 2),
    (6, "U32", 1, 4),
    (7, "I32", 1, 4),
    (8, "U64", 1, 8),
    (9, "I64", 1, 8),
    (10, "F16", 1, 2),
    (11, "BF16", 1, 2),
    (12, "F32", 1, 4),
    (13, "F64", 1, 8),
    (14, "C64", 1, 8),
    (15, "F8_E4M3", 1, 1),
    (16, "F8_E5M2", 1, 1),
    (17, "F8_E8M0", 1, 1),
    (18, "F8_E4M3FNUZ", 1, 1),
    (19, "F8_E5M2FNUZ", 1, 1),
    (20, "F4", 2, 1),
    (21, "F6_E2M3", 4, 3),
    (22, "F6_E3M2", 4, 3),
    (GGML + 2, "Q4_0", 32, 18),
    (GGML + 3, "Q4_1", 32, 20),
    (GGML + 6, "Q5_0", 32, 22),
    (GGML + 7, "Q5_1", 32, 24),
    (GGML + 8, "Q8_0", 32, 34),
    (GGML + 9, "Q8_1", 32, 40),
    (GGML + 10, "Q2_K", 256, 84),
    (GGML + 11, "Q3_K", 256, 110),
    (GGML + 12, "Q4_K", 256, 144),
    (GGML + 13, "Q5_K", 256, 176),
    (GGML + 14, "Q6_K", 256, 210),
    (GGML + 15, "Q8_K", 256, 292),
    (GGML + 16, "IQ2_XXS", 256, 66),
    (GGML + 17, "IQ2_XS", 256, 74),
    (GGML + 18, "IQ3_XXS", 256, 98),
    (GGML + 19, "IQ1_S", 256, 50),
    (GGML + 20, "IQ4_NL", 32, 18),
    (GGML + 21, "IQ3_S", 256, 110),
    (GGML + 22, "IQ2_S", 256, 82),
    (GGML + 23, "IQ4_XS", 256, 136),
    (GGML + 29, "IQ1_M", 256, 56),
    (GGML + 34, "TQ1_0", 256, 54),
    (GGML + 35, "TQ2_0", 256, 66),
    (GGML + 39, "MXFP4", 32, 17),
    (GGML + 40, "NVFP4", 64, 36),
    (GGML + 41, "Q1_0", 128, 18),
];

/// ggml's numbers of types that safetensors has too.
const SHARED: &[(u32, &str)] = &[
    (0, "F32"),
    (1, "F16"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (30, "BF16"),
];

impl Dtype {
    /// Every type.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|row| Self(row.0))
    }

    /// The type with this number.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        TABLE
            .iter()
            .find(|row| row.0 == number)
            .map(|_| Self(number))
    }

    /// Its number.
    #[must_use]
    pub fn number(self) -> u32 {
        self.0
    }

    /// The type that a safetensors header names so.
    #[must_use]
    pub fn of_safetensors(name: &str) -> Option<Self> {
        let row = TABLE.iter().find(|row| row.1 == name && row.0 < GGML);
        row.map(|row| Self(row.0))
    }

    /// The type that has this number in GGUF.
    #[must_use]
    pub fn of_ggml(number: u32) -> Option<Self> {
        match SHARED.iter().find(|(ggml, _)| *ggml == number) {
            Some((_, name)) => Self::of_safetensors(name),
            None => Self::from_number(number.checked_add(GGML)?),
        }
    }

    fn row(self) -> &'static Row {
        // Only numbers of the table make a Dtype.
        TABLE
            .iter()
            .find(|row| row.0 == self.0)
            .unwrap_or(&TABLE[0])
    }

    /// Its name: "BF16", "Q4_K", ...
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// Elements that are stored together; 1 for types of whole bytes.
    #[must_use]
    pub fn block_elements(self) -> u64 {
        self.row().2
    }

    /// Bytes of a block; of an element where blocks have one.
    #[must_use]
    pub fn block_bytes(self) -> u64 {
        self.row().3
    }

    /// Whether its blocks are those of ggml, which nothing but ggml's kernels reads.
    #[must_use]
    pub fn is_quantized(self) -> bool {
        self.0 >= GGML
    }

    /// Bytes of so many elements that are stored one after the other. `None` when they do not
    /// fill whole blocks or cannot be addressed.
    #[must_use]
    pub fn bytes_of(self, elements: u64) -> Option<u64> {
        let (each, bytes) = (self.block_elements(), self.block_bytes());
        if !elements.is_multiple_of(each) {
            return None;
        }
        (elements / each).checked_mul(bytes)
    }
}

impl std::fmt::Display for Dtype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_one_each() {
        for (index, row) in TABLE.iter().enumerate() {
            let same = TABLE.iter().filter(|r| r.0 == row.0 || r.1 == row.1);
            assert_eq!(same.count(), 1, "{row:?}");
            assert!(index == 0 || TABLE[index - 1].0 < row.0, "{row:?}");
            let dtype = Dtype::from_number(row.0).expect("in the table");
            assert_eq!((dtype.number(), dtype.name()), (row.0, row.1));
        }
        assert_eq!(Dtype::all().count(), TABLE.len());
        for gone in [4, 5, 31, 36, 42, u32::MAX] {
            assert_eq!(Dtype::of_ggml(gone), None, "{gone}");
        }
        assert_eq!(Dtype::of_safetensors("Q4_0"), None);
        assert_eq!(Dtype::of_ggml(30), Dtype::of_safetensors("BF16"));
        assert_eq!(Dtype::of_ggml(12).map(Dtype::name), Some("Q4_K"));
    }

    #[test]
    fn bytes_count_whole_blocks() {
        let of = |name: &str| TABLE.iter().find(|r| r.1 == name).map(|r| Dtype(r.0));
        let bytes = |name, n| of(name).expect("a type").bytes_of(n);
        assert_eq!(bytes("BF16", 10), Some(20));
        assert_eq!(bytes("F4", 10), Some(5));
        assert_eq!(bytes("F4", 9), None);
        assert_eq!(bytes("F6_E3M2", 8), Some(6));
        assert_eq!(bytes("F6_E3M2", 6), None);
        assert_eq!(bytes("Q4_K", 512), Some(288));
        assert_eq!(bytes("Q4_K", 255), None);
        assert_eq!(bytes("F64", u64::MAX), None);
        assert_eq!(bytes("F4", 0), Some(0));
    }
}
