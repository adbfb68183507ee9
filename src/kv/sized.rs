//! Whole values into memory of a given size.

use super::store::{Snapshot, Store};
use crate::error::{Error, ErrorKind, Result};

/// Times that a value may change while it is read before a snapshot holds it still.
const TRIES: usize = 4;

impl Store {
    /// The length of the value of `key`, bytes, and, where it fits, the value at the start of
    /// `into`: both of one version.
    ///
    /// # Errors
    /// As [`Store::get`]. `into` holds anything then.
    pub fn get_sized(&self, key: &[u8], into: &mut [u8]) -> Result<Option<u64>> {
        for _ in 0..TRIES {
            let Some((lsn, len)) = self.version_of(key) else {
                return Ok(None);
            };
            let Some(place) = fitting(into, len) else {
                return Ok(Some(len));
            };
            let read = self.get_into(key, 0, place)?;
            if read == Some(place.len()) && self.version_of(key) == Some((lsn, len)) {
                return Ok(Some(len));
            }
        }
        self.snapshot()?.get_sized(key, into)
    }
}

impl Snapshot {
    /// As [`Store::get_sized`], as of the snapshot.
    ///
    /// # Errors
    /// As [`Store::get_sized`].
    pub fn get_sized(&self, key: &[u8], into: &mut [u8]) -> Result<Option<u64>> {
        let Some(len) = self.len_of(key) else {
            return Ok(None);
        };
        let Some(place) = fitting(into, len) else {
            return Ok(Some(len));
        };
        if self.get_into(key, 0, place)? != Some(place.len()) {
            let message = "a version that a snapshot holds is gone";
            return Err(Error::new(ErrorKind::Internal, message));
        }
        Ok(Some(len))
    }
}

fn fitting(into: &mut [u8], len: u64) -> Option<&mut [u8]> {
    into.get_mut(..usize::try_from(len).ok()?)
}
