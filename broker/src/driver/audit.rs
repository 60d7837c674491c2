//! Who has asked for what, and who was refused: a line of the log for each, under the target `audit`.
//!
//! What changes something is told when it is asked for, because what comes of it can take long; a create is told when it
//! is answered, because only then its child is known. Every other request is told at the level `debug`, under `request`.

mod refusals;

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::time::Instant;

use procbroker_core::{Call, ConnectionId, Peer};
use procbroker_protocol::{Error, Method, Outcome, Request, Response, Target};
use tracing::{debug, info};

use super::perform::Stray;
use crate::harmless::{is_steering, push_escape};
use crate::limits::LOG_TEXT_CHARS_MAX;
use refusals::Refusals;

/// The clients, and what they have asked for and not been answered.
#[derive(Debug, Default)]
pub(super) struct Audit {
    callers: BTreeMap<ConnectionId, Caller>,
    open: BTreeMap<Call, Asked>,
    refusals: Refusals,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Caller {
    uid: u32,
    gid: u32,
    pid: Option<u32>,
}

/// A request that is not answered yet.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Asked {
    method: Method,
    subject: Subject,
    signal: Option<String>,
}

/// What a request is about. Each kind has a field of its own in the line, so that none is taken for another.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Subject {
    /// A child by its name or id.
    Child(String),
    /// A child to be, without a name.
    Command(String),
    /// Children with these labels.
    Labels(String),
    All,
    Broker,
}

/// What one line of the log tells of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AuditEntry {
    caller: Caller,
    asked: Asked,
    what: What,
}

/// What a line tells.
#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    /// It was asked for.
    Asked,
    /// A create was answered with this child.
    Created { id: String, outcome: &'static str },
    /// It was not done.
    Refused { kind: &'static str, message: String },
    /// Who asked for it has gone before the answer.
    Left,
}

impl Audit {
    /// A client has connected.
    pub(super) fn connected(&mut self, connection: ConnectionId, peer: &Peer) {
        let Peer { uid, gid, pid, .. } = *peer;
        self.callers.insert(connection, Caller { uid, gid, pid });
    }

    /// A client is not let in.
    pub(super) fn refused(&mut self, connection: ConnectionId, error: &Error) {
        if let Some(Caller { uid, gid, pid }) = self.callers.remove(&connection)
            && self.is_told(uid)
        {
            let (kind, message) = (error.kind.as_str(), in_one_line(&error.message));
            info!(target: "audit", uid, gid, pid, kind, "audit: connection refused: {message}");
        }
    }

    /// A process has told something on the socket of a child that is not its own: counted as a refusal of the user whose
    /// processes can reach that.
    pub(super) fn stray(&mut self, Stray { child, user, sender }: Stray) {
        if self.is_told(user) {
            tracing::warn!(%child, pid = %sender, "a process told something that is not the child's");
        }
    }

    /// A client has gone.
    pub(super) fn disconnected(&mut self, connection: ConnectionId) {
        for entry in self.left(connection) {
            entry.write();
        }
    }

    fn left(&mut self, connection: ConnectionId) -> Vec<AuditEntry> {
        let first = Call { connection, number: 0 };
        let last = Call { connection, number: u64::MAX };
        let calls: Vec<Call> = self.open.range(first..=last).map(|(call, _)| *call).collect();
        let open: Vec<Asked> = calls.iter().filter_map(|call| self.open.remove(call)).collect();
        let Some(caller) = self.callers.remove(&connection) else { return Vec::new() };
        let creates = open.into_iter().filter(|asked| asked.method == Method::Create);
        creates.map(|asked| AuditEntry { caller, asked, what: What::Left }).collect()
    }

    /// A client asks for something: returns what is to be told of it.
    pub(super) fn called(&mut self, call: Call, request: &Request) -> Option<AuditEntry> {
        debug!(target: "request", connection = call.connection.0, number = call.number, method = request.method().as_str(), "request");
        self.asked(call, request)
    }

    fn asked(&mut self, call: Call, request: &Request) -> Option<AuditEntry> {
        let (subject, signal) = (subject(request)?, signal(request));
        let asked = Asked { method: request.method(), subject, signal };
        self.open.insert(call, asked.clone());
        let caller = *self.callers.get(&call.connection)?;
        let is_told_later = [Method::Create, Method::Metrics].contains(&asked.method);
        (!is_told_later).then_some(AuditEntry { caller, asked, what: What::Asked })
    }

    /// A request is answered: returns what is to be told of it.
    pub(super) fn answered(&mut self, call: Call, result: &Result<Response, Error>) -> Option<AuditEntry> {
        match result {
            Ok(_) => {
                debug!(target: "request", connection = call.connection.0, number = call.number, "answered");
            }
            Err(error) => {
                debug!(target: "request", connection = call.connection.0, number = call.number, kind = error.kind.as_str(), "refused: {}", in_one_line(&error.message));
            }
        }
        let entry = self.outcome(call, result)?;
        (result.is_ok() || self.is_told(entry.caller.uid)).then_some(entry)
    }

    /// Whether one more refusal of this user is told. What was not told before is summed up.
    fn is_told(&mut self, uid: u32) -> bool {
        let told = self.refusals.count(uid, Instant::now());
        for (uid, count) in told.withheld {
            info!(target: "audit", uid, count, "audit: so many more of this user were refused");
        }
        told.itself
    }

    fn outcome(&mut self, call: Call, result: &Result<Response, Error>) -> Option<AuditEntry> {
        let asked = self.open.remove(&call)?;
        let caller = *self.callers.get(&call.connection)?;
        let what = match result {
            Ok(Response::Created(created)) => {
                let outcome = match created.outcome {
                    Outcome::Created => "created",
                    Outcome::Existing { .. } => "existing",
                    Outcome::Replaced => "replaced",
                };
                What::Created { id: created.child.id.to_string(), outcome }
            }
            // What it asked for was told before.
            Ok(_) => return None,
            Err(error) => What::Refused { kind: error.kind.as_str(), message: in_one_line(&error.message) },
        };
        Some(AuditEntry { caller, asked, what })
    }
}

impl AuditEntry {
    pub(super) fn write(&self) {
        let Self { caller: Caller { uid, gid, pid }, asked: Asked { method, subject, signal }, what } = self;
        let (uid, gid, pid, method, signal) = (*uid, *gid, *pid, method.as_str(), signal.as_deref());
        let Fields { child, command, labels, all } = subject.fields();
        match what {
            What::Asked => {
                info!(target: "audit", method, child, command, labels, all, signal, uid, gid, pid, "audit: asked");
            }
            What::Created { id, outcome } => {
                info!(target: "audit", method, child, command, uid, gid, pid, id, outcome, "audit: answered");
            }
            What::Refused { kind, message } => {
                info!(target: "audit", method, child, command, labels, all, signal, uid, gid, pid, kind, "audit: refused: {message}");
            }
            What::Left => {
                info!(target: "audit", method, child, command, uid, gid, pid, "audit: the client left before the answer");
            }
        }
    }
}

/// The fields of a line that say what a request is about.
#[derive(Default)]
struct Fields<'a> {
    child: Option<&'a str>,
    command: Option<&'a str>,
    labels: Option<&'a str>,
    all: Option<bool>,
}

