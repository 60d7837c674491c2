//! Output that never pauses, under a broker that is killed, upgraded, or has no room left.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{logs, whole};
use crate::harness::children::{script, with};
use crate::harness::{JsonClient, Setup, TestBroker, is_root};

/// Lines of a round; more than a pipe holds.
const ROUND: usize = 20_000;

/// Each line has so many bytes, its end included.
const LINE: usize = 8;

/// Writes a round of numbered lines for each line that it reads, until that is `end`.
const COUNT: &str = "from=0; while read -r go && [ \"$go\" != end ]; do \
                     seq -f %07.0f $from $((from + 19999)); from=$((from + 20000)); done <\"$1\"";

fn numbered(lines: usize) -> String {
    (0..lines).map(|number| format!("{number:07}\n")).collect::<Vec<_>>().concat()
}

/// A piece of a line, cut anywhere, that is found in no other place of the numbered lines.
const UNIQUE: usize = 4 * LINE;

/// Where a text says something again: it goes on with what came a piece before. Returns how far that is.
fn said_again(expected: &[u8], at: usize, rest: &[u8]) -> Option<usize> {
    let next = &rest[..rest.len().min(UNIQUE)];
    (1..=at.min(128 << 10)).find(|back| expected[at - back..].starts_with(next))
}

/// Checks that a text is the expected one, in which pieces may be said again, and returns how many are.
fn repeats(expected: &[u8], found: &[u8]) -> usize {
    let (mut at, mut seen, mut repeats) = (0, 0, 0);
    while seen < found.len() {
        if expected.get(at) == Some(&found[seen]) {
            (at, seen) = (at + 1, seen + 1);
            continue;
        }
        // Some bytes after the seam may have been the same by chance.
        let seam = (0..LINE.min(at)).find_map(|chance| {
            let (at, seen) = (at - chance, seen - chance);
            said_again(expected, at, &found[seen..]).map(|back| (at - back, seen))
        });
        (at, seen) = seam.unwrap_or_else(|| {
            let text = String::from_utf8_lossy(&found[seen.saturating_sub(40)..found.len().min(seen + 40)]);
            panic!("something is missing at byte {at} of {}: {text:?}", expected.len())
        });
        repeats += 1;
    }
    assert_eq!(at, expected.len(), "the end is missing");
    repeats
}

/// All of it, of a child that has ended.
fn text(client: &mut JsonClient, child: &Value) -> String {
    client.ok("wait", json!({"target": child["id"]}));
    let (text, truncated) = logs(client, &json!({"target": child["id"]}));
    assert!(!truncated);
    text
}

#[test]
fn no_byte_is_lost_however_often_the_broker_is_killed() {
    const ROUNDS: usize = 20;
    let mut broker = TestBroker::start();
    let mut orders = broker.fifo("orders");
    let child = broker.json().create(script(&orders, COUNT));
    for round in 0..ROUNDS {
        orders.say("go");
        // At another point of the round each time.
        let began = Instant::now();
        while began.elapsed() < Duration::from_micros(300 * round as u64) {
            std::hint::spin_loop();
        }
        broker.crash_and_start_again();
    }
    orders.say("end");
    let found = text(&mut broker.json(), &child);
    let repeats = repeats(numbered(ROUND * ROUNDS).as_bytes(), found.as_bytes());
    assert!(repeats <= ROUNDS, "{repeats} pieces were kept twice");
}

#[test]
fn no_byte_is_lost_or_kept_twice_however_often_the_broker_is_upgraded() {
    const ROUNDS: usize = 10;
    let broker = TestBroker::start();
    let mut orders = broker.fifo("orders");
    let child = broker.json().create(script(&orders, COUNT));
    for _ in 0..ROUNDS {
        orders.say("go");
        let said = broker.run(&["upgrade"]);
        assert_eq!(said.status, 0, "{said:?}");
    }
    orders.say("end");
    let found = text(&mut broker.json(), &child);
    assert!(found == numbered(ROUND * ROUNDS), "{} bytes", found.len());
}

#[test]
fn what_a_child_wrote_last_before_an_upgrade_is_kept() {
    let broker = TestBroker::start();
    let mut client = broker.json();
    for _ in 0..10 {
        // It ends while the programs change.
        let child = client.create(json!({"command": ["seq", "-f", "%07.0f", "0", "5999"]}));
        let said = broker.run(&["upgrade"]);
        assert_eq!(said.status, 0, "{said:?}");
        client = broker.json();
        assert!(text(&mut client, &child) == numbered(6_000));
    }
}

const TMPFS: &str = "mount -t tmpfs -o size=2m,mode=700 tmpfs \"$1\" && shift && exec \"$@\"";

#[test]
fn a_full_disk_holds_up_no_child_and_what_is_lost_is_counted() {
    if !is_root() {
        return;
    }
    let mut broker = Setup::new().in_own_mounts(TMPFS).start();
    let mut client = broker.json();
    let mut done = broker.fifo("done");
    let early = client.create(json!({"command": ["echo", "early"]}));
    client.ok("wait", json!({"target": early["id"]}));
    let flood = "seq 1 2000000; echo done >\"$1\"; exec sleep infinity";
    let child = client.create(with(script(&done, flood), &json!({"name": "one"})));
    assert_eq!(done.line(), "done");
    let answer = client.ok("logs", json!({"target": "one"}));
    let (text, dropped) = (answer["text"].as_str().unwrap(), answer["dropped"].as_u64().unwrap());
    assert!(answer["truncated"] == true && text.starts_with("1\n2\n"), "{} bytes", text.len());
    assert!(dropped > 8 << 20, "{dropped} bytes are said to be lost");
    assert!(broker.kept_of(&child) <= 2 << 20);
    assert_eq!(logs(&mut client, &json!({"target": early["id"]})), whole("early\n"));
    client.ok("destroy", json!({"target": "one"}));
    let ended = broker.stop();
    assert_eq!(ended.lines_with("output of children is lost").len(), 1, "{}", ended.log);
}
