//! A client that speaks JSON, a line for each message.

use std::collections::{HashMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

/// A connection. Requests can be pipelined: [`JsonClient::send`] and [`JsonClient::answer`].
pub(crate) struct JsonClient {
    reader: Box<dyn BufRead + Send>,
    writer: Option<Box<dyn Write + Send>>,
    /// What closes the sending side.
    socket: Option<UnixStream>,
    /// The program that is between this and the socket.
    between: Option<Child>,
    next_id: u64,
    /// Answers that came before they were asked for.
    early: HashMap<u64, Value>,
    /// Notifications that came while answers were waited for.
    notified: VecDeque<Value>,
}

/// An error that the broker answered.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Refused {
    pub(crate) code: i64,
    pub(crate) kind: String,
    pub(crate) message: String,
    pub(crate) data: Value,
}

impl JsonClient {
    /// Talks over this socket.
    pub(crate) fn over(socket: UnixStream) -> Self {
        let reader = Box::new(BufReader::new(socket.try_clone().unwrap()));
        let writer: Box<dyn Write + Send> = Box::new(socket.try_clone().unwrap());
        Self {
            reader,
            writer: Some(writer),
            socket: Some(socket),
            between: None,
            next_id: 1,
            early: HashMap::new(),
            notified: VecDeque::new(),
        }
    }

    /// Talks as another user, with these groups (the first is the primary one), by socat(1).
    pub(crate) fn as_user(socket: &Path, user: u32, groups: &[u32]) -> Self {
        Self::as_user_through(socket, user, groups, &[], &["socat", "-t", "0", "-"])
    }

    /// Talks as another user, by a process that setpriv(1) confines with these flags, and that these words begin: they are
    /// followed by the address of the socket, as socat(1) has it.
    pub(crate) fn as_user_through(
        socket: &Path,
        user: u32,
        groups: &[u32],
        confined: &[&str],
        words: &[&str],
    ) -> Self {
        let (primary, others) = groups.split_first().expect("a primary group");
        let others: Vec<String> = others.iter().map(u32::to_string).collect();
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &user.to_string(), "--regid", &primary.to_string()]);
        if others.is_empty() {
            command.arg("--clear-groups");
        } else {
            command.args(["--groups", &others.join(",")]);
        }
        // When the broker closes, so does it.
        command.args(confined).args(words).arg(format!("UNIX-CONNECT:{}", socket.display()));
        let mut between = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("setpriv and socat");
        let reader = Box::new(BufReader::new(between.stdout.take().unwrap()));
        let writer: Box<dyn Write + Send> = Box::new(between.stdin.take().unwrap());
        let between = Some(between);
        Self {
            reader,
            writer: Some(writer),
            socket: None,
            between,
            next_id: 1,
            early: HashMap::new(),
            notified: VecDeque::new(),
        }
    }

    /// Sends a request, and does not wait for its answer.
    pub(crate) fn send(&mut self, method: &str, params: Value) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let mut request = json!({"jsonrpc": "2.0", "id": id, "method": method});
        request["params"] = params;
        self.write(format!("{request}\n").as_bytes());
        id
    }

    /// Sends these bytes as they are.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        let writer = self.writer.as_mut().expect("a side that is not closed");
        writer.write_all(bytes).and_then(|()| writer.flush()).expect("a broker that reads");
    }

    /// The next message, whatever it answers; none when the broker has closed its side.
    pub(crate) fn message(&mut self) -> Option<Value> {
        let mut line = String::new();
        let length = self.reader.read_line(&mut line).expect("an answer");
        if length == 0 {
            return None;
        }
        assert!(line.ends_with('\n'), "an answer without its line's end: {line}");
        let message: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!(message["jsonrpc"], "2.0", "{message}");
        Some(message)
    }

    /// Reads on until the answer to this request comes.
    pub(crate) fn answer(&mut self, id: u64) -> Result<Value, Refused> {
        if let Some(message) = self.early.remove(&id) {
            return result_of(&message);
        }
        loop {
            let message =
                self.message().unwrap_or_else(|| panic!("closed without an answer to request {id}"));
            match message["id"].as_u64() {
                Some(other) if other == id => return result_of(&message),
                Some(other) => {
                    assert_eq!(self.early.insert(other, message), None, "a second answer to request {other}");
                }
                None => self.notified.push_back(parts_of(message)),
            }
        }
    }

    /// The next notification: its `params`, with its `method` among them.
    pub(crate) fn notification(&mut self) -> Value {
        self.notified.pop_front().unwrap_or_else(|| {
            let message = self.message().expect("a notification");
            assert!(message["id"].is_null(), "an answer that nobody waits for: {message}");
            parts_of(message)
        })
    }

    /// Which of these were answered before what was asked for last.
    pub(crate) fn has_early(&self, ids: &[u64]) -> Vec<bool> {
        ids.iter().map(|id| self.early.contains_key(id)).collect()
    }

    /// Asks, and waits for the answer.
    pub(crate) fn call(&mut self, method: &str, params: Value) -> Result<Value, Refused> {
        let id = self.send(method, params);
        self.answer(id)
    }

    /// Asks for something that is to be done.
    pub(crate) fn ok(&mut self, method: &str, params: Value) -> Value {
        self.call(method, params).unwrap_or_else(|refused| panic!("{method}: {refused:?}"))
    }

    /// The child that `get` shows, without what it uses, which is never the same.
    pub(crate) fn got(&mut self, target: &Value) -> Value {
        let mut child = self.ok("get", json!({"target": target}))["child"].take();
        child.as_object_mut().expect("an object").remove("usage");
        child
    }

    /// Asks for something that is to be refused.
    pub(crate) fn refused(&mut self, method: &str, params: Value) -> Refused {
        self.call(method, params).expect_err("a refusal")
    }

    /// Creates a child and answers with it.
    pub(crate) fn create(&mut self, params: Value) -> Value {
        self.ok("create", params)["child"].take()
    }

    /// Says that nothing more will be asked.
    pub(crate) fn half_close(&mut self) {
        self.writer = None;
        if let Some(socket) = &self.socket {
            socket.shutdown(Shutdown::Write).unwrap();
        }
    }
}

/// What a notification says.
fn parts_of(mut message: Value) -> Value {
    let method = message["method"].take();
    assert!(method.is_string(), "neither an answer nor a notification: {message}");
    let mut params = message["params"].take();
    params["method"] = method;
    params
}

/// What an answer says.
pub(crate) fn result_of(message: &Value) -> Result<Value, Refused> {
    let error = &message["error"];
    if error.is_null() {
        assert!(message.get("result").is_some(), "neither a result nor an error: {message}");
        return Ok(message["result"].clone());
    }
    assert!(message.get("result").is_none(), "both a result and an error: {message}");
    Err(Refused {
        code: error["code"].as_i64().expect("a code"),
        kind: error["data"]["kind"].as_str().expect("a kind").to_owned(),
        message: error["message"].as_str().expect("a message").to_owned(),
        data: error["data"].clone(),
    })
}

impl Drop for JsonClient {
    fn drop(&mut self) {
        self.writer = None;
        if let Some(between) = &mut self.between {
            let _ = between.kill();
            let _ = between.wait();
        }
    }
}