impl Subject {
    fn fields(&self) -> Fields<'_> {
        let none = Fields::default();
        match self {
            Self::Child(child) => Fields { child: Some(child), ..none },
            Self::Command(command) => Fields { command: Some(command), ..none },
            Self::Labels(labels) => Fields { labels: Some(labels), ..none },
            Self::All => Fields { all: Some(true), ..none },
            Self::Broker => none,
        }
    }
}

/// What a request is about, where it changes something or is not for everybody.
fn subject(request: &Request) -> Option<Subject> {
    let subject = match request {
        Request::Create(params) => match &params.name {
            Some(name) => Subject::Child(name.to_string()),
            None => Subject::Command(in_one_line(&Words(&params.command))),
        },
        Request::Destroy(params) => of_target(&params.target),
        Request::Signal(params) => of_target(&params.target),
        Request::Restart(params) | Request::Renew(params) => of_target(&params.target),
        Request::Shutdown(_) | Request::Upgrade(_) | Request::Metrics(_) => Subject::Broker,
        Request::List(_)
        | Request::Get(_)
        | Request::Wait(_)
        | Request::Logs(_)
        | Request::Events(_)
        | Request::Status(_) => return None,
    };
    Some(subject)
}

fn of_target(target: &Target) -> Subject {
    match target {
        Target::Id(_) | Target::Name(_) => Subject::Child(in_one_line(target)),
        Target::Labels(labels) => {
            let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            Subject::Labels(in_one_line(&labels.join(",")))
        }
        Target::All => Subject::All,
    }
}

/// The signal that is asked for.
fn signal(request: &Request) -> Option<String> {
    match request {
        Request::Signal(params) => Some(params.signal.to_string()),
        Request::Create(_)
        | Request::Destroy(_)
        | Request::Restart(_)
        | Request::Renew(_)
        | Request::Shutdown(_)
        | Request::Upgrade(_)
        | Request::Metrics(_)
        | Request::List(_)
        | Request::Get(_)
        | Request::Wait(_)
        | Request::Logs(_)
        | Request::Events(_)
        | Request::Status(_) => None,
    }
}

/// A text of a client's as it may stand in a log: no line of its own begins in it.
fn in_one_line(text: &impl fmt::Display) -> String {
    let mut line = Line { text: String::with_capacity(LOG_TEXT_CHARS_MAX), room: LOG_TEXT_CHARS_MAX };
    // A line that is full takes no more.
    let _ = write!(line, "{text}");
    line.text
}

/// The words of a command, as people write it.
struct Words<'a>(&'a [String]);

impl fmt::Display for Words<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, word) in self.0.iter().enumerate() {
            if index > 0 {
                formatter.write_char(' ')?;
            }
            formatter.write_str(word)?;
        }
        Ok(())
    }
}

