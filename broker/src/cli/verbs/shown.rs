//! Tables, lines and sheets, with their golden text.

mod columns;
mod sheets;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use procbroker_protocol::create::Lifetime;
use procbroker_protocol::json_lines::objects::ResultObject;
use procbroker_protocol::response::{Created, Outcome, ShutdownReport};
use procbroker_protocol::status::{ChildCounts, Facilities, FailedUpgrade, Limits, ProtocolRange};
use procbroker_protocol::{
    Child, ChildId, ChildState, Cleaned, Containment, Exit, ExitReason, ExitStatus, Field, Fields, Owner,
    PartialChildren, Response, Signal, Status, StepTaken, Timestamp, Usage,
};
use unicode_width::UnicodeWidthStr as _;
use uuid::Uuid;

use super::{CommandLine, Verb};
use crate::cli::ask;
use crate::cli::command_status::CommandStatus;
use crate::cli::failure::Failure;
use crate::cli::print::{CommandOutput, Screen, Style};

const LIST: &[&str] = &["list"];
const LIST_ALL: &[&str] = &["list", "--all"];
const GET: &[&str] = &["get", "x"];
const CREATE: &[&str] = &["create", "--", "true"];
const WAIT: &[&str] = &["wait", "x"];
const WAIT_READY: &[&str] = &["wait", "x", "--until", "ready"];
const STATUS: &[&str] = &["status"];
const SHUTDOWN: &[&str] = &["shutdown"];

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_micros((1_795_445_000 + seconds) * 1_000_000)
}

fn now() -> Timestamp {
    at(10_000)
}

fn terminal(width: u16) -> Style {
    Style::Terminal(Screen { width, colours: false, now: now() })
}

fn running(number: u128, name: Option<&str>, command: &[&str]) -> Child {
    Child {
        id: ChildId::from_uuid(Uuid::from_u128(0x0193_0000_0000_7000_8000_0000_0000_0000 + number)),
        name: name.map(|name| name.parse().unwrap()),
        labels: BTreeMap::new(),
        command: command.iter().map(|&word| word.to_owned()).collect(),
        pid: Some(4_000 + u32::try_from(number).unwrap()),
        owner: Owner { uid: 33, gid: 34 },
        state: ChildState::Running,
        created_at: at(0),
        started_at: Some(at(9_275)),
        restarts: 0,
        lifetime: Lifetime::Broker,
        stop_order: 0,
        exit: None,
        cleanup: None,
        containment: Containment::Subreaper,
        status_text: None,
        usage: None,
        shortened: Fields::default(),
    }
}

fn ended(child: Child, status: ExitStatus, reason: ExitReason, forced: bool) -> Child {
    let steps = vec![StepTaken { signal: Signal::TERM, at: at(9_950) }];
    let exit = Exit { forced, steps, ..Exit::new(status, reason, at(9_960)) };
    Child { pid: None, state: ChildState::Ended, exit: Some(exit), ..child }
}

fn three() -> Response {
    let render =
        running(1, Some("render-42"), &["python3", "render.py", "--scene", "a long one.blend", "42"]);
    let starting = Child { state: ChildState::Starting, restarts: 2, ..running(2, None, &["sleep", "60"]) };
    let killed = ended(
        running(3, Some("job"), &["./job"]),
        ExitStatus::Signal(Signal::KILL),
        ExitReason::Destroyed,
        true,
    );
    Response::Children([render, starting, killed].map(Arc::new).to_vec())
}

/// What the verb of this command line shows of an answer.
fn report(arguments: &[&str], answer: &Response, style: Style) -> Result<CommandOutput, Failure> {
    match CommandLine::try_parse_from([&["procbroker"], arguments].concat()).unwrap().verb {
        Verb::Ask(question) => ask::show(question.ask(), answer, style),
        other => panic!("{other:?}"),
    }
}

fn shown(arguments: &[&str], answer: &Response, style: Style) -> String {
    let report = report(arguments, answer, style).unwrap();
    assert_eq!((report.remarks.as_str(), report.status), ("", CommandStatus::Done));
    report.result
}

#[test]
fn a_list_is_a_table_as_wide_as_the_terminal() {
    let expected = concat!(
        "NAME                                  STATE     PID   UPTIME  RESTARTS  COMMAND\n",
        "render-42                             running   4001  12m 5s  -         python3 render.py --scene '…\n",
        "01930000-0000-7000-8000-000000000002  starting  4002  12m 5s  2         sleep 60\n",
        "job                                   ended     -     -       -         ./job\n",
    );
    assert_eq!(shown(LIST, &three(), terminal(101)), expected.replace("'…", "'a…"));
    assert_eq!(shown(LIST, &three(), terminal(100)), expected);
}

