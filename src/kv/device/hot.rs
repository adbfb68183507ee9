//! Values in device memory, held by their users or kept for the next one: the least recently used
//! goes when room is needed. A value that was put again is not the same value: whoever holds the
//! old one keeps it, and the next user gets the new one.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::room::{BLOCK_MIN, Room};
use super::{DeviceStats, DeviceStore, Get};
use crate::engine::{Buffer, Context, MemoryKind};
use crate::error::{Error, ErrorKind, Result};
use crate::kv::wal::Lsn;

/// Times that a value may change between its room being made and its being found, before that is
/// an answer.
const TRIES: usize = 16;

/// One value in device memory.
#[derive(Debug)]
struct Slot {
    key: Arc<[u8]>,
    lsn: Lsn,
    at: u64,
    len: u64,
    holds: u64,
    /// Its place among those that may go, while nobody holds it.
    tick: u64,
    ready: bool,
    /// In `by_key`: not replaced by a newer version.
    linked: bool,
}

#[derive(Debug)]
struct State {
    room: Room,
    slots: HashMap<u64, Slot>,
    by_key: HashMap<Arc<[u8]>, u64>,
    /// What may go, least recently used first.
    idle: BTreeMap<u64, u64>,
    /// Of slots and of uses.
    next: u64,
    hits: u64,
    misses: u64,
    evictions: u64,
}

/// Values in device memory.
#[derive(Debug)]
pub(super) struct Hot {
    memory: Buffer,
    state: Mutex<State>,
    loaded: Condvar,
}

/// A value that stays where it is in device memory until this is dropped. Kernels that use it must
/// be done by then.
#[derive(Debug)]
pub struct Held {
    hot: Arc<Hot>,
    id: u64,
    address: u64,
    len: u64,
}

impl Held {
    /// Its first byte: a device address, aligned to 256 bytes.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Bytes of the value.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the value has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The hold as a number, to be given to [`DeviceStore::release`] once.
    #[must_use]
    pub fn into_token(mut self) -> u64 {
        std::mem::take(&mut self.id)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // 0 is no slot: the hold went to a token.
        self.hot.release(self.id);
    }
}

impl State {
    /// Takes a slot out of the way of later users, and its room back once nobody holds it.
    fn unlink(&mut self, id: u64) {
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        if slot.linked {
            slot.linked = false;
            self.by_key.remove(&slot.key);
        }
        if slot.holds == 0 {
            let (tick, at, len) = (slot.tick, slot.at, slot.len);
            self.idle.remove(&tick);
            self.room.give(at, len);
            self.slots.remove(&id);
        }
    }

    /// Room for a value, from those that nobody holds where none is free.
    fn make_room(&mut self, len: u64) -> Option<u64> {
        loop {
            if let Some(at) = self.room.take(len) {
                return Some(at);
            }
            let (_, id) = self.idle.first_key_value()?;
            let id = *id;
            self.evictions += 1;
            self.unlink(id);
        }
    }

    fn release(&mut self, id: u64) -> bool {
        let tick = self.next;
        let Some(slot) = self.slots.get_mut(&id).filter(|slot| slot.holds > 0) else {
            return false;
        };
        slot.holds -= 1;
        if slot.holds == 0 {
            self.next += 1;
            slot.tick = tick;
            self.idle.insert(tick, id);
            if !slot.linked {
                self.unlink(id);
            }
        }
        true
    }
}

impl Hot {
    pub(super) fn new(context: &Context, bytes: u64) -> Result<Self> {
        if bytes < BLOCK_MIN {
            let message = format!("cache_bytes must be 0 or at least {BLOCK_MIN}, not {bytes}");
            return Err(Error::new(ErrorKind::InvalidConfig, message));
        }
        let memory = context.alloc(MemoryKind::Device, bytes)?;
        let state = State {
            room: Room::new(bytes),
            slots: HashMap::new(),
            by_key: HashMap::new(),
            idle: BTreeMap::new(),
            next: 1,
            hits: 0,
            misses: 0,
            evictions: 0,
        };
        Ok(Self {
            memory,
            state: Mutex::new(state),
            loaded: Condvar::new(),
        })
    }

    pub(super) fn tell(&self, stats: &mut DeviceStats) {
        let state = self.state.lock();
        stats.hits = state.hits;
        stats.misses = state.misses;
        stats.evictions = state.evictions;
        stats.resident = state.slots.len() as u64;
        stats.held = state.slots.values().filter(|slot| slot.holds > 0).count() as u64;
        stats.cache_used_bytes = state.room.used();
    }

    fn release(&self, id: u64) -> bool {
        self.state.lock().release(id)
    }

    fn held(self: &Arc<Self>, id: u64, at: u64, len: u64) -> Held {
        Held {
            hot: Arc::clone(self),
            id,
            address: self.memory.address() + at,
            len,
        }
    }

