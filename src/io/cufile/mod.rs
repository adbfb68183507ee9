//! Our own FFI to libcufile, loaded at run time, with what its documentation leaves out.
//!
//! `load` finds the library, `gates` says what would make it hang or refuse, `Handle` and
//! `RegisteredBuffer` give back what they registered, `BatchPool` runs batches, `StreamTransfer`
//! runs transfers on a CUDA stream. Nothing here links against libcufile or CUDA, closes the
//! driver, or loops over short transfers. Addresses are numbers: device memory is never touched.
//! Invariants: a descriptor closes after its handle is deregistered; a batch that is not finished
//! is never destroyed; memory that a stream may still follow is never freed. Guarded by
//! `tests/cufile_layout.rs` and `tests/cufile_ctest.rs` (NVIDIA's header),
//! `tests/cufile_real_library.rs` (NVIDIA's library on host memory) and `tests/cufile_gates.rs`.

pub mod batch;
pub mod error;
mod gates;
mod handle;
mod library;
mod slabs;
mod stream;
pub mod sys;
mod tune;

pub use batch::{Batch, BatchPool, Entry};
pub use gates::{Gate, Roots, direct_capable, gates};
pub use handle::{Handle, RegisteredBuffer};
pub use library::{LIBRARY_VARIABLE, Library, load};
pub use stream::{StreamRegistration, StreamTransfer};