#[test]
fn a_list_of_all_shows_how_children_ended() {
    let expected = concat!(
        "NAME                                  STATE     PID   SINCE   RESTARTS  EXIT                         COMMAND\n",
        "render-42                             running   4001  12m 5s  -         -                            python3 render.py --scene 'a long one.blend' 42\n",
        "01930000-0000-7000-8000-000000000002  starting  4002  12m 5s  2         -                            sleep 60\n",
        "job                                   ended     -     40s     -         SIGKILL (destroyed, forced)  ./job\n",
    );
    assert_eq!(shown(LIST_ALL, &three(), terminal(165)), expected);
}

#[test]
fn a_column_in_which_nothing_stands_is_left_out() {
    let job = ended(running(3, Some("job"), &["./job"]), ExitStatus::Code(0), ExitReason::Exited, false);
    let answer = Response::Children(vec![Arc::new(job)]);
    let expected =
        concat!("NAME  STATE  SINCE  EXIT        COMMAND\n", "job   ended  40s    0 (exited)  ./job\n");
    assert_eq!(shown(LIST_ALL, &answer, terminal(80)), expected);
    let answer = Response::Children(vec![Arc::new(running(1, Some("job"), &["./job"]))]);
    let expected = concat!("NAME  STATE    PID   UPTIME  COMMAND\n", "job   running  4001  12m 5s  ./job\n");
    assert_eq!(shown(LIST, &answer, terminal(80)), expected);
}

#[test]
fn a_cleanup_that_failed_and_a_child_that_is_given_up_are_seen_in_a_list() {
    let failed = Cleaned { ok: false, exit: Some(ExitStatus::Code(1)), attempts: 1 };
    let end = |number, name, code| {
        ended(running(number, Some(name), &["./job"]), ExitStatus::Code(code), ExitReason::Exited, false)
    };
    let uncleaned = Child { cleanup: Some(failed), ..end(1, "job", 0) };
    let mut given_up = end(2, "web", 3);
    given_up.exit.as_mut().unwrap().gave_up = true;
    let sentence = "job: ended, exit code 0 (exited), cleanup failed\n";
    assert_eq!(shown(WAIT, &Response::Child(Arc::new(uncleaned.clone())), terminal(80)), sentence);
    let answer = Response::Children([uncleaned, given_up].map(Arc::new).to_vec());
    let expected = concat!(
        "NAME  STATE  SINCE  EXIT                        COMMAND\n",
        "job   ended  40s    0 (exited), cleanup failed  ./job\n",
        "web   ended  40s    3 (gave up)                 ./job\n",
    );
    assert_eq!(shown(LIST_ALL, &answer, terminal(80)), expected);
}

#[test]
fn where_a_table_is_too_wide_each_child_has_lines_of_its_own() {
    let expected = concat!(
        "render-42\n",
        "  running  pid 4001  12m 5s\n",
        "  python3 render.py --scene 'a long one…\n",
        "01930000-0000-7000-8000-000000000002\n",
        "  starting  pid 4002  2 restarts  12m 5s\n",
        "  sleep 60\n",
        "job\n",
        "  ended  SIGKILL (destroyed, forced)\n",
        "  40s ago\n",
        "  ./job\n",
    );
    assert_eq!(shown(LIST_ALL, &three(), terminal(40)), expected);
}

#[test]
fn no_line_is_wider_than_the_terminal_whatever_the_names_and_commands() {
    let long = "n".repeat(43);
    let children = [
        running(1, Some(&long), &["echo", "東京タワー東京タワー東京タワー東京タワー東京タワー東京タワー"]),
        running(2, None, &["sleep", "e\u{301}e\u{301}e\u{301}", &"x".repeat(200)]),
        ended(running(3, None, &["a"]), ExitStatus::Signal(Signal::KILL), ExitReason::Destroyed, true),
    ];
    let children = Response::Children(children.map(Arc::new).to_vec());
    for arguments in [LIST, LIST_ALL] {
        for width in [20, 40, 60, 79, 80, 81, 90, 100, 120, 200] {
            let text = shown(arguments, &children, terminal(width));
            assert!(text.lines().all(|line| line.width() <= usize::from(width)), "{width}:\n{text}");
            assert!(width < 43 || text.contains(&long), "{width}:\n{text}");
        }
    }
    let text = shown(LIST, &children, terminal(100));
    assert_eq!(text.lines().count(), 4, "{text}");
}

