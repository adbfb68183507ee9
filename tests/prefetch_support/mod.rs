//! A target for prefetchers that reads real files through the engine, and that tests can hold.

#![allow(dead_code)]

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use gds_rs::engine::{Buffer, Context, File, MemoryKind};
use gds_rs::prefetch::target::Done;
use gds_rs::prefetch::{PrefetchConfig, Prefetcher, Presence, Target};
use gds_rs::{Error, Result};
use parking_lot::{Condvar, Mutex};

pub const PAGE: u64 = 4096;

/// Pages of one file, kept for ever once they are read.
pub struct Shelf {
    inner: Arc<Inner>,
    jobs: Option<Sender<Job>>,
    readers: Vec<JoinHandle<()>>,
}

struct Inner {
    context: Context,
    file: File,
    capacity: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    pages: HashMap<u64, Buffer>,
    reading: HashSet<u64>,
    /// Reads in the order in which they were started: offset and size.
    started: Vec<(u64, u64)>,
    in_flight: usize,
    most_in_flight: usize,
    /// Reads wait until this is false.
    held: bool,
    failure: Option<Error>,
}

struct Job {
    pages: Vec<u64>,
    done: Done,
}

impl Shelf {
    /// `capacity` in pages. `held`: reads begin, but do not end before `release`.
    pub fn new(context: &Context, file: &File, capacity: u64, held: bool) -> Self {
        let inner = Arc::new(Inner {
            context: context.clone(),
            file: file.clone(),
            capacity,
            state: Mutex::new(State {
                held,
                ..State::default()
            }),
            changed: Condvar::new(),
        });
        let (jobs, queue) = channel();
        let queue = Arc::new(Mutex::new(queue));
        let readers = (0..4)
            .map(|_| {
                let (inner, queue) = (inner.clone(), queue.clone());
                std::thread::spawn(move || serve(&inner, &queue))
            })
            .collect();
        Self {
            inner,
            jobs: Some(jobs),
            readers,
        }
    }

    pub fn release(&self) {
        self.inner.state.lock().held = false;
        self.inner.changed.notify_all();
    }

    /// Offsets and sizes of the reads so far, in pages, in their order.
    pub fn started(&self) -> Vec<(u64, u64)> {
        let state = self.inner.state.lock();
        let in_pages = |(offset, size): &(u64, u64)| (offset / PAGE, size.div_ceil(PAGE));
        state.started.iter().map(in_pages).collect()
    }

    pub fn most_in_flight(&self) -> usize {
        self.inner.state.lock().most_in_flight
    }

    /// A page's bytes, which its program reads itself when they are not there.
    pub fn get(&self, page: u64) -> Buffer {
        let state = self.inner.state.lock();
        if let Some(buffer) = state.pages.get(&page) {
            return buffer.clone();
        }
        drop(state);
        let buffer = self.inner.read(page).expect("the page can be read");
        self.inner.state.lock().pages.insert(page, buffer.clone());
        buffer
    }

    /// As if another page had needed the room.
    pub fn evict(&self, page: u64) {
        self.inner.state.lock().pages.remove(&page);
    }
}

impl Inner {
    fn read(&self, page: u64) -> Result<Buffer> {
        let buffer = self.context.alloc(MemoryKind::Device, PAGE)?;
        self.file.read(page * PAGE, &buffer, 0, PAGE)?;
        Ok(buffer)
    }
}

fn serve(inner: &Inner, queue: &Mutex<Receiver<Job>>) {
    loop {
        let Ok(job) = queue.lock().recv() else { return };
        let mut state = inner.state.lock();
        while state.held {
            inner.changed.wait(&mut state);
        }
        drop(state);
        for page in job.pages {
            let read = inner.read(page);
            let mut state = inner.state.lock();
            state.reading.remove(&page);
            match read {
                Ok(buffer) => drop(state.pages.insert(page, buffer)),
                Err(error) => state.failure = Some(error),
            }
        }
        inner.state.lock().in_flight -= 1;
        drop(job.done);
    }
}

impl Target for Shelf {
    fn page_size(&self) -> u64 {
        PAGE
    }

    fn capacity(&self) -> u64 {
        self.inner.capacity
    }

    fn file_size(&self) -> Result<u64> {
        self.inner.file.size()
    }

    fn presence(&self, offset: u64) -> Presence {
        let state = self.inner.state.lock();
        let page = offset / PAGE;
        if state.pages.contains_key(&page) {
            Presence::Resident
        } else if state.reading.contains(&page) {
            Presence::Reading
        } else {
            Presence::Absent
        }
    }

    fn start(&self, offset: u64, size: u64, done: Done) -> Result<u64> {
        let mut state = self.inner.state.lock();
        if let Some(error) = state.failure.take() {
            return Err(error);
        }
        let pages: Vec<u64> = (offset / PAGE..(offset + size).div_ceil(PAGE))
            .filter(|page| !state.pages.contains_key(page) && !state.reading.contains(page))
            .collect();
        state.started.push((offset, size));
        state.in_flight += 1;
        state.most_in_flight = state.most_in_flight.max(state.in_flight);
        state.reading.extend(&pages);
        drop(state);
        let count = pages.len() as u64;
        if let Some(jobs) = &self.jobs {
            jobs.send(Job { pages, done }).expect("a reader is there");
        }
        Ok(count)
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        self.release();
        self.jobs = None;
        for reader in self.readers.drain(..) {
            reader.join().expect("a reader ends well");
        }
    }
}

/// Prefetches up to 32 pages in chunks of 4, unless `config` says something else.
pub fn prefetcher(shelf: Shelf, config: PrefetchConfig) -> Prefetcher<Shelf> {
    let context = gds_rs::Config {
        prefetch_distance: 0,
        ..gds_rs::Config::default()
    };
    let or = |given: u64, standard| if given == 0 { standard } else { given };
    let config = PrefetchConfig {
        distance_bytes: or(config.distance_bytes, 32 * PAGE),
        chunk_bytes: or(config.chunk_bytes, 4 * PAGE),
        deadline: match config.deadline {
            // No request of these tests is late because the machine is slow.
            Duration::ZERO => Duration::from_secs(600),
            deadline => deadline,
        },
        ..config
    };
    Prefetcher::over(shelf, &context, config).expect("a prefetcher opens")
}

/// Waits for what another thread will do.
pub fn until(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until nothing is being read and nothing is about to be.
pub fn settle(prefetcher: &Prefetcher<Shelf>) {
    until("it settles", || {
        let stats = prefetcher.stats();
        let is_full = stats.unused_pages + 4 > prefetcher.target().capacity() / 8;
        stats.in_flight == 0 && (stats.queued == 0 || is_full)
    });
}

/// Reads a page as a program would, and waits until what follows is read ahead.
pub fn visit(prefetcher: &Prefetcher<Shelf>, page: u64) -> Buffer {
    prefetcher.record(page * PAGE, PAGE);
    let buffer = prefetcher.target().get(page);
    settle(prefetcher);
    buffer
}
