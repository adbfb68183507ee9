//! What the driver knows of a pointer, without touching what it points at.

use std::ffi::c_void;

use cudarc::driver::sys::{CUmemorytype_enum, CUpointer_attribute};

use super::driver::{Driver, code};
use crate::device::{MemoryKind, PointerInfo};
use crate::error::{Error, ErrorKind, Result};

/// Asks for everything at once. The context is current.
///
/// The allocation's range is the driver's range attributes, which also cover pinned memory and
/// reserved ranges mapped in parts; where they are empty it is cuMemGetAddressRange.
pub(super) fn info(driver: &Driver, ordinal: i32, address: u64) -> Result<PointerInfo> {
    use CUpointer_attribute as A;
    let unknown = PointerInfo {
        kind: MemoryKind::Pageable,
        base: address,
        size: 0,
    };
    if address == 0 {
        return Ok(unknown);
    }
    // The driver writes 1, 4 or 8 bytes each; on a little-endian machine all read as u64.
    let mut answers = [0_u64; 5];
    let mut questions = [
        A::CU_POINTER_ATTRIBUTE_MEMORY_TYPE,
        A::CU_POINTER_ATTRIBUTE_IS_MANAGED,
        A::CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL,
        A::CU_POINTER_ATTRIBUTE_RANGE_START_ADDR,
        A::CU_POINTER_ATTRIBUTE_RANGE_SIZE,
    ];
    let mut places = answers
        .each_mut()
        .map(|a| std::ptr::from_mut(a).cast::<c_void>());
    // SAFETY: as many questions as places, each place 8 bytes, more than any of the answers.
    let result = unsafe {
        (driver.f.cuPointerGetAttributes)(
            questions.len() as u32,
            questions.as_mut_ptr(),
            places.as_mut_ptr(),
            address,
        )
    };
    if result == code::INVALID_VALUE {
        return Ok(unknown);
    }
    driver.check(result, || {
        format!("ask CUDA about the pointer {address:#x}")
    })?;
    let [memory_type, managed, owner, base, size] = answers;
    let kind = if managed != 0 {
        MemoryKind::Managed
    } else if memory_type == CUmemorytype_enum::CU_MEMORYTYPE_DEVICE as u64 {
        MemoryKind::Device
    } else if memory_type == CUmemorytype_enum::CU_MEMORYTYPE_HOST as u64 {
        MemoryKind::Pinned
    } else {
        return Ok(unknown);
    };
    let owner = owner as u32 as i32;
    if kind == MemoryKind::Device && owner != ordinal {
        let text = format!(
            "use the pointer {address:#x} with CUDA device {ordinal}: it is memory of device \
             {owner}; open a context on that device"
        );
        return Err(Error::new(ErrorKind::InvalidPointer, text));
    }
    let (base, size) = if size != 0 {
        (base, size)
    } else {
        range(driver, address)
    };
    Ok(PointerInfo { kind, base, size })
}

/// The allocation that holds an address, or (address, 0) where the driver does not know.
fn range(driver: &Driver, address: u64) -> (u64, u64) {
    let (mut base, mut size) = (0, 0);
    // SAFETY: both are written to live variables.
    let result = unsafe { (driver.f.cuMemGetAddressRange_v2)(&mut base, &mut size, address) };
    if result == code::SUCCESS && size != 0 {
        (base, size as u64)
    } else {
        (address, 0)
    }
}

/// Gives an "invalid value" of a call whose only values are pointers its proper kind.
pub(super) fn refused(error: Error) -> Error {
    if error.cuda() != code::INVALID_VALUE {
        return error;
    }
    let text = format!(
        "{}; a pointer is not of the memory that this needs",
        error.message()
    );
    Error::new(ErrorKind::InvalidPointer, text).with_cuda(error.cuda())
}
