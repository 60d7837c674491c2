//! Tells the service's owner (systemd, `sd_notify(3)`) how the broker is. Nothing here fails the broker: what
//! cannot be told is logged.

use std::ffi::{OsStr, OsString};
use std::fmt::{Debug, Display};
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use sd_notify::NotifyState;
use tokio::sync::mpsc;

use crate::os::process::variables::NOTIFY_VARIABLE;

/// How long the owner may take to make room for a word. Nobody waits for it but the words behind it.
const TELLING_PATIENCE: Duration = Duration::from_secs(30);

/// How many words wait for the owner to make room: there are few in the life of a broker.
const WORDS_WAITING_MAX: usize = 16;

/// How long the owner may take to make room for a descriptor that it is handed.
const HAND_OVER_PATIENCE: Duration = Duration::from_secs(5);

/// The owner of the service that the broker is, if it is one: `NOTIFY_SOCKET` names it. The variable stays in the
/// broker's environment, and is kept from that of its children.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServiceOwner;

impl ServiceOwner {
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
        let socket = connect(&address)?;
        socket.set_write_timeout(Some(HAND_OVER_PATIENCE))?;
        socket.send(format!("FDSTOREREMOVE=1\nFDNAME={name}\n").as_bytes())?;
        // What hangs up would be dropped from the store without FDPOLL=0.
        let message = format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0\n");
        let parts = [IoSlice::new(message.as_bytes())];
        let descriptors = [descriptor.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&descriptors)];
        sendmsg::<()>(socket.as_raw_fd(), &parts, &rights, MsgFlags::MSG_NOSIGNAL, None)?;
        Ok(())
    }
}

/// What the broker says of itself to the owner: the event loop never waits for room in the owner's queue. What finds none
/// waits on a task of its own, in its order.
#[derive(Clone, Debug)]
pub struct OwnWords {
    waiting: mpsc::Sender<String>,
    /// How many wait, or are being said.
    unsaid: Arc<AtomicUsize>,
}

impl OwnWords {
    /// Nothing is said yet. To be called in the event loop.
    #[must_use]
    pub fn new() -> Self {
        let (waiting, words) = mpsc::channel(WORDS_WAITING_MAX);
        let unsaid = Arc::default();
        tokio::spawn(say_in_order(words, Arc::clone(&unsaid)));
        Self { waiting, unsaid }
    }

    /// Requests are answered from now on.
    pub fn ready(&self, status: &str) {
        self.tell(&[NotifyState::Ready, NotifyState::Status(&one_line(status))]);
    }

    /// The shutdown began, and may take so long: the owner is asked for at least that time.
    pub fn stopping(&self, timeout: Duration, status: &str) {
        let extension = format!("EXTEND_TIMEOUT_USEC={}", timeout.as_micros());
        self.tell(&[
            NotifyState::Stopping,
            NotifyState::Custom(&extension),
            NotifyState::Status(&one_line(status)),
        ]);
    }

    /// Reports that the event loop turns, twice as often as the owner asks for (`WatchdogSec=`, systemd.service(5)).
    ///
    /// It runs on the event loop itself, so that a loop that hangs is noticed. It returns at once where nobody watches.
    pub async fn keep_watchdog_fed(self) {
        let Some(interval) = watchdog_interval() else { return };
        let mut ticks = tokio::time::interval(interval);
        loop {
            ticks.tick().await;
            // One that finds no room is not missed before the next.
            self.tell_now(&[NotifyState::Watchdog]);
        }
    }

