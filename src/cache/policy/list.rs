//! Queues of frames that share one pair of link arrays: 9 bytes a frame, no allocation after
//! the start.

/// No frame.
pub(super) const NONE: u32 = u32::MAX;

/// The queue number of a frame that is in no queue.
const OUTSIDE: u8 = u8::MAX;

#[derive(Debug, Clone, Copy)]
struct Ends {
    oldest: u32,
    newest: u32,
    len: u32,
}

/// `QUEUES` queues over the same frames; a frame is in one of them or in none.
#[derive(Debug)]
pub(super) struct Queues<const QUEUES: usize> {
    newer: Vec<u32>,
    older: Vec<u32>,
    queue: Vec<u8>,
    ends: [Ends; QUEUES],
}

impl<const QUEUES: usize> Queues<QUEUES> {
    pub(super) fn new(frames: u32) -> Self {
        let empty = Ends {
            oldest: NONE,
            newest: NONE,
            len: 0,
        };
        Self {
            newer: vec![NONE; frames as usize],
            older: vec![NONE; frames as usize],
            queue: vec![OUTSIDE; frames as usize],
            ends: [empty; QUEUES],
        }
    }

    /// Frames in `queue`.
    pub(super) fn len(&self, queue: usize) -> u32 {
        self.ends[queue].len
    }

    /// The frame that joined `queue` first.
    pub(super) fn oldest(&self, queue: usize) -> Option<u32> {
        Some(self.ends[queue].oldest).filter(|&frame| frame != NONE)
    }

    /// The frame that joined the queue of `frame` next after it.
    pub(super) fn after(&self, frame: u32) -> Option<u32> {
        Some(self.newer[frame as usize]).filter(|&next| next != NONE)
    }

    /// The queue that `frame` is in.
    pub(super) fn queue_of(&self, frame: u32) -> Option<usize> {
        Some(self.queue[frame as usize])
            .filter(|&q| q != OUTSIDE)
            .map(usize::from)
    }

    /// Moves `frame`, from wherever it is, to the newest end of `queue`.
    pub(super) fn append(&mut self, frame: u32, queue: usize) {
        self.remove(frame);
        let ends = &mut self.ends[queue];
        let newest = std::mem::replace(&mut ends.newest, frame);
        ends.len += 1;
        if newest == NONE {
            ends.oldest = frame;
        } else {
            self.newer[newest as usize] = frame;
        }
        let at = frame as usize;
        self.older[at] = newest;
        self.newer[at] = NONE;
        self.queue[at] = queue as u8;
    }

    /// Takes `frame` out of its queue; nothing happens when it is in none.
    pub(super) fn remove(&mut self, frame: u32) {
        let Some(queue) = self.queue_of(frame) else {
            return;
        };
        let at = frame as usize;
        let (older, newer) = (self.older[at], self.newer[at]);
        let ends = &mut self.ends[queue];
        ends.len -= 1;
        if older == NONE {
            ends.oldest = newer;
        } else {
            self.newer[older as usize] = newer;
        }
        if newer == NONE {
            ends.newest = older;
        } else {
            self.older[newer as usize] = older;
        }
        self.queue[at] = OUTSIDE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(queues: &Queues<2>, queue: usize) -> Vec<u32> {
        std::iter::successors(queues.oldest(queue), |&frame| queues.after(frame)).collect()
    }

    #[test]
    fn frames_keep_their_order_and_move_between_queues() {
        let mut queues = Queues::<2>::new(4);
        for frame in 0..4 {
            queues.append(frame, 0);
        }
        assert_eq!(order(&queues, 0), [0, 1, 2, 3]);
        queues.append(1, 1);
        queues.append(0, 0);
        queues.append(3, 1);
        assert_eq!(order(&queues, 0), [2, 0]);
        assert_eq!(order(&queues, 1), [1, 3]);
        assert_eq!((queues.len(0), queues.len(1)), (2, 2));
        assert_eq!(queues.queue_of(3), Some(1));
    }

    #[test]
    fn a_removed_frame_is_in_no_queue_and_may_come_back() {
        let mut queues = Queues::<2>::new(3);
        for frame in 0..3 {
            queues.append(frame, 0);
        }
        queues.remove(1);
        queues.remove(1);
        assert_eq!(order(&queues, 0), [0, 2]);
        queues.remove(0);
        queues.remove(2);
        assert_eq!(queues.oldest(0), None);
        assert_eq!(queues.len(0), 0);
        queues.append(1, 0);
        assert_eq!(order(&queues, 0), [1]);
    }
}
