//! DLPack (github.com/dmlc/dlpack, dlpack.h 1.1): what PyTorch, CuPy, JAX and NumPy take.

use crate::config::DEVICE_HOST;
use crate::engine::{Buffer, MemoryKind};
use crate::error::{Error, ErrorKind, Result};
use crate::formats::tensor::Dtype;

/// The version that is described: `DLPackVersion`, major and minor.
pub const VERSION: (u32, u32) = (1, 1);

/// `DLDeviceType`: kDLCPU.
pub const DEVICE_CPU: i32 = 1;
/// `DLDeviceType`: kDLCUDA.
pub const DEVICE_CUDA: i32 = 2;
/// `DLDeviceType`: kDLCUDAHost, pinned memory.
pub const DEVICE_CUDA_HOST: i32 = 3;
/// `DLDeviceType`: kDLCUDAManaged.
pub const DEVICE_CUDA_MANAGED: i32 = 13;

/// Name, `DLDataTypeCode`, bits, lanes.
const TYPES: &[(&str, u8, u8, u16)] = &[
    ("BOOL", 6, 8, 1),
    ("U8", 1, 8, 1),
    ("I8", 0, 8, 1),
    ("U16", 1, 16, 1),
    ("I16", 0, 16, 1),
    ("U32", 1, 32, 1),
    ("I32", 0, 32, 1),
    ("U64", 1, 64, 1),
    ("I64", 0, 64, 1),
    ("F16", 2, 16, 1),
    ("BF16", 4, 16, 1),
    ("F32", 2, 32, 1),
    ("F64", 2, 64, 1),
    ("C64", 5, 64, 1),
    ("F8_E4M3", 10, 8, 1),
    ("F8_E4M3FNUZ", 11, 8, 1),
    ("F8_E5M2", 12, 8, 1),
    ("F8_E5M2FNUZ", 13, 8, 1),
    ("F8_E8M0", 14, 8, 1),
    // As PyTorch has it (float4_e2m1fn_x2): an element of two lanes a byte.
    ("F4", 17, 4, 2),
];

/// What a `DLTensor` says, but for its pointers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// The first byte; 0 when there are no elements.
    pub address: u64,
    /// `DLDevice`: its type.
    pub device_type: i32,
    /// `DLDevice`: its number.
    pub device_id: i32,
    /// `DLDataType`: code.
    pub code: u8,
    /// `DLDataType`: bits of a lane.
    pub bits: u8,
    /// `DLDataType`: lanes.
    pub lanes: u16,
    /// Elements along each dimension.
    pub shape: Vec<i64>,
    /// Elements from one to the next along each dimension.
    pub strides: Vec<i64>,
}

impl View {
    /// Memory of a buffer as a dense tensor.
    ///
    /// # Errors
    /// `NotSupported` for types that DLPack cannot say: F6, ggml's blocks, F4 with an odd last
    /// dimension, and for an address that its type is not aligned to; `OutOfRange` when the tensor
    /// passes the buffer's end or a dimension cannot be counted.
    pub fn new(buffer: &Buffer, offset: u64, dtype: Dtype, shape: &[u64]) -> Result<Self> {
        let found = TYPES.iter().find(|row| row.0 == dtype.name());
        let Some(&(_, code, bits, lanes)) = found else {
            return Err(unsupported(
                dtype,
                "DLPack has no such type that anybody reads",
            ));
        };
        let mut shape = shape.to_vec();
        let bytes = super::super::tensor::bytes_of(dtype, &shape);
        if lanes > 1 {
            match shape.last_mut() {
                Some(last) if last.is_multiple_of(u64::from(lanes)) => *last /= u64::from(lanes),
                _ => {
                    return Err(unsupported(
                        dtype,
                        "its last dimension does not fill whole bytes",
                    ));
                }
            }
        }
        let view = Self::of(buffer, offset, bytes, (code, bits, lanes), &shape)?;
        let element = u64::from(bits) * u64::from(lanes) / 8;
        // A complex number is aligned as its parts are.
        let align = if code == 5 { element / 2 } else { element };
        if !view.address.is_multiple_of(align.max(1)) {
            let why = format!(
                "it stands at {:#x}, which {dtype} is not aligned to; load it packed instead of \
                 mirrored",
                view.address
            );
            return Err(unsupported(dtype, &why));
        }
        Ok(view)
    }

    /// Memory of a buffer as bytes, whatever they mean.
    ///
    /// # Errors
    /// `OutOfRange` when they pass the buffer's end.
    pub fn bytes(buffer: &Buffer, offset: u64, size: u64) -> Result<Self> {
        Self::of(buffer, offset, Some(size), (1, 8, 1), &[size])
    }

