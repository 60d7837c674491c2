//! A stop in the middle of a storm of creates: whatever was started is ended and accounted for.

mod heavy {
    use std::collections::BTreeSet;
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::os::unix::net::UnixStream;
    use std::sync::mpsc::{self, Sender};
    use std::thread::{self, JoinHandle};

    use nix::sys::signal::Signal;
    use serde_json::{Value, json};

    use crate::harness::{Setup, TestBroker};

    const CLIENTS: usize = 6;
    const CREATES: usize = 500;

    /// What one client was answered.
    #[derive(Debug, Default)]
    struct Answered {
        created: BTreeSet<String>,
        refused: usize,
    }

    /// Sends all at once, as far as the broker takes it.
    fn send(mut stream: UnixStream, client: usize) -> JoinHandle<()> {
        thread::spawn(move || {
            for number in 0..CREATES {
                let params = json!({"command": ["sleep", "infinity"], "name": format!("c{client}-{number}")});
                let request = json!({"jsonrpc": "2.0", "id": number, "method": "create", "params": params});
                if stream.write_all(format!("{request}\n").as_bytes()).is_err() {
                    return;
                }
            }
        })
    }

    /// Reads until the broker closes, and says each time that a child was created.
    fn read(stream: UnixStream, progress: Sender<()>) -> JoinHandle<Answered> {
        thread::spawn(move || {
            let mut answered = Answered::default();
            let (mut reader, mut line) = (BufReader::new(stream), String::new());
            // A broker that has exited with requests unread resets the connection. It waits for a slow reader, but not for
            // long: what that gets last can be the beginning of a line.
            while reader.read_line(&mut line).is_ok_and(|_| line.ends_with('\n')) {
                let answer: Value = serde_json::from_str(&line).expect("a whole line of JSON");
                if let Some(name) = answer["result"]["child"]["name"].as_str() {
                    assert!(answered.created.insert(name.to_owned()), "{name} was created twice");
                    let _ = progress.send(());
                } else {
                    assert_eq!(answer["error"]["data"]["kind"], "shutting_down", "{answer}");
                    answered.refused += 1;
                }
                line.clear();
            }
            answered
        })
    }

    fn storm(broker: &mut TestBroker, stop_after: usize) {
        let (progress, created) = mpsc::channel();
        let mut senders = Vec::new();
        let mut readers = Vec::new();
        for client in 0..CLIENTS {
            let stream = broker.raw();
            senders.push(send(stream.try_clone().unwrap(), client));
            readers.push(read(stream, progress.clone()));
        }
        for _ in 0..stop_after {
            created.recv().expect("a created child");
        }
        broker.signal(Signal::SIGTERM);
        let ended = broker.ended_in_order();
        let ends = ended.lines_with("ended");
        let (mut count, mut refused) = (0, 0);
        for reader in readers {
            let answered = reader.join().expect("a client");
            for name in &answered.created {
                let label = format!("child={name} ");
                assert!(ends.iter().any(|line| line.contains(&label)), "nothing is said of {name}");
            }
            count += answered.created.len();
            refused += answered.refused;
        }
        for sender in senders {
            sender.join().expect("a client");
        }
        // The rest was refused, or not read any more.
        assert!(count >= stop_after && count + refused <= CLIENTS * CREATES, "{count} and {refused}");
        assert!(count < CLIENTS * CREATES, "all were created, and then the stop: no storm");
        assert_eq!(ended.lines_with("shut down: ").len(), 1);
    }

    #[test]
    fn a_stop_amid_creates_leaves_no_process_and_accounts_for_all() {
        storm(&mut TestBroker::start(), 100);
    }

    #[test]
    fn a_stop_at_the_first_creates_leaves_no_process_and_accounts_for_all() {
        storm(&mut TestBroker::start(), 1);
    }

    #[test]
    fn a_stop_amid_creates_leaves_no_process_without_cgroups() {
        storm(&mut Setup::new().flags(["--containment", "subreaper"]).start(), 100);
    }
}
