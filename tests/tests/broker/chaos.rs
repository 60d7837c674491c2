//! Promises 1, 3 and 4 in a storm: the broker is killed over and over while clients create, replace and destroy.
//!
//! Each round ends with SIGKILL after so many answers, whatever else is under way. The next broker has to know all
//! that was answered, and what runs; the children themselves keep count of how often they were started and cleaned
//! up. `PROCBROKER_CHAOS_SEED` repeats the choices of a run, as far as they are not the scheduler's, and
//! `PROCBROKER_CHAOS_ROUNDS` makes it longer.

mod checks;
mod client;

mod heavy {
    use std::env;
    use std::io::ErrorKind;
    use std::os::unix::net::UnixStream;
    use std::sync::mpsc;
    use std::thread;

    use fastrand::Rng;

    use super::checks::{Books, check, check_the_end};
    use super::client::Client;
    use crate::harness::{PATIENCE, Setup, TestBroker};

    const CLIENTS: u32 = 3;
    const ROUNDS: u32 = 60;
    /// The broker is killed after fewer answers than this.
    const ANSWERS_MAX: usize = 60;

    fn setting<T: std::str::FromStr>(name: &str, default: impl FnOnce() -> T) -> T {
        match env::var(name) {
            Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")),
            Err(_) => default(),
        }
    }

    /// Lets the clients work until so many answers have come, and kills the broker.
    fn round(broker: &mut TestBroker, clients: &mut [Client], books: &Books, answers: usize) {
        let (progress, answered) = mpsc::channel();
        thread::scope(|scope| {
            for client in clients.iter_mut() {
                let (socket, progress) = (broker.socket().to_owned(), progress.clone());
                scope.spawn(move || client.work(&socket, books, &progress));
            }
            drop(progress);
            for _ in 0..answers {
                // A client that has failed has gone, and says why itself.
                if let Err(error) = answered.recv_timeout(PATIENCE) {
                    assert_eq!(error, mpsc::RecvTimeoutError::Disconnected, "no answer");
                    break;
                }
            }
            broker.crash();
        });
    }

    /// Kills one or more brokers in the midst of their starts.
    fn stillbirths(broker: &TestBroker, dice: &mut Rng) {
        while dice.u8(..3) == 0 {
            let mut process = broker.setup().command().spawn().expect("the program");
            while let Err(error) = UnixStream::connect(broker.socket()) {
                assert!(
                    [ErrorKind::ConnectionRefused, ErrorKind::NotFound].contains(&error.kind()),
                    "{error}"
                );
                assert_eq!(process.try_wait().unwrap(), None, "{}", broker.log());
            }
            for _ in 0..dice.u32(..2_000) {
                thread::yield_now();
            }
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    fn storm(seed: u64, flags: &[&str], rounds: u32) {
        let mut dice = Rng::with_seed(seed);
        let setup = Setup::new().flags(flags).flags([
            "--ended-max",
            "1000000",
            "--ended-for",
            "30d",
            "--shutdown-timeout",
            "20s",
        ]);
        let mut broker = setup.start();
        let books = Books::in_folder(broker.folder());
        let mut clients: Vec<Client> =
            (0..CLIENTS).map(|number| Client::new(number, dice.fork(), books.folder())).collect();
        for number in 0..rounds {
            let answers = dice.usize(..ANSWERS_MAX);
            round(&mut broker, &mut clients, &books, answers);
            stillbirths(&broker, &mut dice);
            broker.start_again();
            check(&mut broker.json(), broker.folder(), &books, number);
        }
        broker.stop();
        broker.start_again();
        check_the_end(&mut broker.json(), &books);
    }

    #[test]
    fn nothing_is_lost_or_doubled_whenever_the_broker_is_killed() {
        let seed = setting("PROCBROKER_CHAOS_SEED", || fastrand::u64(..));
        let rounds = setting("PROCBROKER_CHAOS_ROUNDS", || ROUNDS);
        eprintln!("PROCBROKER_CHAOS_SEED={seed} PROCBROKER_CHAOS_ROUNDS={rounds}");
        thread::scope(|scope| {
            for number in 0..4 {
                let flags: &[&str] = if number % 2 == 0 { &[] } else { &["--containment", "subreaper"] };
                scope.spawn(move || storm(seed.wrapping_add(number), flags, rounds));
            }
        });
    }
}
