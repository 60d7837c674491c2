//! Who reads standard output, where a verb goes on writing to it.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::thread;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::oneshot;

use super::failure::Failure;

/// Whether somebody reads what is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readership {
    /// As far as is known.
    Reads,
    /// No: it has seen enough, such as head(1).
    Gone,
}

/// Writes at once: who follows waits for it.
pub(super) fn write(output: &mut impl Write, text: &str) -> Result<Readership, Failure> {
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Ok(()) => Ok(Readership::Reads),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Readership::Gone),
        Err(error) => Err(Failure::Output(error)),
    }
}

/// Comes when nobody can read standard output any more, even while the child is silent; never where that cannot be
/// known. A thread waits for it, because the event loop would not take every kind of output.
pub(super) async fn reader_gone() {
    let (tell, gone) = oneshot::channel();
    let wait = move || {
        let stdout = io::stdout();
        // No event is asked for, and so only an error or a hangup comes (poll(2)).
        let mut output = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
        let result = loop {
            match poll(&mut output, PollTimeout::NONE) {
                Err(Errno::EINTR) => {}
                result => break result,
            }
        };
        if result.is_ok() {
            // Who waited has come to its end otherwise.
            let _ = tell.send(());
        }
    };
    // It ends with the program.
    let _ = thread::Builder::new().spawn(wait);
    if gone.await.is_err() {
        std::future::pending::<()>().await;
    }
}
