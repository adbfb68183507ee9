//! Pages that were read ahead and not used yet, by the request that read them.

use std::collections::{BTreeSet, HashMap};

use super::queue::Source;

/// One request that was started.
#[derive(Debug)]
struct Flight {
    source: Source,
    /// Pages that nobody has used yet.
    unused: BTreeSet<u64>,
    total: u64,
    used: u64,
    /// The pages are in memory, or failed.
    is_over: bool,
    /// Accesses after its end in which it has to be used.
    life: u64,
    /// When it ends, in accesses.
    expires: u64,
}

/// What became of a request: all of its pages were used, or it is too late for the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) source: Source,
    /// At least half of its pages were used.
    pub(super) is_useful: bool,
    /// Pages that were read for nothing.
    pub(super) wasted: u64,
}

/// What the use of a page tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Use {
    pub(super) source: Source,
    /// It is the first page of its request that is used.
    pub(super) is_first: bool,
    /// It is still being read.
    pub(super) is_early: bool,
    pub(super) verdict: Option<Verdict>,
}

#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// Unused page to request.
    pages: HashMap<u64, u64>,
    flights: HashMap<u64, Flight>,
    /// (expires, request) of those that are over.
    expiring: BTreeSet<(u64, u64)>,
    next: u64,
}

impl Ahead {
    /// Pages that are being read or wait to be used.
    pub(super) fn unused(&self) -> u64 {
        self.pages.len() as u64
    }

    pub(super) fn holds(&self, page: u64) -> bool {
        self.pages.contains_key(&page)
    }

    /// A request begins to be read. Its number.
    pub(super) fn start(&mut self, source: Source, pages: &[u64], life: u64) -> u64 {
        let number = self.next;
        self.next += 1;
        self.pages.extend(pages.iter().map(|page| (*page, number)));
        let flight = Flight {
            source,
            unused: pages.iter().copied().collect(),
            total: pages.len() as u64,
            used: 0,
            is_over: false,
            life,
            expires: 0,
        };
        self.flights.insert(number, flight);
        number
    }

    /// A request is over. `is_there` says which pages have come; answers how many have not, and
    /// the verdict when nothing is left to wait for.
    pub(super) fn finish(
        &mut self,
        number: u64,
        now: u64,
        is_there: impl Fn(u64) -> bool,
    ) -> (u64, Option<Verdict>) {
        let Some(flight) = self.flights.get_mut(&number) else {
            return (0, None);
        };
        let before = flight.unused.len();
        let pages = &mut self.pages;
        flight.unused.retain(|page| {
            let stays = is_there(*page);
            if !stays {
                pages.remove(page);
            }
            stays
        });
        flight.is_over = true;
        flight.expires = now + flight.life;
        self.expiring.insert((flight.expires, number));
        let missing = (before - flight.unused.len()) as u64;
        (missing, self.close_if_done(number))
    }

    /// A page is used.
    pub(super) fn touch(&mut self, page: u64) -> Option<Use> {
        let number = self.pages.remove(&page)?;
        let flight = self.flights.get_mut(&number)?;
        flight.unused.remove(&page);
        flight.used += 1;
        let (source, is_first, is_early) = (flight.source, flight.used == 1, !flight.is_over);
        Some(Use {
            source,
            is_first,
            is_early,
            verdict: self.close_if_done(number),
        })
    }

    fn close_if_done(&mut self, number: u64) -> Option<Verdict> {
        let flight = self.flights.get(&number)?;
        if flight.is_over && flight.unused.is_empty() {
            return self.close(number);
        }
        None
    }

    fn close(&mut self, number: u64) -> Option<Verdict> {
        let flight = self.flights.remove(&number)?;
        self.expiring.remove(&(flight.expires, number));
        for page in &flight.unused {
            self.pages.remove(page);
        }
        Some(Verdict {
            source: flight.source,
            is_useful: flight.used * 2 >= flight.total,
            wasted: flight.unused.len() as u64,
        })
    }

    /// Gives up a request that was not used in time. Call until it answers none.
    pub(super) fn expire(&mut self, now: u64) -> Option<Verdict> {
        let (expires, number) = *self.expiring.first()?;
        (expires < now).then(|| self.close(number)).flatten()
    }
}