#[test]
fn a_name_that_leaves_no_room_stands_whole_above_its_row() {
    let children = [
        running(1, Some("web"), &["./web", "--port", "80"]),
        running(2, None, &["python3", "render.py", "--scene", "a long one.blend"]),
        running(3, Some(&"n".repeat(50)), &["sleep", "60"]),
        running(4, Some("render-42"), &["sleep", "60"]),
    ];
    let children = Response::Children(children.map(Arc::new).to_vec());
    let expected = concat!(
        "NAME       STATE    PID   UPTIME  COMMAND\n",
        "web        running  4001  12m 5s  ./web --port 80\n",
        "01930000-0000-7000-8000-000000000002\n",
        "           running  4002  12m 5s  python3 render.py --scene…\n",
        "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn\n",
        "           running  4003  12m 5s  sleep 60\n",
        "render-42  running  4004  12m 5s  sleep 60\n",
    );
    assert_eq!(shown(LIST, &children, terminal(60)), expected);
}

#[test]
fn a_name_of_a_usual_length_stands_in_its_row_and_the_reason_of_an_end_makes_room_for_it() {
    let job = |number| running(number, Some(&format!("render-{number:03}")), &["python3", "render.py"]);
    let mut failed = ended(job(1), ExitStatus::Code(3), ExitReason::Exited, false);
    failed.restarts = 12;
    let children = [
        failed,
        ended(job(2), ExitStatus::Signal(Signal::KILL), ExitReason::Destroyed, true),
        running(3, Some("render-003"), &["python3", "render.py"]),
    ];
    let children = Response::Children(children.map(Arc::new).to_vec());
    let at_80 = concat!(
        "NAME        STATE    PID   SINCE   RESTARTS  EXIT              COMMAND\n",
        "render-001  ended    -     40s     12        3                 python3 render.py\n",
        "render-002  ended    -     40s     -         SIGKILL (forced)  python3 render.py\n",
        "render-003  running  4003  12m 5s  -         -                 python3 render.py\n",
    );
    assert_eq!(shown(LIST_ALL, &children, terminal(80)), at_80);
    let at_100 = shown(LIST_ALL, &children, terminal(100));
    assert!(at_100.contains("3 (exited)") && at_100.contains("SIGKILL (destroyed, forced)"), "{at_100}");
}

#[test]
fn a_very_narrow_terminal_still_shows_every_child() {
    let text = shown(LIST, &three(), terminal(1));
    assert_eq!(text.lines().filter(|line| !line.starts_with(' ')).count(), 3, "{text}");
}

#[test]
fn a_pipe_gets_fields_between_tabs() {
    let expected = concat!(
        "01930000-0000-7000-8000-000000000001\trender-42\trunning\t4001\t2026-11-23T17:17:55.000000Z\t0\t-\tpython3 render.py --scene 'a long one.blend' 42\t-\n",
        "01930000-0000-7000-8000-000000000002\t-\tstarting\t4002\t2026-11-23T17:17:55.000000Z\t2\t-\tsleep 60\t-\n",
        "01930000-0000-7000-8000-000000000003\tjob\tended\t-\t2026-11-23T17:17:55.000000Z\t0\tSIGKILL\t./job\tdestroyed\n",
    );
    assert_eq!(shown(LIST, &three(), Style::Plain), expected);
    assert_eq!(shown(LIST_ALL, &three(), Style::Plain), expected);
}

#[test]
fn json_is_the_wire_object_in_one_line() {
    let response = three();
    let text = shown(LIST, &response, Style::Json);
    assert_eq!(text, serde_json::to_string(&ResultObject(&response)).unwrap() + "\n");
    assert!(text.starts_with("{\"children\":[{\"id\":\"01930000-"), "{text}");
}