    fn full(&self, state: &State, len: u64) -> Error {
        let bytes = self.memory.size();
        if state.slots.is_empty() || len > bytes {
            let message = format!(
                "hold a value of {len} bytes in device memory: cache_bytes is {bytes}, and values \
                 take powers of two of it; raise it"
            );
            return Error::new(ErrorKind::OutOfDeviceMemory, message);
        }
        let message = format!(
            "hold a value of {len} bytes in device memory: {} of {bytes} bytes are held; release \
             some values, or raise cache_bytes",
            state.room.used()
        );
        Error::new(ErrorKind::AllPinned, message)
    }
}

/// A slot that is being filled. Dropped unfinished, it goes and others try.
struct Filling<'a> {
    hot: &'a Hot,
    id: u64,
    done: bool,
}

impl Drop for Filling<'_> {
    fn drop(&mut self) {
        let mut state = self.hot.state.lock();
        if self.done {
            if let Some(slot) = state.slots.get_mut(&self.id) {
                slot.ready = true;
            }
        } else {
            state.unlink(self.id);
            state.release(self.id);
        }
        drop(state);
        self.hot.loaded.notify_all();
    }
}

impl DeviceStore {
    /// Holds the value of `key` in device memory, and reads and verifies it where it is not there;
    /// `None` where there is no such key. It is the value as it is now: a later put does not change
    /// it, and the next call gives the new one. Complete for every stream when it returns.
    ///
    /// # Errors
    /// `NotSupported` without a cache; `AllPinned` when what is held leaves no room;
    /// `OutOfDeviceMemory` for a value larger than the cache; `TimedOut` when it changes faster
    /// than it can be read; as `get_to`.
    pub fn get_device_ptr(&self, key: &[u8]) -> Result<Option<Held>> {
        let hot = self.hot()?;
        let mut tries = 0;
        while tries < TRIES {
            let mut state = hot.state.lock();
            let version = self.store().version_of(key);
            if let Some(&id) = state.by_key.get(key) {
                let slot = state.slots.get(&id);
                match slot.zip(version) {
                    Some((slot, (lsn, _))) if slot.lsn == lsn && !slot.ready => {
                        hot.loaded.wait(&mut state);
                        continue;
                    }
                    Some((slot, (lsn, _))) if slot.lsn == lsn => {
                        let (at, len, tick) = (slot.at, slot.len, slot.tick);
                        state.hits += 1;
                        state.idle.remove(&tick);
                        if let Some(slot) = state.slots.get_mut(&id) {
                            slot.holds += 1;
                        }
                        drop(state);
                        return Ok(Some(hot.held(id, at, len)));
                    }
                    _ => state.unlink(id),
                }
            }
            let Some((lsn, len)) = version else {
                return Ok(None);
            };
            tries += 1;
            state.misses += 1;
            let Some(at) = state.make_room(len) else {
                return Err(hot.full(&state, len));
            };
            let id = state.next;
            state.next += 1;
            let key: Arc<[u8]> = Arc::from(key);
            state.by_key.insert(Arc::clone(&key), id);
            let slot = Slot {
                key: Arc::clone(&key),
                lsn,
                at,
                len,
                holds: 1,
                tick: 0,
                ready: false,
                linked: true,
            };
            state.slots.insert(id, slot);
            drop(state);
            let mut filling = Filling {
                hot,
                id,
                done: false,
            };
            let got = self.get_one(&Get {
                key: &key,
                offset: 0,
                size: len,
                to: &hot.memory,
                to_offset: at,
            })?;
            // The room was made for this version. A newer one by now is for the next call.
            if got.is_some_and(|got| got.version == lsn) {
                filling.done = true;
                drop(filling);
                return Ok(Some(hot.held(id, at, len)));
            }
        }
        let message = format!("hold a value in device memory: it changed {TRIES} times meanwhile");
        Err(Error::new(ErrorKind::TimedOut, message))
    }

    /// Brings the value of `key` into device memory for later; whether there is such a key.
    ///
    /// # Errors
    /// As `get_device_ptr`.
    pub fn cache(&self, key: &[u8]) -> Result<bool> {
        Ok(self.get_device_ptr(key)?.is_some())
    }

    /// Gives back a hold that [`Held::into_token`] made a number.
    ///
    /// # Errors
    /// `InvalidArgument` for a number that is no hold, as far as can be told.
    pub fn release(&self, token: u64) -> Result<()> {
        if self.hot()?.release(token) {
            return Ok(());
        }
        let message = "release a value: it is not held; was it released before?";
        Err(Error::new(ErrorKind::InvalidArgument, message))
    }

    fn hot(&self) -> Result<&Arc<Hot>> {
        self.inner.hot.as_ref().ok_or_else(|| {
            let message = "hold a value in device memory: no cache was asked for; set cache_bytes";
            Error::new(ErrorKind::NotSupported, message)
        })
    }
}
