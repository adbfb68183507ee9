//! Tensors of safetensors and GGUF files as the header shows them.

use core::ffi::c_char;

use super::gds_buffer_t;

/// The tensors of a safetensors or GGUF file, or of a model in several files. Never changes;
/// may be used from many threads at once.
#[derive(Debug)]
pub struct gds_tensors_t {
    _private: [u8; 0],
}

/// Numbers of ggml's own types in gds_dtype_t: this and their number in GGUF.
pub const GDS_DTYPE_GGML: i32 = 1000;

/// The type of a tensor's elements. New ones are appended. Quantized types of GGUF have
/// their own number plus GDS_DTYPE_GGML: Q4_K is 1012.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum gds_dtype_t {
    /// A byte that is 0 or 1.
    GDS_DTYPE_BOOL = 1,
    /// Unsigned, 8 bits.
    GDS_DTYPE_U8 = 2,
    /// Signed, 8 bits.
    GDS_DTYPE_I8 = 3,
    /// Unsigned, 16 bits.
    GDS_DTYPE_U16 = 4,
    /// Signed, 16 bits.
    GDS_DTYPE_I16 = 5,
    /// Unsigned, 32 bits.
    GDS_DTYPE_U32 = 6,
    /// Signed, 32 bits.
    GDS_DTYPE_I32 = 7,
    /// Unsigned, 64 bits.
    GDS_DTYPE_U64 = 8,
    /// Signed, 64 bits.
    GDS_DTYPE_I64 = 9,
    /// IEEE half.
    GDS_DTYPE_F16 = 10,
    /// bfloat16.
    GDS_DTYPE_BF16 = 11,
    /// IEEE single.
    GDS_DTYPE_F32 = 12,
    /// IEEE double.
    GDS_DTYPE_F64 = 13,
    /// Complex: two IEEE singles.
    GDS_DTYPE_C64 = 14,
    /// 8 bits: 4 of exponent, 3 of mantissa, no infinity.
    GDS_DTYPE_F8_E4M3 = 15,
    /// 8 bits: 5 of exponent, 2 of mantissa.
    GDS_DTYPE_F8_E5M2 = 16,
    /// 8 bits of exponent: scales.
    GDS_DTYPE_F8_E8M0 = 17,
    /// As F8_E4M3 without a negative zero.
    GDS_DTYPE_F8_E4M3FNUZ = 18,
    /// As F8_E5M2 without infinities and negative zero.
    GDS_DTYPE_F8_E5M2FNUZ = 19,
    /// 4 bits, two in a byte.
    GDS_DTYPE_F4 = 20,
    /// 6 bits: 2 of exponent, 3 of mantissa; four in three bytes.
    GDS_DTYPE_F6_E2M3 = 21,
    /// 6 bits: 3 of exponent, 2 of mantissa; four in three bytes.
    GDS_DTYPE_F6_E3M2 = 22,
}

/// What is known of the tensors. Start from GDS_TENSORS_INFO_INIT.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_tensors_info_t {
    /// sizeof(gds_tensors_info_t) as the caller compiled it.
    pub struct_size: u32,
    /// A gds_format_t.
    pub format: i32,
    /// Tensors.
    pub tensors: u64,
    /// Keys of metadata.
    pub metadata: u64,
    /// Files.
    pub files: u64,
    /// Bytes of all tensors.
    pub bytes: u64,
}

/// What is known of a tensor. Start from GDS_TENSOR_INFO_INIT. The pointers are valid until
/// the tensors are closed.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_tensor_info_t {
    /// sizeof(gds_tensor_info_t) as the caller compiled it.
    pub struct_size: u32,
    /// A gds_dtype_t, or GDS_DTYPE_GGML and the number of ggml's type.
    pub dtype: i32,
    /// Its name, UTF-8, with a NUL behind it.
    pub name: *const c_char,
    /// Bytes of the name, without the NUL.
    pub name_bytes: u64,
    /// The name of its type, as its format writes it: "BF16", "Q4_K".
    pub dtype_name: *const c_char,
    /// Elements along each dimension, the dense one last, also for GGUF. NULL when it has no
    /// dimensions.
    pub shape: *const u64,
    /// Dimensions.
    pub dimensions: u32,
    /// Elements that are stored together; 1 but for types smaller than a byte and quantized
    /// ones.
    pub block_elements: u32,
    /// Bytes of such a block; of an element where block_elements is 1.
    pub block_bytes: u32,
    /// Which file it is in, from 0.
    pub file: u32,
    /// Where it is in its file, bytes.
    pub file_offset: u64,
    /// Bytes.
    pub size_bytes: u64,
}

/// All of a tensor, in gds_tensor_part_t.
pub const GDS_PART_WHOLE: u32 = 0;
/// Elements `begin` to `end` (not included) of a dimension.
pub const GDS_PART_RANGE: u32 = 1;
/// Share `begin` of `end` equal ones of a dimension; where it does not divide evenly the
/// first shares have one element more.
pub const GDS_PART_SHARE: u32 = 2;

/// A tensor, or a part of one along one dimension. This struct never changes.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_tensor_part_t {
    /// Which tensor, from 0.
    pub tensor: u64,
    /// GDS_PART_WHOLE, GDS_PART_RANGE or GDS_PART_SHARE.
    pub kind: u32,
    /// Which dimension, from 0, the slowest. 0 with GDS_PART_WHOLE.
    pub dimension: u32,
    /// The first element, or the share. 0 with GDS_PART_WHOLE.
    pub begin: u64,
    /// Behind the last element, or shares in all. 0 with GDS_PART_WHOLE.
    pub end: u64,
}

/// A tensor or part, and the caller's memory for it. This struct never changes.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_tensor_target_t {
    /// What goes there.
    pub part: gds_tensor_part_t,
    /// The memory: of gds_buffer_alloc(), or the caller's own by gds_buffer_wrap().
    pub buffer: *const gds_buffer_t,
    /// Where in the buffer its first byte goes, bytes.
    pub offset: u64,
}

/// Where a tensor or part stands in the destination. This struct never changes.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct gds_tensor_place_t {
    /// Which tensor, from 0.
    pub tensor: u64,
    /// Offset in the destination, bytes.
    pub offset: u64,
    /// Bytes.
    pub size_bytes: u64,
    /// Elements of the dimension that was cut; those of the other dimensions stay. 0 where
    /// nothing was cut off.
    pub cut_elements: u64,
}

/// The `align` that leaves tensors where their file has them.
pub const GDS_ALIGN_MIRROR: u64 = 0xFFFF_FFFF_FFFF_FFFF;
