//! Tells the service's owner (systemd, `sd_notify(3)`) how the broker is. Nothing here fails the broker: what
//! cannot be told is logged.

use std::time::Duration;

use sd_notify::NotifyState;

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

    /// How often [`alive`](Self::alive) is to be called, where the owner watches: twice as often as it asks for.
    #[must_use]
    pub fn watchdog_interval(self) -> Option<Duration> {
        sd_notify::watchdog_enabled().map(|timeout| timeout / 2).filter(|interval| !interval.is_zero())
    }

    /// The broker still answers.
    pub fn alive(self) {
        tell(&[NotifyState::Watchdog]);
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!("cannot tell the service manager ({states:?}) through NOTIFY_SOCKET: {error}");
    }
}

/// A line break would begin another assignment.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;
    use crate::os::alone;

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
            ServiceOwner.alive();
            assert_eq!(ServiceOwner.watchdog_interval(), None);
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
    fn the_watchdog_is_served_twice_as_often_as_it_asks() {
        let variables = [("WATCHDOG_USEC", "3000000")];
        if told(&variables, "the_watchdog_is_served_twice_as_often_as_it_asks").is_none() {
            assert_eq!(ServiceOwner.watchdog_interval(), Some(Duration::from_millis(1_500)));
        }
    }

    #[test]
    fn a_watchdog_of_another_process_is_not_served() {
        let variables = [("WATCHDOG_USEC", "3000000"), ("WATCHDOG_PID", "1")];
        if told(&variables, "a_watchdog_of_another_process_is_not_served").is_none() {
            assert_eq!(ServiceOwner.watchdog_interval(), None);
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
