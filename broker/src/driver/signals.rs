//! The signals that mean something to the broker, and what they tell the core.

use std::collections::BTreeSet;
use std::task::{Context, Poll, Waker};

use procbroker_core::{Input, ShutdownCause};
use procbroker_protocol::Signal as Number;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::os::host::window::WindowSignals;
use crate::os::process::child_signal::ChildSignal;
use crate::os::process::proc;

/// Whom signals are for that do not end the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// The broker: SIGUSR2 asks for an upgrade, SIGQUIT for a stop, as in a terminal.
    Broker,
    /// The main command: SIGUSR1, SIGUSR2, SIGWINCH and SIGQUIT are passed on to it.
    MainCommand,
}

/// The signals, taken over from their default actions.
#[derive(Debug)]
pub struct Signals {
    child: ChildSignal,
    /// Their streams do not end before the event loop does.
    others: Vec<(Signal, Meaning)>,
    /// SIGWINCH, where it is for the main command: one that a terminal sends when its size changes is not, since it would
    /// stop an Apache.
    windows: Option<WindowSignals>,
    /// Those that mean nothing and have come, of which it was said once.
    ignored: BTreeSet<Number>,
}

/// What a signal has told.
#[derive(Debug)]
pub(super) enum SignalEvent {
    /// Some child has ended, or several.
    ChildEnded,
    /// Something for the core to know.
    Input(Box<Input>),
}

/// What a signal means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// A stop, which a second one of the hurrying kind hurries.
    Stop {
        hurries: bool,
    },
    Upgrade,
    /// Whatever it means to the main command.
    PassOn(Number),
    /// Nothing. By default it would end the broker, and leave the children.
    Nothing(Number),
}

impl Meaning {
    /// What the core is told, if anything.
    fn input(self) -> Option<Input> {
        match self {
            Self::Stop { hurries } => Some(Input::ShutdownAsked { cause: ShutdownCause::Signal { hurries } }),
            Self::Upgrade => Some(Input::UpgradeAsked),
            Self::PassOn(signal) => Some(Input::PassOn { signal }),
            Self::Nothing(_) => None,
        }
    }
}

impl Signals {
    /// Takes the signals over from their default actions. SIGHUP, SIGINT and SIGQUIT that are ignored by now stay so, where they
    /// are for the broker: somebody has started it with nohup(1), or in the background of a script.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn install(audience: Audience) -> std::io::Result<Self> {
        let stop = |hurries| Meaning::Stop { hurries };
        let mut meanings = vec![
            (SignalKind::terminate(), stop(true)),
            (SignalKind::interrupt(), stop(true)),
            (SignalKind::hangup(), stop(false)),
            (SignalKind::alarm(), Meaning::Nothing(Number::ALRM)),
        ];
        let mut windows = None;
        match audience {
            Audience::Broker => meanings.extend([
                (SignalKind::user_defined1(), Meaning::Nothing(Number::USR1)),
                (SignalKind::user_defined2(), Meaning::Upgrade),
                (SignalKind::quit(), stop(true)),
            ]),
            Audience::MainCommand => {
                meanings.extend([
                    (SignalKind::user_defined1(), Meaning::PassOn(Number::USR1)),
                    (SignalKind::user_defined2(), Meaning::PassOn(Number::USR2)),
                    (SignalKind::quit(), Meaning::PassOn(Number::QUIT)),
                ]);
                windows = Some(WindowSignals::take_over()?);
            }
        }
        let ignored = proc::ignored_signals();
        let is_ignored = |kind: SignalKind| ignored >> (kind.as_raw_value() - 1) & 1 == 1;
        let may_be_ignored = [SignalKind::hangup(), SignalKind::interrupt(), SignalKind::quit()];
        meanings.retain(|(kind, meaning)| match meaning {
            Meaning::Stop { .. } => !may_be_ignored.contains(kind) || !is_ignored(*kind),
            Meaning::Upgrade | Meaning::PassOn(_) | Meaning::Nothing(_) => true,
        });
        let others = meanings.into_iter().map(|(kind, meaning)| Ok((signal(kind)?, meaning)));
        let others = others.collect::<std::io::Result<_>>()?;
        let signals = Self { child: ChildSignal::new()?, others, windows, ignored: BTreeSet::new() };
        // Only now, so that one which came before has its effect. They were blocked until then, by the broker itself
        // and perhaps by whoever started it.
        let mut still_blocked = ChildSignal::mask();
        if signals.windows.is_some() {
            still_blocked.extend(&WindowSignals::set());
        }
        still_blocked.thread_set_mask()?;
        Ok(signals)
    }

    /// Waits for one. None is lost when this is given up in the midst of waiting.
    pub(super) async fn next(&mut self) -> SignalEvent {
        std::future::poll_fn(|context| {
            if self.child.poll(context).is_ready() {
                return Poll::Ready(SignalEvent::ChildEnded);
            }
            // It is waited for no more once the event loop has ended.
            if let Some(Poll::Ready(Ok(()))) = self.windows.as_ref().map(|windows| windows.poll_sent(context))
            {
                let input = Input::PassOn { signal: Number::WINCH };
                return Poll::Ready(SignalEvent::Input(Box::new(input)));
            }
            self.poll_others(context).map(|input| SignalEvent::Input(Box::new(input)))
        })
        .await
    }

    fn poll_others(&mut self, context: &mut Context<'_>) -> Poll<Input> {
        for (signal, meaning) in &mut self.others {
            while signal.poll_recv(context).is_ready() {
                match meaning {
                    Meaning::Stop { .. } | Meaning::Upgrade | Meaning::PassOn(_) => {
                        if let Some(input) = meaning.input() {
                            return Poll::Ready(input);
                        }
                    }
                    Meaning::Nothing(number) if self.ignored.insert(*number) => {
                        tracing::warn!(signal = %number, "a signal that means nothing to a broker is ignored");
                    }
                    Meaning::Nothing(_) => {}
                }
            }
        }
        Poll::Pending
    }

    /// That the broker was told to stop, if it was and does not know yet.
    pub(super) fn stop(&mut self) -> Option<Input> {
        let mut context = Context::from_waker(Waker::noop());
        self.others.iter_mut().find_map(|(signal, meaning)| match meaning {
            Meaning::Stop { .. } => signal.poll_recv(&mut context).is_ready().then(|| meaning.input())?,
            Meaning::Upgrade | Meaning::PassOn(_) | Meaning::Nothing(_) => None,
        })
    }
}
