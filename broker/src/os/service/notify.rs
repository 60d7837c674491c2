//! Tells the service's owner (systemd, `sd_notify(3)`) how the broker is. Nothing here fails the broker: what
//! cannot be told is logged.

use std::ffi::{OsStr, OsString};
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use sd_notify::NotifyState;

use crate::os::process::variables::NOTIFY_VARIABLE;

/// How long the owner may take to make room for a word; the event loop waits for it.
const TELLING_PATIENCE: Duration = Duration::from_millis(100);

/// How long the owner may take to make room for a descriptor that it is handed.
const HAND_OVER_PATIENCE: Duration = Duration::from_secs(5);

/// The owner of the service that the broker is, if it is one: `NOTIFY_SOCKET` names it. The variable stays in the
/// broker's environment, and is kept from that of its children.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServiceOwner;

impl ServiceOwner {
    /// Requests are answered from now on.
    pub fn ready(self, status: &str) {
        tell(&[NotifyState::Ready, NotifyState::Status(&one_line(status))]);
    }

    /// What the broker is doing, for `systemctl status`.
    pub fn status(self, status: &str) {
        tell(&[NotifyState::Status(&one_line(status))]);
    }

    /// The shutdown began, and may take so long: the owner is asked for at least that time.
    pub fn stopping(self, timeout: Duration, status: &str) {
        let extension = format!("EXTEND_TIMEOUT_USEC={}", timeout.as_micros());
        tell(&[
            NotifyState::Stopping,
            NotifyState::Custom(&extension),
            NotifyState::Status(&one_line(status)),
        ]);
    }

    /// Whether there is one.
    #[must_use]
    pub fn is_there(self) -> bool {
        address().is_some()
    }

    /// Has the owner keep a descriptor under a name of its own, instead of what it had under that name, and pass it
    /// to the next process of this service (`FDSTORE=1`, `sd_notify(3)`). It does not say whether it does.
    ///
    /// # Errors
    /// When there is no owner, or it cannot be told.
    pub fn keep(self, name: &str, descriptor: BorrowedFd<'_>) -> io::Result<()> {
        let address = address().ok_or_else(|| io::Error::other("NOTIFY_SOCKET is not set"))?;
        let socket = connect(&address, HAND_OVER_PATIENCE)?;
        socket.send(format!("FDSTOREREMOVE=1\nFDNAME={name}\n").as_bytes())?;
        // What hangs up would be dropped from the store without FDPOLL=0.
        let message = format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0\n");
        let parts = [IoSlice::new(message.as_bytes())];
        let descriptors = [descriptor.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&descriptors)];
        sendmsg::<()>(socket.as_raw_fd(), &parts, &rights, MsgFlags::MSG_NOSIGNAL, None)?;
        Ok(())
    }

    /// Reports that the event loop turns, twice as often as the owner asks for (`WatchdogSec=`, systemd.service(5)).
    ///
    /// It runs on the event loop itself, so that a loop that hangs is noticed. It returns at once where nobody watches.
    pub async fn keep_watchdog_fed(self) {
        let Some(interval) = watchdog_interval() else { return };
        let mut ticks = tokio::time::interval(interval);
        loop {
            ticks.tick().await;
            tell(&[NotifyState::Watchdog]);
        }
    }
}

/// How often the owner is told, where it watches.
fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|timeout| timeout / 2).filter(|interval| !interval.is_zero())
}

fn address() -> Option<OsString> {
    std::env::var_os(NOTIFY_VARIABLE)
}

/// A socket to the owner, which waits no longer than that for room in the owner's queue: an owner that reads nothing
/// holds up nobody (`net.unix.max_dgram_qlen`, unix(7)).
fn connect(address: &OsStr, patience: Duration) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    match address.as_bytes().strip_prefix(b"@") {
        Some(name) => socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
        None => socket.connect(address)?,
    }
    socket.set_write_timeout(Some(patience))?;
    Ok(socket)
}