    fn tell(&self, states: &[NotifyState<'_>]) {
        let Some(message) = self.tell_now(states) else { return };
        self.unsaid.fetch_add(1, Ordering::Relaxed);
        if self.waiting.try_send(message).is_err() {
            self.unsaid.fetch_sub(1, Ordering::Relaxed);
            not_told(&states, &"it has not read what was said before");
        }
    }

    /// Says something, and returns it if there is no room for it, or if something else waits for some.
    fn tell_now(&self, states: &[NotifyState<'_>]) -> Option<String> {
        let lines: Vec<String> = states.iter().map(ToString::to_string).collect();
        let message = lines.join("\n") + "\n";
        if self.unsaid.load(Ordering::Relaxed) > 0 {
            return Some(message);
        }
        match try_say(&message) {
            Ok(()) => None,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Some(message),
            Err(error) => {
                not_told(&states, &error);
                None
            }
        }
    }
}

impl Default for OwnWords {
    fn default() -> Self {
        Self::new()
    }
}

fn not_told(words: &dyn Debug, why: &dyn Display) {
    tracing::warn!("cannot tell the service manager ({words:?}) through NOTIFY_SOCKET: {why}");
}

/// Says something if the owner has room for it now. Where there is no owner, all is said.
fn try_say(message: &str) -> io::Result<()> {
    let Some(address) = address() else { return Ok(()) };
    let socket = connect(&address)?;
    socket.set_nonblocking(true)?;
    socket.send(message.as_bytes()).map(drop)
}

/// Says what waits, one after the other, whenever the owner has room.
async fn say_in_order(mut words: mpsc::Receiver<String>, unsaid: Arc<AtomicUsize>) {
    while let Some(message) = words.recv().await {
        if let Err(error) = say(&message).await {
            not_told(&message, &error);
        }
        unsaid.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn say(message: &str) -> io::Result<()> {
    let Some(address) = address() else { return Ok(()) };
    let socket = connect(&address)?;
    socket.set_nonblocking(true)?;
    let socket = tokio::net::UnixDatagram::from_std(socket)?;
    let sent = tokio::time::timeout(TELLING_PATIENCE, socket.send(message.as_bytes())).await;
    sent.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?.map(drop)
}

/// How often the owner is told, where it watches.
fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|timeout| timeout / 2).filter(|interval| !interval.is_zero())
}

fn address() -> Option<OsString> {
    std::env::var_os(NOTIFY_VARIABLE)
}

/// A socket to the owner, whose queue has room for some words (`net.unix.max_dgram_qlen`, unix(7)).
fn connect(address: &OsStr) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    match address.as_bytes().strip_prefix(b"@") {
        Some(name) => socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
        None => socket.connect(address)?,
    }
    Ok(socket)
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
            in_event_loop(async {
                let words = OwnWords::new();
                words.ready("serving\nREADY=0");
                words.stopping(Duration::from_millis(7_500), "stopping");
                assert_eq!(words.tell_now(&[NotifyState::Watchdog]), None);
            });
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
            in_event_loop(async { OwnWords::new().ready("ready") });
        }
    }

    #[test]
    fn words_that_find_no_room_wait_for_it_in_their_order_and_hold_up_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = "words_that_find_no_room_wait_for_it_in_their_order_and_hold_up_nothing";
        if !alone::here_with(module_path!(), name, &[("NOTIFY_SOCKET", path.to_str().unwrap())]) {
            return;
        }
        let owner = UnixDatagram::bind(address().unwrap()).unwrap();
        owner.set_nonblocking(true).unwrap();
        while try_say("earlier").is_ok() {}
        let mut heard: Vec<String> = Vec::new();
        in_event_loop(async {
            let words = OwnWords::new();
            words.ready("serving");
            words.stopping(Duration::from_secs(1), "stopping");
            assert!(words.tell_now(&[NotifyState::Watchdog]).is_some(), "it does not go before the others");
            while heard.iter().filter(|word| *word != "earlier").count() < 2 {
                let mut message = [0; 512];
                if let Ok(count) = owner.recv(&mut message) {
                    heard.push(String::from_utf8(message[..count].to_vec()).unwrap());
                }
                tokio::task::yield_now().await;
            }
            while words.unsaid.load(Ordering::Relaxed) > 0 {
                tokio::task::yield_now().await;
            }
            assert_eq!(words.tell_now(&[NotifyState::Watchdog]), None);
        });
        let last: Vec<&str> = heard.iter().map(|word| word.lines().next().unwrap()).rev().take(2).collect();
        assert_eq!(last, ["STOPPING=1", "READY=1"]);
    }

    fn in_event_loop(work: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work);
    }
}
