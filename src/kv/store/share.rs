//! Work that several threads do at once: they live as long as the work, and whoever asked for it
//! does the first part of it.

use std::panic::resume_unwind;

use super::Shared;
use crate::kv::sync::{Mutex, spawn_in, thread};

/// Keys for which another thread pays.
const KEYS: u64 = 16 << 10;
/// Most threads that a checkpoint takes of a machine by itself.
const MOST: usize = 4;

/// Jobs that whoever asks does itself. In shuttle's orders none: its scopes wake whoever made them
/// when their last thread ends, whatever it waits for.
const OWN: usize = if cfg!(gds_shuttle) { 0 } else { 1 };

/// Does `work` for each of `jobs`, at once; what came out, in their order.
pub(crate) fn each<J: Send, R: Send>(jobs: Vec<J>, work: impl Fn(J) -> R + Sync) -> Vec<R> {
    if jobs.len() < 2 {
        return jobs.into_iter().map(work).collect();
    }
    let jobs: Vec<Mutex<Option<J>>> = jobs.into_iter().map(|job| Mutex::new(Some(job))).collect();
    let run = |n: usize| {
        let job = jobs[n].lock().take();
        job.map(&work)
    };
    let run = &run;
    let results: Vec<Option<R>> = thread::scope(|scope| {
        let start = |n| (n, spawn_in(scope, "gds-kv-pack", move || run(n)));
        let others: Vec<_> = (OWN..jobs.len()).map(start).collect();
        let mut results: Vec<_> = (0..OWN).map(run).collect();
        for (n, other) in others {
            results.push(match other {
                Ok(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
                // No thread is to be had.
                Err(_) => run(n),
            });
        }
        results
    });
    results.into_iter().flatten().collect()
}

/// Does both, `aside` on another thread if there are `threads` for it.
pub(crate) fn beside<R>(
    threads: usize,
    aside: impl FnOnce() + Send,
    main: impl FnOnce() -> R,
) -> R {
    if threads < 2 || OWN == 0 {
        aside();
        return main();
    }
    let aside = Mutex::new(Some(aside));
    let run = || {
        let aside = aside.lock().take();
        if let Some(aside) = aside {
            aside();
        }
    };
    thread::scope(|scope| {
        if spawn_in(scope, "gds-kv-order", run).is_err() {
            run();
        }
        main()
    })
}

impl Shared {
    /// Threads for a checkpoint of what has changed by now.
    pub fn checkpoint_threads(&self) -> usize {
        match self.config.checkpoint_threads {
            0 => {
                let all = std::thread::available_parallelism().map_or(1, usize::from);
                let worth = usize::try_from(self.index.dirty() / KEYS).unwrap_or(MOST) + 1;
                // The others are left to those who commit. Two, where there are two: who commits
                // waits for the checkpoint in the end.
                (all / 3).clamp(all.min(2), MOST).min(worth)
            }
            set => set,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_jobs() {
        for jobs in 0..9 {
            let results = each((0..jobs).collect(), |n| n * 10);
            assert!(results.into_iter().eq((0..jobs).map(|n| n * 10)));
        }
    }

    #[test]
    fn a_panic_comes_back_to_whoever_asked() {
        for bad in 0..3 {
            let work = |n| assert_ne!(n, bad, "this is wanted");
            let outcome = std::panic::catch_unwind(|| each((0..3).collect(), work));
            assert!(outcome.is_err());
        }
    }

    #[test]
    fn both_are_done() {
        for threads in 1..3 {
            let done = Mutex::new(false);
            assert_eq!(beside(threads, || *done.lock() = true, || 7), 7);
            assert!(*done.lock());
        }
    }
}
