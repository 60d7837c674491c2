//! What is shown of what a broker sends.

use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use procbroker_protocol::{ChildId, Error, ErrorKind, Target};

use clap::Parser;
use procbroker_protocol::json_lines::objects::ParamsObject;
use uuid::Uuid;

use super::super::{CommandLine, Verb};
use super::*;
use crate::cli::fake_broker::serve;

/// A broker that serves one connection, on a thread of its own.
struct Scene {
    folder: tempfile::TempDir,
    broker: JoinHandle<(Request, UnixStream)>,
}

impl Scene {
    fn new(answer: Result<Response, Error>, then: Vec<Notification>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("sock")).unwrap();
        let broker = thread::spawn(move || serve(&listener, &answer, &then));
        Self { folder, broker }
    }

    /// The same, of a broker that ends then.
    fn leaving(answer: Response, then: Vec<Notification>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("sock")).unwrap();
        let broker = thread::spawn(move || {
            let (request, stream) = serve(&listener, &Ok(answer), &then);
            stream.shutdown(Shutdown::Both).unwrap();
            (request, stream)
        });
        Self { folder, broker }
    }

    /// Shows it to this output; gives back what was asked too.
    fn show(
        self,
        follow: bool,
        style: Style,
        output: &mut dyn Write,
        gone: impl Future<Output = ()>,
    ) -> (Request, Result<(), Failure>) {
        let mut shown = Shown { output, style };
        // One that has gone does not come back.
        let builder = Broker::builder().connect_timeout(Duration::from_millis(50));
        let broker = builder.socket(self.folder.path().join("sock")).lazy();
        let target = Target::from_text("a").unwrap();
        let params = LogsParams {
            target,
            stream: LogStream::Stdout,
            tail: Some(2),
            follow,
            since: None,
            timestamps: false,
            position: None,
        };
        let result = call::runtime().unwrap().block_on(async {
            if follow {
                let follow = broker.follow(params).await?;
                follow_to_the_end(follow, LogStream::Stdout, &mut shown, gone).await
            } else {
                run(&broker, params, &mut shown).await
            }
        });
        drop(broker);
        (self.broker.join().unwrap().0, result)
    }
}

fn logs(text: &str, subscription: Option<u64>) -> Response {
    Response::Logs(Logs {
        text: text.to_owned(),
        truncated: true,
        subscription,
        dropped: 0,
        position: 2,
        id: ChildId::from_uuid(Uuid::nil()),
    })
}

fn piece(text: &str, ended: bool) -> Notification {
    Notification::Log {
        subscription: 7,
        stream: LogStream::Stdout,
        text: text.to_owned(),
        ended,
        position: 3,
    }
}

/// An output whose reader has gone after so many writes.
struct Closing {
    written: Vec<u8>,
    writes_left: usize,
}

impl Write for Closing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writes_left = self.writes_left.checked_sub(1).ok_or(io::ErrorKind::BrokenPipe)?;
        self.written.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn output_is_shown_as_it_is() {
    let scene = Scene::new(Ok(logs("a\x1b[31m\nb", None)), Vec::new());
    let mut output = Vec::new();
    let (request, result) = scene.show(false, Style::Plain, &mut output, std::future::pending());
    result.unwrap();
    assert_eq!(output, b"a\x1b[31m\nb");
    let target = Target::from_text("a").unwrap();
    let params = LogsParams {
        target,
        stream: LogStream::Stdout,
        tail: Some(2),
        follow: false,
        since: None,
        timestamps: false,
        position: None,
    };
    assert_eq!(request, Request::Logs(params));
}

#[test]
fn what_is_followed_is_shown_up_to_the_end() {
    let lagged = Notification::Lagged { subscription: 7, missed: 1 };
    let scene = Scene::new(Ok(logs("a\n", Some(7))), vec![piece("b", false), lagged, piece("c\n", true)]);
    let mut output = Vec::new();
    scene.show(true, Style::Plain, &mut output, std::future::pending()).1.unwrap();
    assert_eq!(String::from_utf8(output).unwrap(), "a\nbc\n");
}

#[test]
fn what_was_shown_before_the_broker_went_away_stays_and_the_rest_is_said_to_be_missing() {
    let scene = Scene::leaving(logs("a\n", Some(7)), vec![piece("b", false)]);
    let mut output = Vec::new();
    let failure = scene.show(true, Style::Plain, &mut output, std::future::pending()).1.unwrap_err();
    assert_eq!(output, b"a\nb");
    assert_eq!(failure.status(), CommandStatus::NoBroker);
    assert!(failure.report(false).contains("sock"), "{failure}");
}

