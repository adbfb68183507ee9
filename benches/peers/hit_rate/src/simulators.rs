//! Plain simulators of known policies, and Belady's bound. Each is written from its paper's
//! description, whole cache in one queue, no shards: what the algorithm can do at best.

use std::collections::BTreeSet;

const ABSENT: u32 = u32::MAX;

/// A doubly linked list over page numbers with its ends in one sentinel.
struct List {
    next: Vec<u32>,
    prev: Vec<u32>,
    len: usize,
}

impl List {
    fn new(pages: usize) -> Self {
        let end = pages as u32;
        let mut list = List {
            next: vec![ABSENT; pages + 1],
            prev: vec![ABSENT; pages + 1],
            len: 0,
        };
        list.next[pages] = end;
        list.prev[pages] = end;
        list
    }

    fn end(&self) -> u32 {
        (self.next.len() - 1) as u32
    }

    fn contains(&self, page: u32) -> bool {
        self.next[page as usize] != ABSENT
    }

    /// The oldest page.
    fn front(&self) -> u32 {
        self.next[self.end() as usize]
    }

    fn push_back(&mut self, page: u32) {
        let end = self.end();
        let last = self.prev[end as usize];
        self.next[last as usize] = page;
        self.prev[page as usize] = last;
        self.next[page as usize] = end;
        self.prev[end as usize] = page;
        self.len += 1;
    }

    fn remove(&mut self, page: u32) {
        let (next, prev) = (self.next[page as usize], self.prev[page as usize]);
        self.next[prev as usize] = next;
        self.prev[next as usize] = prev;
        self.next[page as usize] = ABSENT;
        self.len -= 1;
    }
}

/// Least recently used.
pub fn lru(accesses: &[u32], pages: usize, cache: usize) -> u64 {
    let mut list = List::new(pages);
    let mut hits = 0;
    for &page in accesses {
        if list.contains(page) {
            hits += 1;
            list.remove(page);
        } else if list.len == cache {
            list.remove(list.front());
        }
        list.push_back(page);
    }
    hits
}

/// CLOCK: one bit, set by a hit, and a queue that gives a second chance.
pub fn clock(accesses: &[u32], pages: usize, cache: usize) -> u64 {
    let mut list = List::new(pages);
    let mut referenced = vec![false; pages];
    let mut hits = 0;
    for &page in accesses {
        if list.contains(page) {
            hits += 1;
            referenced[page as usize] = true;
            continue;
        }
        while list.len == cache {
            let oldest = list.front();
            list.remove(oldest);
            if std::mem::take(&mut referenced[oldest as usize]) {
                list.push_back(oldest);
            }
        }
        list.push_back(page);
    }
    hits
}

/// SIEVE (Zhang et al., NSDI'24): the hand moves from old to new and never moves a page.
pub fn sieve(accesses: &[u32], pages: usize, cache: usize) -> u64 {
    let mut list = List::new(pages);
    let mut visited = vec![false; pages];
    let mut hand = list.end();
    let mut hits = 0;
    for &page in accesses {
        if list.contains(page) {
            hits += 1;
            visited[page as usize] = true;
            continue;
        }
        if list.len == cache {
            loop {
                if hand == list.end() {
                    hand = list.front();
                }
                if !std::mem::take(&mut visited[hand as usize]) {
                    break;
                }
                hand = list.next[hand as usize];
            }
            let victim = hand;
            hand = list.next[victim as usize];
            list.remove(victim);
        }
        list.push_back(page);
    }
    hits
}

/// S3-FIFO (Yang et al., SOSP'23): small queue of 10 %, main queue with two-bit counters, and as
/// many ghosts as the main queue has pages.
pub fn s3_fifo(accesses: &[u32], pages: usize, cache: usize) -> u64 {
    let small_size = cache / 10;
    let main_size = cache - small_size;
    let (mut small, mut main) = (List::new(pages), List::new(pages));
    let mut count = vec![0_u8; pages];
    // A ghost is a page and the number it had when it left; an older number is a dead entry.
    let mut left = vec![0_u64; pages];
    let mut evictions = 0_u64;
    let mut hits = 0;
    for &page in accesses {
        if small.contains(page) || main.contains(page) {
            hits += 1;
            count[page as usize] = (count[page as usize] + 1).min(3);
            continue;
        }
        while small.len + main.len >= cache {
            if small.len >= small_size && small.len > 0 || main.len == 0 {
                let oldest = small.front();
                small.remove(oldest);
                if count[oldest as usize] > 1 {
                    count[oldest as usize] = 0;
                    main.push_back(oldest);
                } else {
                    evictions += 1;
                    left[oldest as usize] = evictions;
                }
            } else {
                let oldest = main.front();
                main.remove(oldest);
                if count[oldest as usize] > 0 {
                    count[oldest as usize] -= 1;
                    main.push_back(oldest);
                }
            }
        }
        count[page as usize] = 0;
        let ghost = left[page as usize];
        if ghost != 0 && evictions - ghost < main_size as u64 {
            main.push_back(page);
        } else {
            small.push_back(page);
        }
    }
    hits
}

/// Belady's bound: the page whose next use is farthest leaves, and a page that is needed later
/// than all others is not kept at all.
pub fn belady(accesses: &[u32], pages: usize, cache: usize) -> u64 {
    let never = accesses.len() as u32;
    let mut upcoming = vec![never; accesses.len()];
    let mut seen = vec![never; pages];
    for (i, &page) in accesses.iter().enumerate().rev() {
        upcoming[i] = seen[page as usize];
        seen[page as usize] = i as u32;
    }
    let mut resident = vec![false; pages];
    let mut order = BTreeSet::new();
    let mut hits = 0;
    for (i, &page) in accesses.iter().enumerate() {
        if resident[page as usize] {
            hits += 1;
            order.remove(&(i as u32, page));
        }
        resident[page as usize] = true;
        order.insert((upcoming[i], page));
        if order.len() > cache
            && let Some((_, farthest)) = order.pop_last()
        {
            resident[farthest as usize] = false;
        }
    }
    hits
}