#[test]
fn a_childs_command_line_does_not_reach_the_terminal_raw() {
    let mut evil = running(1, None, &["sh", "-c", "\x1b]0;owned\x07\r\n\tx\u{202e}"]);
    evil.labels.insert("a\x1b[2J".to_owned(), "b\nc".to_owned());
    let children = Response::Children(vec![Arc::new(evil.clone())]);
    let child = Response::Child(Arc::new(evil));
    for style in [terminal(200), Style::Plain] {
        for text in [shown(LIST, &children, style), shown(GET, &child, style)] {
            let harmless = |c: char| !c.is_control() && c != '\u{202e}' || matches!(c, '\n' | '\t');
            assert!(text.chars().all(harmless), "{text:?}");
            assert!(text.contains("$'\\x1b]0;owned\\x07\\r\\n\\tx\\u202e'"), "{text:?}");
        }
    }
    assert_eq!(shown(LIST, &children, Style::Plain).lines().count(), 1);
}

#[test]
fn colours_are_there_only_when_wanted() {
    let coloured = shown(LIST, &three(), Style::Terminal(Screen { width: 100, colours: true, now: now() }));
    assert!(!shown(LIST, &three(), terminal(100)).contains('\x1b'));
    // The terminal library leaves them out by itself where NO_COLOR is set.
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    assert_eq!(coloured.contains('\x1b'), !refused, "{coloured:?}");
}

#[test]
fn an_empty_list_says_so_to_people_only() {
    let none = Response::Children(Vec::new());
    let human = report(LIST, &none, terminal(80)).unwrap();
    assert_eq!(
        (human.result.as_str(), human.remarks.as_str()),
        ("", "procbroker: no child is alive; start one with 'procbroker create -- COMMAND'\n")
    );
    assert_eq!(human.status, CommandStatus::Done);
    assert_eq!(shown(LIST, &none, Style::Plain), "");
    assert_eq!(shown(LIST, &none, Style::Json), "{\"children\":[]}\n");
}

fn created(outcome: Outcome, child: Child) -> Response {
    Response::Created(Created { outcome, child: Arc::new(child) })
}

#[test]
fn create_says_what_it_did_and_pipes_get_the_id_alone() {
    let named = || running(1, Some("render-42"), &["true"]);
    let id = "01930000-0000-7000-8000-000000000001";
    let cases = [
        (created(Outcome::Created, named()), format!("created render-42 ({id}): running, pid 4001\n")),
        (
            created(Outcome::Created, running(1, None, &["true"])),
            format!("created {id}: running, pid 4001\n"),
        ),
        (created(Outcome::Replaced, named()), format!("replaced render-42 ({id}): running, pid 4001\n")),
        (
            created(Outcome::Existing { same_spec: true }, named()),
            format!("found render-42 ({id}): running, pid 4001\n"),
        ),
    ];
    for (response, expected) in cases {
        assert_eq!(shown(CREATE, &response, terminal(80)), expected);
        assert_eq!(shown(CREATE, &response, Style::Plain), format!("{id}\n"));
    }
}

#[test]
fn create_warns_of_a_child_from_another_specification_wherever_it_prints_to() {
    let named = running(1, Some("render-42"), &["true"]);
    let found = created(Outcome::Existing { same_spec: false }, named);
    let said = "procbroker: the child that was found was created from another specification, and stays as it is; \
                --if-exists replace puts this one in its place\n";
    let id = "01930000-0000-7000-8000-000000000001";
    for (style, result, remarks) in [
        (terminal(80), format!("found render-42 ({id}): running, pid 4001\n"), said),
        (Style::Plain, format!("{id}\n"), said),
    ] {
        let report = report(CREATE, &found, style).unwrap();
        assert_eq!(
            (report.result, report.remarks.as_str(), report.status),
            (result, remarks, CommandStatus::Done)
        );
    }
    assert!(shown(CREATE, &found, Style::Json).starts_with("{\"outcome\":\"existing\",\"same_spec\":false,"));
}

#[test]
fn create_says_so_where_what_it_has_started_ends_at_once() {
    let child = || running(1, Some("job"), &["true"]);
    let remarks = |arguments: &[&str], outcome, style| {
        let line = [&["create"], arguments, &["--", "true"]].concat();
        let report = report(&line, &created(outcome, child()), style).unwrap();
        assert_eq!(report.status, CommandStatus::Done);
        report.remarks
    };
    let bound = ["--lifetime", "connection"];
    let said =
        "procbroker: it ends with this command's connection; --linger, or --lifetime pid:$$, keeps it\n";
    for (style, expected) in [(terminal(80), said), (Style::Plain, said), (Style::Json, "")] {
        assert_eq!(remarks(&bound, Outcome::Created, style), expected);
        assert_eq!(remarks(&bound, Outcome::Existing { same_spec: true }, style), "");
        assert_eq!(remarks(&["--lifetime", "connection", "--linger", "1s"], Outcome::Created, style), "");
    }
}

