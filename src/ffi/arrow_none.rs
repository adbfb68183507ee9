//! Arrow in a build without the feature `arrow`: every call says so.

use core::ffi::c_char;

use super::columns_none::none;
use super::error::Outcome;
use super::handle::Handle;
use super::types::{
    ArrowArrayStream, ArrowDeviceArrayStream, ArrowSchema, gds_arrow_batch_t, gds_arrow_info_t,
    gds_arrow_selection_t, gds_arrow_t, gds_buffer_t, gds_columns_t, gds_context_t, gds_file_t,
    gds_plan_t,
};

impl Handle for gds_arrow_t {
    type Object = ();
    const TAG: u32 = 0x4744_0061;
    const NAME: &'static str = "gds_arrow_t";
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
    open(*const gds_file_t, *mut *mut gds_arrow_t);
    info(*const gds_arrow_t, *mut gds_arrow_info_t);
    batch(*const gds_arrow_t, u64, *mut gds_arrow_batch_t);
    column_name(*const gds_arrow_t, u64, *mut *const c_char, *mut u64);
    schema(*const gds_arrow_t, *mut ArrowSchema);
    load(*const gds_arrow_t, *const gds_arrow_selection_t, *mut *mut gds_columns_t);
    plan(
        *const gds_arrow_t, *const gds_arrow_selection_t, u64, *mut *mut gds_plan_t, *mut u64
    );
    columns(
        *const gds_arrow_t, *const gds_arrow_selection_t, u64, *const gds_buffer_t, u64,
        *mut *mut gds_columns_t
    );
    stream(*const gds_arrow_t, *const gds_arrow_selection_t, *mut ArrowDeviceArrayStream);
    host_stream(*const gds_arrow_t, *const gds_arrow_selection_t, *mut ArrowArrayStream);
    stream_fd(
        *const gds_context_t, i32, *const gds_arrow_selection_t, *mut ArrowDeviceArrayStream
    );
}
