//! Tells when the kernel has let go of everything that it was handed with a file.
//!
//! The kernel closes the files registered with a ring when it frees the ring, which it does after
//! the last operation, on whichever thread that happens. A pipe whose only writing end is
//! registered so reads as ended from then on, and not before.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// The reading end of a pipe whose writing end the kernel alone holds.
#[derive(Debug)]
pub(super) struct Witness(OwnedFd);

impl Witness {
    /// Makes the pipe; `give` registers its writing end, which is then closed here.
    ///
    /// # Errors
    /// What pipe2(2) or `give` answers.
    pub(super) fn new(give: impl FnOnce(RawFd) -> std::io::Result<()>) -> std::io::Result<Self> {
        let mut ends = [-1; 2];
        // SAFETY: pipe2 writes two ints.
        if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
            return Err(std::io::Error::last_os_error());
        }
        // SAFETY: both were just made and nobody else owns them.
        let (read, write) =
            unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) };
        give(write.as_raw_fd())?;
        Ok(Self(read))
    }

    /// Sleeps until the kernel has closed the writing end.
    pub(super) fn wait(self) {
        let mut byte = 0u8;
        loop {
            // SAFETY: one byte is writable.
            let n = unsafe { libc::read(self.0.as_raw_fd(), (&raw mut byte).cast(), 1) };
            let interrupted = std::io::Error::last_os_error().kind();
            if n >= 0 || interrupted != std::io::ErrorKind::Interrupted {
                return;
            }
        }
    }

    /// Whether the kernel has closed the writing end, without sleeping.
    #[cfg(test)]
    fn is_over(&self) -> bool {
        let mut poll = libc::pollfd {
            fd: self.0.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one pollfd.
        unsafe { libc::poll(&raw mut poll, 1, 0) == 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_with_the_last_writing_end() {
        let mut kept = None;
        let witness = Witness::new(|fd| {
            // SAFETY: `fd` is open; the duplicate is owned here.
            kept = Some(unsafe { OwnedFd::from_raw_fd(libc::dup(fd)) });
            Ok(())
        })
        .unwrap();
        assert!(!witness.is_over());
        drop(kept);
        assert!(witness.is_over());
        witness.wait();
    }

    #[test]
    fn a_ring_that_is_closed_ends_it() {
        let Ok(ring) = io_uring::IoUring::new(2) else {
            println!("skipped: no io_uring here");
            return;
        };
        let witness = Witness::new(|fd| ring.submitter().register_files(&[fd])).unwrap();
        assert!(!witness.is_over());
        drop(ring);
        witness.wait();
    }

    #[test]
    fn a_refused_registration_is_answered() {
        let refused = Witness::new(|_| Err(std::io::Error::from_raw_os_error(libc::ENOMEM)));
        assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::ENOMEM));
    }
}