#[test]
fn json_is_one_object_a_line() {
    let scene = Scene::new(Ok(logs("a\n", Some(7))), vec![piece("b\n", false), piece("", true)]);
    let mut output = Vec::new();
    scene.show(true, Style::Json, &mut output, std::future::pending()).1.unwrap();
    let expected = [
        r#"{"text":"a\n","truncated":true,"dropped":0,"position":2,"id":"00000000-0000-0000-0000-000000000000","subscription":7}"#,
        r#"{"subscription":7,"stream":"stdout","text":"b\n","position":3}"#,
        r#"{"subscription":7,"stream":"stdout","text":"","position":3,"ended":true}"#,
    ];
    assert_eq!(String::from_utf8(output).unwrap().lines().collect::<Vec<_>>(), expected);
}

#[test]
fn a_reader_that_has_gone_ends_it_quietly() {
    for writes_left in 0..2 {
        let scene = Scene::new(Ok(logs("a\n", Some(7))), vec![piece("b\n", false), piece("c\n", false)]);
        let mut output = Closing { written: Vec::new(), writes_left };
        scene.show(true, Style::Plain, &mut output, std::future::pending()).1.unwrap();
        assert_eq!(output.written, &b"a\nb\n"[..2 * writes_left]);
    }
    let scene = Scene::new(Ok(logs("a\n", Some(7))), Vec::new());
    let mut output = Vec::new();
    scene.show(true, Style::Plain, &mut output, std::future::ready(())).1.unwrap();
    assert_eq!(output, b"a\n");
}

#[test]
fn a_refusal_has_its_exit_status() {
    for follow in [false, true] {
        let scene = Scene::new(Err(Error::new(ErrorKind::NotFound, "no such child")), Vec::new());
        let failure =
            scene.show(follow, Style::Plain, &mut Vec::new(), std::future::pending()).1.unwrap_err();
        assert_eq!(failure.status(), CommandStatus::NotFound);
        assert_eq!(failure.report(false), "procbroker: no such child\n");
    }
}

#[test]
fn an_output_that_cannot_be_written_is_a_failure() {
    let scene = Scene::new(Ok(logs("a\n", None)), Vec::new());
    let mut full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let failure = scene.show(false, Style::Plain, &mut full, std::future::pending()).1.unwrap_err();
    assert_eq!(failure.status(), CommandStatus::Failed);
    assert!(failure.report(false).contains("standard output"));
}

#[test]
fn logs_asks_for_what_its_flags_say() {
    let parsed = |arguments: &[&str]| match CommandLine::try_parse_from([&["procbroker"], arguments].concat())
        .unwrap()
        .verb
    {
        Verb::Logs(arguments) => (arguments.print.json, Request::Logs(arguments.params())),
        other => panic!("{other:?}"),
    };
    let params = |arguments: &[&str]| serde_json::to_string(&ParamsObject(&parsed(arguments).1)).unwrap();
    assert_eq!(
        params(&["logs", "a"]),
        r#"{"target":"a","stream":"stdout","tail":null,"follow":false,"since":null,"timestamps":false,"position":null}"#
    );
    let arguments = ["logs", "--json", "--tail", "20", "--follow", "--stream=stderr", "a"];
    assert_eq!(
        params(&arguments),
        r#"{"target":"a","stream":"stderr","tail":20,"follow":true,"since":null,"timestamps":false,"position":null}"#
    );
    assert!(parsed(&arguments).0);
    assert_eq!(
        params(&["logs", "-t", "-f", "-n", "3", "--since", "5m", "a"]),
        r#"{"target":"a","stream":"stdout","tail":3,"follow":true,"since":300,"timestamps":true,"position":null}"#
    );
    for (since, expected) in [("90", "90"), ("2026-11-23T14:52:17Z", "\"2026-11-23T14:52:17.000000Z\"")] {
        let params = params(&["logs", "--since", since, "a"]);
        assert!(params.contains(&format!("\"since\":{expected},")), "{params}");
    }
    assert!(CommandLine::try_parse_from(["procbroker", "logs", "a", "--since", "yesterday"]).is_err());
}

#[test]
fn what_is_missing_of_the_text_is_said() {
    let missing = |dropped, truncated| {
        missing(&Logs {
            text: String::new(),
            truncated,
            subscription: None,
            dropped,
            position: 0,
            id: ChildId::from_uuid(Uuid::nil()),
        })
    };
    assert_eq!(missing(0, false), None);
    assert!(missing(0, true).unwrap().starts_with("the beginning is missing"));
    assert!(missing(1, true).unwrap().starts_with("1 byte is missing"));
    assert!(missing(4096, true).unwrap().starts_with("4096 bytes are missing"));
}
