//! Columns in a build without the feature `arrow`: every call says so.

use core::ffi::c_char;

use super::error::Outcome;
use super::handle::Handle;
use super::types::{
    ArrowArrayStream, ArrowDeviceArray, ArrowDeviceArrayStream, ArrowSchema, gds_column_buffer_t,
    gds_column_t, gds_columns_info_t, gds_columns_t,
};
use crate::error::{Error, ErrorKind};

impl Handle for gds_columns_t {
    type Object = ();
    const TAG: u32 = 0x4744_0060;
    const NAME: &'static str = "gds_columns_t";
}

/// What a call that needs Arrow answers.
pub(super) fn none() -> Outcome {
    let text = "this library was built without Arrow; build it with the feature `arrow`";
    Err(Error::new(ErrorKind::NotSupported, text).into())
}

macro_rules! none {
    ($($name:ident($($given:ty),*);)*) => {
        $(
            /// # Safety
            /// None is needed.
            pub(super) unsafe fn $name($(_: $given),*) -> Outcome {
                none()
            }
        )*
    };
}

none! {
    info(*const gds_columns_t, *mut gds_columns_info_t);
    find(*const gds_columns_t, *const c_char, *mut u32);
    column(*const gds_columns_t, u64, *const u32, u64, *mut gds_column_t);
    buffer(*const gds_columns_t, u64, *const u32, u64, u32, *mut gds_column_buffer_t);
    schema(*const gds_columns_t, *mut ArrowSchema);
    export(*const gds_columns_t, u64, *mut ArrowDeviceArray);
    export_stream(*const gds_columns_t, *mut ArrowDeviceArrayStream);
    export_host_stream(*const gds_columns_t, *mut ArrowArrayStream);
}
