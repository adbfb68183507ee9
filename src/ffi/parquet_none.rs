//! Parquet in a build without the feature `parquet`: every call says so.

use core::ffi::c_char;

use super::error::Outcome;
use super::handle::Handle;
use super::types::{
    ArrowArrayStream, ArrowDeviceArrayStream, ArrowSchema, gds_columns_t, gds_file_t,
    gds_parquet_chunk_t, gds_parquet_column_t, gds_parquet_info_t, gds_parquet_keys_t,
    gds_parquet_outline_t, gds_parquet_row_group_t, gds_parquet_selection_t, gds_parquet_t,
};
use crate::error::{Error, ErrorKind};

impl Handle for gds_parquet_t {
    type Object = ();
    const TAG: u32 = 0x4744_0062;
    const NAME: &'static str = "gds_parquet_t";
}

macro_rules! none {
    ($($name:ident($($given:ty),*);)*) => {
        $(
            /// # Safety
            /// None is needed.
            pub(super) unsafe fn $name($(_: $given),*) -> Outcome {
                let text = "this library was built without Parquet; build it with the feature \
                            `parquet`";
                Err(Error::new(ErrorKind::NotSupported, text).into())
            }
        )*
    };
}

none! {
    open(*const gds_file_t, *const gds_parquet_keys_t, *mut *mut gds_parquet_t);
    info(*const gds_parquet_t, *mut gds_parquet_info_t);
    key_value(*const gds_parquet_t, u64, *mut *const c_char, *mut *const c_char);
    column(*const gds_parquet_t, u64, *mut gds_parquet_column_t);
    row_group(*const gds_parquet_t, u64, *mut gds_parquet_row_group_t);
    chunk(*const gds_parquet_t, u64, u64, *mut gds_parquet_chunk_t);
    schema(*const gds_parquet_t, *mut ArrowSchema);
    outline(*const gds_parquet_t, *const gds_parquet_selection_t, *mut gds_parquet_outline_t);
    load(*const gds_parquet_t, *const gds_parquet_selection_t, *mut *mut gds_columns_t);
    stream(*const gds_parquet_t, *const gds_parquet_selection_t, *mut ArrowDeviceArrayStream);
    host_stream(*const gds_parquet_t, *const gds_parquet_selection_t, *mut ArrowArrayStream);
}
