//! A client that expects its broker to be gone at any moment, and repeats what was not answered.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;

use fastrand::Rng;
use serde_json::{Value, json};
use uuid::Uuid;

use super::checks::Books;
use crate::harness::{PATIENCE, Refused, result_of};

/// So many children of its own a client lets live.
const OWN_MAX: usize = 6;

/// Each says first that it was started, under the request that it was asked for with.
const HELLO: &str = "echo \"$PROCBROKER_CHILD_ID $$\" >>\"$1/starts.$REQUEST\"; ";

const KINDS: [&str; 4] = [
    "exec sleep infinity",
    "exit 3",
    "setsid --fork sleep infinity; exec sleep infinity",
    "trap '' TERM; exec sleep infinity",
];

const CLEANUP: &str = "echo $PROCBROKER_EXIT_REASON >>\"$1/cleanups.$PROCBROKER_CHILD_ID\"";

/// Names that all clients fight for.
const NAMES: [&str; 4] = ["a", "b", "c", "d"];

#[derive(Debug)]
pub(super) struct Client {
    number: u32,
    dice: Rng,
    folder: PathBuf,
    /// A create that was sent and not answered.
    open: Option<Value>,
    /// Children that it has created and not destroyed.
    own: Vec<String>,
}

/// A connection to a broker that may be gone.
struct Wire {
    reader: BufReader<UnixStream>,
    next_id: u64,
}

impl Wire {
    /// None when nobody is there.
    fn connect(socket: &Path) -> Option<Self> {
        let stream = UnixStream::connect(socket).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        Some(Self { reader: BufReader::new(stream), next_id: 1 })
    }

    /// None when the broker is gone.
    fn call(&mut self, method: &str, params: &Value) -> Option<Result<Value, Refused>> {
        let request = json!({"jsonrpc": "2.0", "id": self.next_id, "method": method, "params": params});
        self.reader.get_mut().write_all(format!("{request}\n").as_bytes()).ok()?;
        let mut line = String::new();
        if let Err(error) = self.reader.read_line(&mut line) {
            assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "no answer to {request}");
            return None;
        }
        // The broker may be killed in the midst of a line.
        let message: Value = line.strip_suffix('\n').map(|line| serde_json::from_str(line).expect("JSON"))?;
        assert_eq!(message["id"], self.next_id);
        self.next_id += 1;
        Some(result_of(&message))
    }
}

impl Client {
    pub(super) fn new(number: u32, dice: Rng, folder: &Path) -> Self {
        Self { number, dice, folder: folder.to_owned(), open: None, own: Vec::new() }
    }

    /// Asks for one thing after the other until the broker is gone.
    pub(super) fn work(&mut self, socket: &Path, books: &Books, progress: &Sender<()>) {
        let Some(mut wire) = Wire::connect(socket) else { return };
        while self.ask(&mut wire, books).is_some() {
            // The round may be over.
            let _ = progress.send(());
        }
    }

    fn ask(&mut self, wire: &mut Wire, books: &Books) -> Option<()> {
        if self.open.is_none() && (self.own.len() >= OWN_MAX || self.dice.u8(..3) == 0) {
            return self.destroy(wire, books);
        }
        let params = self.open.take().unwrap_or_else(|| self.new_child());
        self.open = Some(params.clone());
        let answer = wire.call("create", &params)?;
        self.open = None;
        match answer {
            Ok(answer) => {
                let child = &answer["child"];
                let id = child["id"].as_str().expect("an id").to_owned();
                books.created(&id, params["request_id"].as_str().expect("a request"));
                // Nobody else can replace it, and it does not end by itself.
                let is_endless = !params["command"].to_string().contains("exit 3");
                if child["state"] == "running" && params["name"].is_null() && is_endless {
                    books.lasting(&id);
                }
                // What has ended by itself is destroyed too, which changes nothing.
                self.own.push(id.clone());
                // A retry gets the first answer again.
                if self.dice.u8(..8) == 0 {
                    let again = wire.call("create", &params)?.expect("the first answer");
                    assert_eq!(again["child"]["id"].as_str(), Some(&*id), "{params}");
                }
            }
            // Another client has replaced it before it was started.
            Err(refused) if refused.data["exit"]["reason"] == "replaced" => {}
            Err(refused) => assert_eq!(refused.kind, "name_taken", "{refused:?}"),
        }
        Some(())
    }

    fn destroy(&mut self, wire: &mut Wire, books: &Books) -> Option<()> {
        if self.own.is_empty() {
            return wire.call("list", &json!({})).map(|listed| drop(listed.expect("a list")));
        }
        let index = self.dice.usize(..self.own.len());
        let id = self.own[index].clone();
        let no_wait = self.dice.u8(..4) == 0;
        books.doomed(&id);
        let answer = wire.call("destroy", &json!({"target": id, "no_wait": no_wait}))?;
        let answer = answer.unwrap_or_else(|refused| panic!("{id}: {refused:?}"));
        self.own.swap_remove(index);
        if !no_wait {
            books.ended(&answer["children"][0]);
        }
        Some(())
    }

    fn new_child(&mut self) -> Value {
        let request = Uuid::from_u128(self.dice.u128(..)).to_string();
        let kind = KINDS[self.dice.usize(..KINDS.len())];
        let mut params = json!({
            "command": ["sh", "-c", format!("{HELLO}{kind}"), "sh", self.folder],
            "env": {"REQUEST": request},
            "request_id": request,
            "stop": [{"signal": "TERM", "grace": 0.02}],
            "stop_order": self.number,
        });
        if self.dice.bool() {
            params["name"] = json!(NAMES[self.dice.usize(..NAMES.len())]);
            params["if_exists"] = json!(["fail", "reuse", "replace"][self.dice.usize(..3)]);
        }
        if self.dice.bool() {
            params["labels"] = json!({"cleaned": "yes"});
            params["cleanup"] = json!({"command": ["sh", "-c", CLEANUP, "sh", self.folder]});
        }
        params
    }
}
