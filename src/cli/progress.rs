//! Progress on standard error: a bar on a terminal, a few plain lines elsewhere.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output::{bytes_text, note};
use crate::engine::{Completion, Ticket};
use crate::error::{ErrorKind, Result};

/// How often a waiting command looks at how far it is.
const INTERVAL: Duration = Duration::from_millis(40);
/// Plain lines while one thing is under way.
const LINES: u64 = 4;

/// How far one thing is. Says nothing more once dropped.
#[derive(Debug)]
pub(super) struct Progress {
    what: String,
    total: u64,
    show: Show,
}

#[derive(Debug)]
enum Show {
    Nothing,
    Bar(ProgressBar),
    Lines { said: u64 },
}

impl Progress {
    /// For `total` bytes of `what`; 0 bytes is not known or nothing.
    pub(super) fn new(what: &str, total: u64, quiet: bool) -> Self {
        let show = if quiet {
            Show::Nothing
        } else if std::io::stderr().is_terminal() {
            Show::Bar(bar(what, total))
        } else {
            Show::Lines { said: 0 }
        };
        Self {
            what: what.to_owned(),
            total,
            show,
        }
    }

    /// Tells that `done` bytes are done.
    pub(super) fn set(&mut self, done: u64) {
        match &mut self.show {
            Show::Nothing => {}
            Show::Bar(bar) => bar.set_position(done),
            Show::Lines { said } => {
                let step = done
                    .saturating_mul(LINES)
                    .checked_div(self.total)
                    .unwrap_or(0);
                if step > *said {
                    *said = step;
                    note(format_args!(
                        "{}: {} of {}",
                        self.what,
                        bytes_text(done),
                        bytes_text(self.total)
                    ));
                }
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Show::Bar(bar) = &self.show {
            bar.finish_and_clear();
        }
    }
}

fn bar(what: &str, total: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    let template = if total > 0 {
        "{msg} [{bar:40}] {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta}"
    } else {
        "{msg} {decimal_bytes} {decimal_bytes_per_sec}"
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_message(what.to_owned());
    bar
}

/// Waits for a ticket and tells now and then how many bytes have arrived.
///
/// # Errors
/// As `Ticket::wait`.
pub(super) fn wait(ticket: &Ticket, mut tell: impl FnMut(u64)) -> Result<Completion> {
    loop {
        match ticket.wait(Some(INTERVAL)) {
            Err(error) if error.kind() == ErrorKind::Pending => tell(ticket.progress()),
            Ok(completion) => {
                tell(completion.bytes);
                return Ok(completion);
            }
            Err(error) => return Err(error),
        }
    }
}