fn tell(states: &[NotifyState<'_>]) {
    let Some(address) = address() else { return };
    let lines: Vec<String> = states.iter().map(ToString::to_string).collect();
    let message = lines.join("\n") + "\n";
    let told = connect(&address, TELLING_PATIENCE).and_then(|socket| socket.send(message.as_bytes()));
    if let Err(error) = told {
        tracing::warn!("cannot tell the service manager ({states:?}) through NOTIFY_SOCKET: {error}");
    }
}

/// A line break would begin another assignment.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use std::io::IoSliceMut;
    use std::os::fd::AsFd;

    use nix::cmsg_space;
    use nix::sys::socket::recvmsg;

    use super::*;
    use crate::os::process::alone;

    /// What one call sends, with this environment.
    fn told(variables: &[(&str, &str)], test: &str) -> Option<Vec<String>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let path = path.to_str().unwrap();
        let variables: Vec<_> = variables.iter().copied().chain([("NOTIFY_SOCKET", path)]).collect();
        if alone::here_with(module_path!(), test, &variables) {
            return None;
        }
        socket.set_nonblocking(true).unwrap();
        let receive = || {
            let mut message = [0; 512];
            let count = socket.recv(&mut message).ok()?;
            Some(String::from_utf8(message[..count].to_vec()).unwrap())
        };
        Some(std::iter::from_fn(receive).collect())
    }

    #[test]
    fn the_owner_is_told_in_the_words_of_sd_notify() {
        let Some(messages) = told(&[], "the_owner_is_told_in_the_words_of_sd_notify") else {
            ServiceOwner.ready("serving\nREADY=0");
            ServiceOwner.stopping(Duration::from_millis(7_500), "stopping");
            tell(&[NotifyState::Watchdog]);
            assert_eq!(watchdog_interval(), None);
            return;
        };
        assert_eq!(
            messages,
            [
                "READY=1\nSTATUS=serving READY=0\n",
                "STOPPING=1\nEXTEND_TIMEOUT_USEC=7500000\nSTATUS=stopping\n",
                "WATCHDOG=1\n",
            ]
        );
    }

    #[test]
    fn a_descriptor_is_kept_instead_of_what_had_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let variables = [("NOTIFY_SOCKET", path.to_str().unwrap())];
        let name = "a_descriptor_is_kept_instead_of_what_had_its_name";
        if alone::here_with(module_path!(), name, &variables) {
            assert!(ServiceOwner.is_there());
            ServiceOwner.keep("it", io::stdin().as_fd()).unwrap();
            return;
        }
        socket.set_nonblocking(true).unwrap();
        for (expected, descriptors) in
            [("FDSTOREREMOVE=1\nFDNAME=it\n", 0), ("FDSTORE=1\nFDNAME=it\nFDPOLL=0\n", 1)]
        {
            let (mut text, mut room) = ([0; 512], cmsg_space!([i32; 4]));
            let mut parts = [IoSliceMut::new(&mut text)];
            let message =
                recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut room), MsgFlags::MSG_CMSG_CLOEXEC)
                    .unwrap();
            assert_eq!(message.cmsgs().unwrap().count(), descriptors);
            let length = message.bytes;
            assert_eq!(String::from_utf8_lossy(&text[..length]), expected);
        }
    }

    #[test]
    fn without_an_owner_nothing_is_kept() {
        if alone::here(module_path!(), "without_an_owner_nothing_is_kept") && !ServiceOwner.is_there() {
            assert!(ServiceOwner.keep("it", io::stdin().as_fd()).is_err());
        }
    }

    #[test]
    fn the_watchdog_is_served_twice_as_often_as_it_asks() {
        let variables = [("WATCHDOG_USEC", "3000000")];
        if told(&variables, "the_watchdog_is_served_twice_as_often_as_it_asks").is_none() {
            assert_eq!(watchdog_interval(), Some(Duration::from_millis(1_500)));
        }
    }

    #[test]
    fn a_watchdog_of_another_process_is_not_served() {
        let variables = [("WATCHDOG_USEC", "3000000"), ("WATCHDOG_PID", "1")];
        if told(&variables, "a_watchdog_of_another_process_is_not_served").is_none() {
            assert_eq!(watchdog_interval(), None);
        }
    }

    #[test]
    fn an_owner_that_does_not_listen_fails_nothing() {
        let variables = [("NOTIFY_SOCKET", "/nonexistent/notify")];
        if alone::here_with(module_path!(), "an_owner_that_does_not_listen_fails_nothing", &variables) {
            ServiceOwner.ready("ready");
        }
    }
}