#[test]
fn wait_says_how_the_child_ended() {
    let job = || running(1, Some("job"), &["./job"]);
    let cases = [
        (ended(job(), ExitStatus::Code(3), ExitReason::Exited, false), "job: ended, exit code 3 (exited)\n"),
        (
            ended(job(), ExitStatus::Signal(Signal::KILL), ExitReason::Shutdown, true),
            "job: ended, SIGKILL (shutdown, by force)\n",
        ),
        (
            ended(job(), ExitStatus::Unknown, ExitReason::BrokerLost, false),
            "job: ended, unknown (broker_lost)\n",
        ),
    ];
    for (child, expected) in cases {
        let response = Response::Child(Arc::new(child));
        assert_eq!(shown(WAIT, &response, terminal(80)), expected);
    }
}

#[test]
fn waiting_until_a_child_is_ready_fails_when_it_has_ended() {
    let alive = Response::Child(Arc::new(running(1, Some("job"), &["./job"])));
    let view = WAIT_READY;
    assert_eq!(shown(view, &alive, terminal(80)), "job: running, pid 4001\n");
    let job = ended(running(1, Some("job"), &["./job"]), ExitStatus::Code(0), ExitReason::Exited, false);
    let gone = Response::Child(Arc::new(job));
    for (style, remarks) in [
        (terminal(80), "procbroker: job has ended, so it is not ready\n"),
        (Style::Plain, "procbroker: job has ended, so it is not ready\n"),
        (Style::Json, ""),
    ] {
        let report = report(view, &gone, style).unwrap();
        assert_eq!((report.status, report.remarks.as_str()), (CommandStatus::Failed, remarks), "{style:?}");
        assert!(!report.result.is_empty(), "{style:?}");
    }
}

#[test]
fn waiting_for_several_tells_of_each() {
    let job = |number, name, code| {
        ended(running(number, Some(name), &["./job"]), ExitStatus::Code(code), ExitReason::Exited, false)
    };
    let both = Response::Children([job(1, "one", 0), job(2, "two", 3)].map(Arc::new).to_vec());
    let line = &["wait", "one", "two"];
    let expected = "one: ended, exit code 0 (exited)\ntwo: ended, exit code 3 (exited)\n";
    assert_eq!(shown(line, &both, terminal(80)), expected);
    assert_eq!(shown(line, &both, Style::Plain).lines().count(), 2);
    let ready = report(&["wait", "--label", "a=b", "--until", "ready"], &both, Style::Plain).unwrap();
    let why = "procbroker: one has ended, so it is not ready; two has ended, so it is not ready\n";
    assert_eq!((ready.status, ready.remarks.as_str()), (CommandStatus::Failed, why));
    let none = report(&["wait", "--label", "a=b"], &Response::Children(Vec::new()), terminal(80)).unwrap();
    let why = "procbroker: no live child has these labels; nothing was waited for\n";
    assert_eq!((none.status, none.remarks.as_str()), (CommandStatus::Done, why));
}

#[test]
fn a_shutdown_is_a_table_and_a_summary() {
    let job = ended(running(1, Some("job"), &["./job"]), ExitStatus::Code(0), ExitReason::Shutdown, false);
    let report = ShutdownReport {
        children: vec![Arc::new(job)],
        forced: 0,
        took: Duration::from_nanos(1_200_345_678),
    };
    let text = shown(SHUTDOWN, &Response::ShutDown(report), terminal(120));
    let expected = concat!(
        "NAME  STATE  SINCE  EXIT          COMMAND\n",
        "job   ended  40s    0 (shutdown)  ./job\n",
        "the broker stopped 1 child in 1s 200ms, 0 by force\n",
    );
    assert_eq!(text, expected);
    let none = ShutdownReport { children: Vec::new(), forced: 0, took: Duration::ZERO };
    let none = Response::ShutDown(none);
    let expected = "the broker stopped 0 children in 0s, 0 by force\n";
    assert_eq!(shown(SHUTDOWN, &none, terminal(120)), expected);
    assert_eq!(shown(SHUTDOWN, &none, Style::Plain), "");
}

#[test]
fn an_answer_to_another_request_is_refused() {
    for style in [terminal(80), Style::Plain] {
        let failure = report(STATUS, &three(), style).unwrap_err();
        assert!(matches!(failure, Failure::Answer), "{failure:?}");
    }
}
