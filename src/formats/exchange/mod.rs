//! Memory of this library as other libraries take it, without a copy. What the structures of those
//! exchanges say is worked out here; their raw form, with its pointers and deleters, is made by the
//! C ABI.

pub mod dlpack;