    fn of(
        buffer: &Buffer,
        offset: u64,
        bytes: Option<u64>,
        (code, bits, lanes): (u8, u8, u16),
        shape: &[u64],
    ) -> Result<Self> {
        let end = bytes.and_then(|bytes| offset.checked_add(bytes));
        if end.is_none_or(|end| end > buffer.size()) {
            let message = format!(
                "show shape {shape:?} at {offset} of a buffer of {} bytes: it passes the end",
                buffer.size()
            );
            return Err(Error::new(ErrorKind::OutOfRange, message));
        }
        let counted: std::result::Result<Vec<i64>, _> =
            shape.iter().map(|n| i64::try_from(*n)).collect();
        let shape = counted.map_err(|_| {
            let message = format!("a dimension of {shape:?} is larger than DLPack can say");
            Error::new(ErrorKind::OutOfRange, message)
        })?;
        let (device_type, device_id) = device_of(buffer);
        let address = match bytes {
            Some(0) | None => 0,
            Some(_) => buffer.address() + offset,
        };
        Ok(Self {
            address,
            device_type,
            device_id,
            code,
            bits,
            lanes,
            strides: strides_of(&shape),
            shape,
        })
    }
}

fn strides_of(shape: &[i64]) -> Vec<i64> {
    let mut strides = vec![1i64; shape.len()];
    for index in (1..shape.len()).rev() {
        // Dimensions without elements would make all strides 0, which some readers refuse.
        strides[index - 1] = strides[index].saturating_mul(shape[index].max(1));
    }
    strides
}

/// `DLDevice` of a buffer. On the host device all memory is the processor's.
fn device_of(buffer: &Buffer) -> (i32, i32) {
    let ordinal = buffer.context().device().info().ordinal;
    if ordinal == DEVICE_HOST {
        return (DEVICE_CPU, 0);
    }
    match buffer.kind() {
        MemoryKind::Device => (DEVICE_CUDA, ordinal),
        // dlpack.h: pinned and managed memory are those of device 0.
        MemoryKind::Managed => (DEVICE_CUDA_MANAGED, 0),
        MemoryKind::Pinned => (DEVICE_CUDA_HOST, 0),
        MemoryKind::Pageable => (DEVICE_CPU, 0),
    }
}

fn unsupported(dtype: Dtype, why: &str) -> Error {
    let message = format!("show a tensor of {dtype} by DLPack: {why}; take its bytes instead");
    Error::new(ErrorKind::NotSupported, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::engine::Context;

    fn buffer(size: u64) -> Buffer {
        let config = Config {
            gpu_device: DEVICE_HOST,
            ..Config::default()
        };
        let context = Context::open(config).expect("a host context");
        context.alloc(MemoryKind::Device, size).expect("memory")
    }

    #[test]
    fn types_shapes_and_strides_are_dlpacks() {
        let buffer = buffer(4096);
        let mut shown = 0;
        for dtype in Dtype::all() {
            let view = View::new(&buffer, 256, dtype, &[2, 3, 8]);
            let row = TYPES.iter().find(|row| row.0 == dtype.name());
            let Some((_, code, bits, lanes)) = row else {
                assert_eq!(view.expect_err("none").kind(), ErrorKind::NotSupported);
                continue;
            };
            let view = view.expect("a type of DLPack");
            shown += 1;
            let last = 8 / i64::from(*lanes);
            assert_eq!((view.code, view.bits, view.lanes), (*code, *bits, *lanes));
            assert_eq!(view.shape, [2, 3, last]);
            assert_eq!(view.strides, [3 * last, last, 1]);
            let size = u64::from(*bits) * u64::from(*lanes) / 8;
            assert_eq!(
                size * dtype.block_elements(),
                u64::from(*lanes) * dtype.block_bytes()
            );
            assert_eq!((view.device_type, view.device_id), (DEVICE_CPU, 0));
            assert_eq!(view.address, buffer.address() + 256);
        }
        assert_eq!(shown, TYPES.len());
    }

    #[test]
    fn what_cannot_be_said_is_refused() {
        let buffer = buffer(64);
        let of = |name: &str| Dtype::of_safetensors(name).expect("a type");
        let kind = |offset, name, shape: &[u64]| {
            let view = View::new(&buffer, offset, of(name), shape);
            view.expect_err(name).kind()
        };
        assert_eq!(kind(0, "F4", &[2, 3]), ErrorKind::NotSupported);
        assert_eq!(kind(0, "F4", &[]), ErrorKind::NotSupported);
        assert_eq!(kind(2, "F32", &[3]), ErrorKind::NotSupported);
        assert_eq!(kind(0, "F32", &[17]), ErrorKind::OutOfRange);
        assert_eq!(kind(u64::MAX, "U8", &[1]), ErrorKind::OutOfRange);
        assert_eq!(kind(0, "U8", &[1 << 40, 1 << 40]), ErrorKind::OutOfRange);
        assert_eq!(kind(0, "U8", &[0, u64::MAX]), ErrorKind::OutOfRange);
        let empty = View::new(&buffer, 64, of("F32"), &[3, 0, 2]).expect("no elements");
        assert_eq!((empty.address, empty.strides), (0, vec![2, 2, 1]));
        let single = View::new(&buffer, 8, of("C64"), &[]).expect("one number");
        assert!(single.shape.is_empty() && single.address > 0);
        let bytes = View::bytes(&buffer, 3, 61).expect("bytes");
        assert_eq!((bytes.shape, bytes.code, bytes.bits), (vec![61], 1, 8));
        assert!(View::bytes(&buffer, 3, 62).is_err());
    }
}
