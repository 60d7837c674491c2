//! The page about the wire says what is so: its conversation is had with a real broker, line by line.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;

use serde_json::Value;

use crate::harness::TestBroker;

/// What stands on the page for a value that differs each time.
const ANYTHING: &str = "…";

/// What is sent at once, and all that is said to it.
#[derive(Default)]
struct Turn {
    sent: Vec<String>,
    shown: Vec<Value>,
}

#[test]
fn the_conversation_on_the_page_about_the_wire_is_what_a_broker_says() {
    let mut broker = TestBroker::start();
    let mut socket = broker.raw();
    let mut lines = BufReader::new(socket.try_clone().unwrap()).lines();
    let conversation = conversation();
    assert!(conversation.len() > 20, "this is not all of it: {} turns", conversation.len());
    for Turn { sent, shown } in conversation {
        for line in sent {
            writeln!(socket, "{line}").unwrap();
        }
        let said = lines.by_ref().take(shown.len()).map(|line| parse(&line.unwrap())).collect::<Vec<_>>();
        // An answer may stand before or behind the notifications that the page shows it with.
        for is_wanted in [is_notification, is_answer] {
            let shown = shown.iter().filter(|line| is_wanted(line)).collect::<Vec<_>>();
            let said = said.iter().filter(|line| is_wanted(line)).collect::<Vec<_>>();
            assert_eq!(shown.len(), said.len(), "the page shows\n{shown:#?}\nand the broker says\n{said:#?}");
            for (shown, said) in shown.into_iter().zip(said) {
                assert!(agree(shown, said), "the page shows\n{shown:#}\nand the broker says\n{said:#}");
            }
        }
    }
    broker.ended_in_order();
}

fn is_notification(line: &Value) -> bool {
    line.get("method").is_some()
}

fn is_answer(line: &Value) -> bool {
    !is_notification(line)
}

/// Whether what the page shows is what was said, member by member.
fn agree(shown: &Value, said: &Value) -> bool {
    match (shown, said) {
        (Value::String(shown), _) if shown == ANYTHING => true,
        (Value::Object(shown), Value::Object(said)) => {
            shown.len() == said.len()
                && shown.iter().all(|(name, value)| said.get(name).is_some_and(|other| agree(value, other)))
        }
        (Value::Array(shown), Value::Array(said)) => {
            shown.len() == said.len() && shown.iter().zip(said).all(|(shown, said)| agree(shown, said))
        }
        (shown, said) => shown == said,
    }
}

fn conversation() -> Vec<Turn> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocol/README.md");
    let text = fs::read_to_string(page).unwrap();
    let mut turns = vec![Turn::default()];
    for line in text.lines() {
        let last = turns.last_mut().unwrap();
        match (line.strip_prefix("→ "), line.strip_prefix("← ")) {
            (Some(sent), _) if last.shown.is_empty() => last.sent.push(sent.to_owned()),
            (Some(sent), _) => turns.push(Turn { sent: vec![sent.to_owned()], shown: Vec::new() }),
            (None, Some(shown)) => last.shown.push(parse(shown)),
            (None, None) => {}
        }
    }
    turns
}

fn parse(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))
}
