//! The page about the wire says what is so: its conversation is had with a real broker, line by line.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;

use serde_json::Value;

use crate::harness::TestBroker;

/// What stands on the page for a value that differs each time.
const ANYTHING: &str = "…";

/// One line of the conversation.
enum Line {
    Sent(String),
    Answered(String),
}

#[test]
fn the_conversation_on_the_page_about_the_wire_is_what_a_broker_says() {
    let mut broker = TestBroker::start();
    let mut socket = broker.raw();
    let mut answers = BufReader::new(socket.try_clone().unwrap()).lines();
    let conversation = conversation();
    assert!(conversation.len() > 40, "this is not all of it: {} lines", conversation.len());
    for line in conversation {
        match line {
            Line::Sent(text) => writeln!(socket, "{text}").unwrap(),
            Line::Answered(text) => {
                let shown: Value =
                    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
                let said =
                    answers.next().unwrap_or_else(|| panic!("nothing was said instead of {text}")).unwrap();
                let said: Value = serde_json::from_str(&said).unwrap();
                assert!(agree(&shown, &said), "the page shows\n{shown:#}\nand the broker says\n{said:#}");
            }
        }
    }
    broker.ended_in_order();
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

fn conversation() -> Vec<Line> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../protocol/README.md");
    let text = fs::read_to_string(page).unwrap();
    let line = |line: &str| match (line.strip_prefix("→ "), line.strip_prefix("← ")) {
        (Some(sent), _) => Some(Line::Sent(sent.to_owned())),
        (None, Some(answered)) => Some(Line::Answered(answered.to_owned())),
        (None, None) => None,
    };
    text.lines().filter_map(line).collect()
}
