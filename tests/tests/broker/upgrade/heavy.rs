//! A hundred upgrades in a row, with a thousand children and clients that do not pause.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use procbroker_client::blocking::Broker;
use procbroker_client::{IfExists, Select};
use procbroker_protocol::create::StandardOutput;
use procbroker_protocol::version::{PROTOCOL, encode_offer};
use serde_json::{Value, json};

use super::replaceable;
use crate::harness::{PATIENCE, TestBroker};

const UPGRADES: usize = 100;
const CHILDREN: usize = 1_000;

/// A client that waits for as long as a busy machine may take: a broker with so many children is read anew each time.
fn client(socket: &Path) -> Broker {
    let builder = procbroker_client::Broker::builder().socket(socket);
    Broker::with(builder.connect_timeout(PATIENCE)).unwrap()
}

/// Has everybody stop when it is dropped, by a failure too: nobody waits for those who go on.
struct UntilDropped<'a>(&'a AtomicBool);

impl Drop for UntilDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Connects without pause: each attempt has to succeed, whatever becomes of the connection then.
fn connect_all_the_time(socket: &Path, over: &AtomicBool) -> u64 {
    let mut connections = 0;
    while !over.load(Ordering::Relaxed) {
        let mut stream = UnixStream::connect(socket).expect("no connection is refused");
        // A broker that is being replaced may close it before it answers.
        let _ = stream.write_all(&encode_offer(PROTOCOL));
        let _ = stream.read(&mut [0; 6]);
        connections += 1;
    }
    connections
}

/// Asks for the status without pause, and notes how long each answer took.
fn ask_all_the_time(socket: &Path, over: &AtomicBool) -> Vec<Duration> {
    let client = client(socket);
    let mut times = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let began = Instant::now();
        client.status().expect("a status, sooner or later");
        times.push(began.elapsed());
    }
    times
}

/// Creates and destroys without pause: each child starts once, however often its create had to be sent.
fn create_all_the_time(broker: &TestBroker, worker: usize, over: &AtomicBool) -> usize {
    let client = client(broker.socket());
    let mut created = 0;
    while !over.load(Ordering::Relaxed) {
        let name = format!("w{worker}-{created}");
        let started = broker.path(&format!("started-{name}"));
        let script = "echo $$ >>\"$0\"; exec sleep infinity";
        let mut command = client.command("sh");
        command.args(["-c", script]).arg(&started).name(&name).if_exists(IfExists::Fail);
        if created % 2 == 0 {
            // No file of its output shows that it was not started.
            command.stdout(StandardOutput::Null);
        }
        let child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
        let ended = child.destroy().unwrap();
        assert!(ended.exit.is_some(), "{ended:?}");
        let starts = fs::read_to_string(&started).unwrap_or_default();
        // One that was destroyed at once may not have come to its first line.
        assert!(starts.lines().count() <= 1, "{name} was started more than once: {starts}");
        created += 1;
    }
    created
}

/// Counts, several thousand times a second.
const COUNT: &str = "
import os, signal, sys, time
def end(*_):
    os.write(1, b'end %d\\n' % i)
    sys.exit(0)
i = 0
signal.signal(signal.SIGTERM, end)
while True:
    i += 1
    os.write(1, b'%d\\n' % i)
    time.sleep(0.0001)
";

/// A child that counts, on standard output, until it is told to end.
pub(super) fn counter(broker: &TestBroker) -> Value {
    let params = json!({"command": ["python3", "-c", COUNT], "name": "counter"});
    broker.json().create(params)
}

/// What it wrote is all there: each number, in order.
fn check_counter(broker: &TestBroker, child: &Value) {
    let mut client = broker.json();
    client.ok("destroy", json!({"target": "counter"}));
    let answer = client.ok("logs", json!({"target": child["id"]}));
    let text = answer["text"].as_str().unwrap();
    // The oldest may have gone.
    let mut numbers = text.lines().skip(1).peekable();
    let mut last: u64 = numbers.peek().unwrap().parse::<u64>().unwrap() - 1;
    for line in numbers {
        if let Some(end) = line.strip_prefix("end ") {
            assert!(end.parse::<u64>().unwrap() - last <= 1, "{line} after {last}");
        } else {
            assert_eq!(line.parse::<u64>().unwrap(), last + 1);
            last += 1;
        }
    }
    assert!(text.lines().last().unwrap().starts_with("end "), "it did not end as it should");
}

fn pids(client: &Broker) -> BTreeSet<(String, u32)> {
    let children = client.list(&Select::live().label("kind", "steady")).unwrap();
    children.iter().map(|child| (child.id().to_string(), child.pid().expect("a live child"))).collect()
}

fn quantile(times: &mut [Duration], share: usize) -> Duration {
    times.sort();
    times[(times.len() - 1) * share / 100]
}

#[test]
fn a_hundred_upgrades_lose_no_child_no_byte_and_no_client() {
    let broker = replaceable().flags(["--shutdown-timeout", "60s"]).start();
    let client = client(broker.socket());
    let mut creator = broker.json();
    for _ in 0..CHILDREN / 50 {
        let params = json!({"command": ["sleep", "infinity"], "labels": {"kind": "steady"}});
        let calls: Vec<u64> = (0..50).map(|_| creator.send("create", params.clone())).collect();
        for call in calls {
            creator.answer(call).unwrap();
        }
    }
    let counting = counter(&broker);
    let before = pids(&client);
    assert_eq!(before.len(), CHILDREN);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let (socket, over) = (broker.socket(), &over);
        let until = UntilDropped(over);
        let connecting = scope.spawn(move || connect_all_the_time(socket, over));
        let asking = scope.spawn(move || ask_all_the_time(socket, over));
        let creating: Vec<_> = (0..2)
            .map(|worker| {
                let broker = &broker;
                scope.spawn(move || create_all_the_time(broker, worker, over))
            })
            .collect();
        let mut instances = BTreeSet::from([client.status().unwrap().instance]);
        let mut took = Vec::new();
        for upgrade in 0..UPGRADES {
            let began = Instant::now();
            let done = client.upgrade().unwrap_or_else(|error| panic!("upgrade {upgrade}: {error}"));
            took.push(began.elapsed());
            broker.says("READY=1");
            assert_eq!(done.after.pid, broker.pid());
            assert!(instances.insert(done.after.instance), "upgrade {upgrade}: the same instance");
        }
        assert_eq!(pids(&client), before);
        drop(until);
        let connections = connecting.join().unwrap();
        let mut times = asking.join().unwrap();
        let created: usize = creating.into_iter().map(|worker| worker.join().unwrap()).sum();
        assert!(connections > 0 && created > 0);
        // The longest waits of so many are those that an upgrade has caused.
        times.sort();
        let mut gaps = times.split_off(times.len().saturating_sub(UPGRADES));
        eprintln!(
            "{connections} connections, {created} children created and destroyed meanwhile; upgrade p50 {:?} max {:?}; \
             gap of status p50 {:?} max {:?}",
            quantile(&mut took, 50),
            quantile(&mut took, 100),
            quantile(&mut gaps, 50),
            quantile(&mut gaps, 100),
        );
    });
    let still = broker.json().ok("get", json!({"target": "counter"}));
    assert_eq!(still["child"]["pid"], counting["pid"], "the counter itself has gone: {still}");
    check_counter(&broker, &counting);
}