/// What is written of a text: so many characters at the most, and none that steers a terminal.
struct Line {
    text: String,
    room: usize,
}

impl fmt::Write for Line {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        for character in piece.chars() {
            self.room = self.room.checked_sub(1).ok_or(fmt::Error)?;
            if is_steering(character) {
                push_escape(&mut self.text, character);
            } else {
                self.text.push(character);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {

    use procbroker_protocol::request::{ListParams, ManyParams, Scope, SignalParams};
    use procbroker_protocol::{CreateParams, ErrorKind, Signal};

    use super::*;
    use crate::captured_log::captured;

    const CALL: Call = Call { connection: ConnectionId(7), number: 3 };
    const CALLER: Caller = Caller { uid: 33, gid: 34, pid: Some(35) };

    fn audit() -> Audit {
        let mut audit = Audit::default();
        audit.connected(CALL.connection, &Peer { uid: 33, gid: 34, groups: Vec::new(), pid: Some(35) });
        audit
    }

    fn create() -> Request {
        let command = vec!["printf".to_owned(), "a\nb".to_owned()];
        Request::Create(Box::new(CreateParams::new(command)))
    }

    fn entry(method: Method, subject: Subject, what: What) -> AuditEntry {
        AuditEntry { caller: CALLER, asked: Asked { method, subject, signal: None }, what }
    }

    #[test]
    fn what_changes_something_is_told_when_it_is_asked_for_and_once() {
        let mut audit = audit();
        let request = Request::Restart(ManyParams { target: Target::All });
        let asked = audit.asked(CALL, &request);
        assert_eq!(asked, Some(entry(Method::Restart, Subject::All, What::Asked)));
        assert_eq!(audit.outcome(CALL, &Ok(Response::Children(Vec::new()))), None);
        assert!(audit.open.is_empty());
    }

    #[test]
    fn a_child_that_is_called_all_is_not_taken_for_all_of_them() {
        let labels = [("pool".to_owned(), "render".to_owned()), ("tier".to_owned(), "a\nb".to_owned())];
        let targets = [
            (Target::Name("all".parse().unwrap()), Subject::Child("all".to_owned())),
            (Target::All, Subject::All),
            (Target::Labels(labels.into()), Subject::Labels("pool=render,tier=a\\nb".to_owned())),
        ];
        for (target, about) in targets {
            let signals =
                Request::Signal(SignalParams { target, signal: Signal::TERM, scope: Scope::default() });
            let asked = audit().asked(CALL, &signals).unwrap().asked;
            assert_eq!((asked.subject, asked.signal.as_deref()), (about, Some("SIGTERM")));
        }
    }

    #[test]
    fn what_is_refused_is_told_with_its_kind() {
        let mut audit = audit();
        audit.asked(CALL, &Request::Restart(ManyParams { target: Target::All }));
        let refusal = Error::new(ErrorKind::PermissionDenied, "not\nyou");
        let what = What::Refused { kind: "permission_denied", message: "not\\nyou".to_owned() };
        assert_eq!(audit.outcome(CALL, &Err(refusal)), Some(entry(Method::Restart, Subject::All, what)));
    }

    #[test]
    fn a_create_is_told_once_its_child_is_known_or_nobody_waits_for_it() {
        let mut audit = audit();
        assert_eq!(audit.asked(CALL, &create()), None);
        let left = audit.left(CALL.connection);
        assert_eq!(left, [entry(Method::Create, Subject::Command("printf a\\nb".to_owned()), What::Left)]);
        assert!(audit.open.is_empty() && audit.callers.is_empty());
    }

    #[test]
    fn what_a_client_says_is_one_line_and_no_longer_than_that() {
        assert_eq!(in_one_line(&"a\nb\u{7f}é\u{202e}\u{2028}"), "a\\nb\\x7fé\\u202e\\u2028");
        let long = Words(&["é".repeat(LOG_TEXT_CHARS_MAX - 1), "\n".repeat(1_000)]).to_string();
        assert_eq!(in_one_line(&long), format!("{} ", "é".repeat(LOG_TEXT_CHARS_MAX - 1)));
    }

    #[test]
    fn words_that_are_no_childs_are_told_as_seldom_as_other_refusals() {
        let sender = procbroker_core::Pid::new(7).unwrap();
        let stray =
            Stray { child: procbroker_protocol::ChildId::from_uuid(uuid::Uuid::nil()), user: 33, sender };
        let mut audit = audit();
        let log = captured(|| (0..1_000).for_each(|_| audit.stray(stray)));
        let lines = log.matches("told something that is not the child's").count();
        assert!((1..1_000).contains(&lines), "{lines} lines");
    }

    #[test]
    fn what_only_looks_is_not_told() {
        let mut audit = audit();
        assert_eq!(audit.asked(CALL, &Request::List(ListParams::default())), None);
        assert!(audit.open.is_empty());
        assert_eq!(audit.outcome(CALL, &Ok(Response::Children(vec![]))), None);
    }
}
