//! The ends of segments, where their summaries go.

use std::sync::atomic::Ordering::{AcqRel, Acquire};

use super::{Kind, Space};
use crate::kv::disk::BLOCK;
use crate::kv::store::reference::Reference;

impl Space {
    /// How often segment `n` became free since the store was opened.
    pub fn generation_of(&self, n: u32) -> u32 {
        self.segment(n).generation.load(Acquire)
    }

    /// While opening: the bytes that `reference` names are in use, so no summary goes there.
    pub fn hold(&self, reference: &Reference, key_len: usize) {
        let mut up_to = |offset: u64, bytes: u64| {
            let segment = self.segment_at(offset);
            let end = offset + bytes - self.segment_start(segment);
            self.segment(segment).floor.fetch_max(end, AcqRel);
        };
        match reference {
            Reference::Slot(slot) => up_to(slot.page, u64::from(slot.page_bytes)),
            other => other.pieces(key_len, &mut up_to),
        }
    }

    /// Takes the `bytes` before the last `used` bytes of segment `n`, for which `reserved` were
    /// kept: the offset where they end. The caller holds the segment. `None` where values may be.
    pub fn claim_tail(&self, n: u32, used: u64, bytes: u64, reserved: u64) -> Option<u64> {
        let mut state = self.state.lock();
        let kind = state.kinds.get(n as usize).copied();
        let end = self.segment_bytes.checked_sub(used)?;
        let start = end.checked_sub(bytes)?;
        let has_values = matches!(kind, Some(Kind::Open | Kind::Closed));
        if !has_values || start < self.segment(n).floor.load(Acquire) {
            return None;
        }
        let mut open = state.open.iter_mut().flatten();
        if let Some(open) = open.find(|open| open.segment == n) {
            open.tail = open.tail.min(start);
            open.summary = open.summary.saturating_sub(reserved);
        }
        Some(self.segment_start(n) + end)
    }

    /// Segments that became free since this was last asked, and whose end nothing else needs.
    pub fn take_stale(&self) -> Vec<u32> {
        let mut state = self.state.lock();
        let all = std::mem::take(&mut state.stale);
        let most = self.segment_bytes - BLOCK as u64;
        let can = |n: &u32| {
            let is_meta = state.kinds.get(*n as usize) == Some(&Kind::Meta);
            !is_meta && self.segment(*n).floor.load(Acquire) <= most
        };
        all.into_iter().filter(can).collect()
    }
}
