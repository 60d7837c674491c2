//! The socket's two encodings, byte by byte: what is answered, to what, and what goes on after it.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use procbroker_protocol::request::{ListParams, NoParams};
use procbroker_protocol::{ErrorKind, Request, Response};
use serde_json::{Value, json};

use crate::harness::children::{willing, with};
use crate::harness::{JsonClient, Setup, TestBroker};

/// One byte over what a message may have.
const TOO_LONG: usize = (1 << 20) + 1;

/// Sends all of it, closes the sending side, and reads to the end.
fn exchange(mut stream: UnixStream, bytes: &[u8]) -> Vec<u8> {
    stream.write_all(bytes).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}

fn lines(bytes: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(bytes).expect("text");
    assert!(text.is_empty() || text.ends_with('\n'), "{text}");
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

/// The answers to what is sent at once.
fn answers(broker: &TestBroker, bytes: impl AsRef<[u8]>) -> Vec<Value> {
    lines(&exchange(broker.raw(), bytes.as_ref()))
}

fn code(answer: &Value) -> i64 {
    answer["error"]["code"].as_i64().unwrap_or_else(|| panic!("no error: {answer}"))
}

#[test]
fn every_method_is_answered_in_json() {
    let mut broker = TestBroker::start();
    let mut client = broker.json();
    let created = client.ok("create", with(willing(), &json!({"name": "one", "labels": {"pool": "p"}})));
    assert_eq!(created["outcome"], "created");
    let child = &created["child"];
    assert_eq!((&child["state"], &child["name"]), (&json!("running"), &json!("one")));
    assert_eq!(child["command"], json!(["sleep", "infinity"]));
    for by_id_or_name in [child["id"].clone(), json!("one")] {
        assert_eq!(&client.got(&by_id_or_name), child);
    }
    assert_eq!(client.ok("list", json!({"labels": {"pool": "p"}}))["children"], json!([child]));
    assert_eq!(client.ok("list", json!({"labels": {"pool": "q"}}))["children"], json!([]));
    assert_eq!(&client.ok("wait", json!({"target": "one", "until": "ready"}))["child"], child);
    assert_eq!(client.refused("wait", json!({"target": "one", "timeout": "1ms"})).kind, "timeout");
    assert_eq!(&client.ok("signal", json!({"target": "one", "signal": "CONT"}))["children"][0], child);
    assert_eq!(client.ok("destroy", json!({"target": "one"}))["children"][0]["state"], "ended");
    let status = client.ok("status", json!({}));
    assert_eq!(status["pid"], broker.pid());
    assert_eq!((&status["connections"], &status["children"]["ended"]), (&json!(1), &json!(1)));
    assert_eq!(status["protocol"], json!({"lowest": 1, "highest": 1}));
    assert_eq!(client.ok("shutdown", json!({}))["children"], json!([]));
    broker.ended_in_order();
}

#[test]
fn what_a_child_uses_is_told_to_those_who_ask_for_it() {
    let broker = TestBroker::start();
    let mut client = broker.json();
    let child = client.create(json!({"command": ["sh", "-c", "sleep infinity & wait"], "name": "one"}));
    assert_eq!(child.get("usage"), None);
    client.create(with(willing(), &json!({"name": "two"})));
    client.ok("destroy", json!({"target": "two"}));
    assert_eq!(client.ok("list", json!({}))["children"][0].get("usage"), None);
    let usage = client.ok("get", json!({"target": "one"}))["child"]["usage"].take();
    assert!(usage["cpu"].is_number() && usage["memory"].as_u64().unwrap() > 0, "{usage}");
    assert!((1..=2).contains(&usage["processes"].as_u64().unwrap()), "{usage}");
    let listed = client.ok("list", json!({"all": true, "fields": ["usage", "name"]}))["children"].take();
    assert!(listed[0]["usage"]["processes"].is_number(), "{listed}");
    assert_eq!(listed[1].get("usage"), None, "nothing is left of it");
}

#[test]
fn the_whole_specification_is_told_and_create_takes_it() {
    let broker = TestBroker::start();
    let mut client = broker.json();
    let extras = json!({"env": {"A": "1"}, "stop": [{"signal": "SIGINT", "grace": 2}], "cwd": "/"});
    client.create(with(willing(), &with(extras, &json!({"name": "one"}))));
    let mut spec = client.ok("get", json!({"target": "one"}))["spec"].take();
    assert_eq!((&spec["env"], &spec["stop"][0]["signal"]), (&json!({"A": "1"}), &json!("SIGINT")));
    let members = spec.as_object_mut().unwrap();
    let log = members.remove("log").unwrap();
    assert!(std::path::Path::new(log.as_str().unwrap()).is_absolute(), "{log}");
    members.remove("group");
    members.insert("if_exists".to_owned(), json!("reuse"));
    let again = client.ok("create", spec.clone());
    assert_eq!(again["outcome"], "existing", "{spec}");
}

#[test]
fn what_cannot_be_done_says_so() {
    let broker = TestBroker::start();
    let mut client = broker.json();
    client.create(with(willing(), &json!({"name": "one"})));
    let refused = client.refused("renew", json!({"target": "one"}));
    assert_eq!((refused.kind.as_str(), refused.code), ("unsupported", 10), "{refused:?}");
}

#[test]
fn an_answer_overtakes_one_that_takes_longer() {
    let broker = TestBroker::start();
    let mut client = broker.json();
    let child = client.create(willing());
    let wait = client.send("wait", json!({"target": child["id"]}));
    let status = client.send("status", json!({}));
    assert_eq!(client.message().unwrap()["id"], status);
    let destroy = client.send("destroy", json!({"target": child["id"]}));
    assert_eq!(client.answer(wait).unwrap()["child"]["state"], "ended");
    assert_eq!(client.answer(destroy).unwrap()["children"][0]["state"], "ended");
}

#[test]
fn ids_are_echoed_as_they_came() {
    let broker = TestBroker::start();
    for id in ["1", "-7", "1.50", "1e3", "\"\"", "\"a\\u0062\"", "\"\u{e4}\"", "12345678901234567890123"] {
        let request = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"list\"}}\n");
        let answer = String::from_utf8(exchange(broker.raw(), request.as_bytes())).unwrap();
        assert!(answer.contains(&format!("\"id\":{id},")), "{request}{answer}");
    }
}

#[test]
fn a_line_over_the_bound_is_answered_to_its_id_and_the_next_one_is_carried_out() {
    let broker = TestBroker::start();
    for id in ["7", "\"seven\"", &format!("\"{}\"", "x".repeat(1024))] {
        let filler = "x".repeat(TOO_LONG);
        let long = format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"create\",\"params\":{{\"name\":\"{filler}\"}}}}"
        );
        let next = "{\"jsonrpc\":\"2.0\",\"id\":8,\"method\":\"list\"}";
        let all = answers(&broker, format!("{long}\n{next}\n"));
        assert_eq!(all[0]["id"], serde_json::from_str::<Value>(id).unwrap());
        assert_eq!((&all[0]["error"]["data"]["kind"], &all[1]["id"]), (&json!("limit_exceeded"), &json!(8)));
    }
}

#[test]
fn a_handshake_that_breaks_off_is_answered_with_a_line() {
    let broker = TestBroker::start();
    for begun in [&b"P"[..], b"PBRK", b"PBRK\x01\0\x01"] {
        let all = answers(&broker, begun);
        assert_eq!(all.len(), 1, "{begun:?}");
        assert_eq!((code(&all[0]), &all[0]["id"]), (-32600, &Value::Null));
        let message = all[0]["error"]["message"].as_str().unwrap();
        assert!(message.contains(&format!("after {} of the 8 bytes", begun.len())), "{message}");
    }
}

#[test]
fn a_notification_is_carried_out_and_not_answered() {
    let broker = TestBroker::start();
    let create =
        json!({"jsonrpc": "2.0", "method": "create", "params": with(willing(), &json!({"name": "quiet"}))});
    let bad = json!({"jsonrpc": "2.0", "method": "create", "params": {"command": 5}});
    let wait =
        json!({"jsonrpc": "2.0", "id": 1, "method": "wait", "params": {"target": "quiet", "until": "ready"}});
    let all = answers(&broker, format!("{create}\n{bad}\n{wait}\n"));
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!(all[0]["result"]["child"]["name"], "quiet");
}

#[test]
fn a_client_that_closes_its_side_gets_every_answer_and_then_the_end() {
    let broker = TestBroker::start();
    let mut client = broker.json();
    let child = client.create(json!({"command": ["cat", broker.fifo("hold").path()]}));
    let pending = client.send("wait", json!({"target": child["id"]}));
    let others: Vec<u64> = (0..200).map(|_| client.send("status", json!({}))).collect();
    client.half_close();
    for id in others {
        client.answer(id).unwrap();
    }
    // The one that is still open is answered too, whenever it is.
    broker.json().ok("destroy", json!({"target": child["id"]}));
    assert_eq!(client.answer(pending).unwrap()["child"]["state"], "ended");
    assert!(client.message().is_none());
}

#[test]
fn a_last_line_without_its_end_is_a_request() {
    let broker = TestBroker::start();
    let all = answers(&broker, "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"list\"}");
    assert_eq!(all, [json!({"jsonrpc": "2.0", "id": 7, "result": {"children": []}})]);
}

#[test]
fn white_space_and_empty_lines_between_requests_are_nothing() {
    let broker = TestBroker::start();
    let request = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"list\"}";
    let all = answers(&broker, format!(" \r\n\n\t{request} \r\n\r\n   \n{request}\n\n"));
    assert_eq!(all.len(), 2, "{all:?}");
    assert!(all.iter().all(|answer| answer["result"]["children"] == json!([])), "{all:?}");
}

#[test]
fn socat_is_a_client() {
    let broker = TestBroker::start();
    let mut socat = Command::new("socat")
        .arg("-")
        .arg(format!("UNIX-CONNECT:{}", broker.socket().display()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("socat");
    socat.stdin.take().unwrap().write_all(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"list\"}\n").unwrap();
    let output = socat.wait_with_output().unwrap();
    assert_eq!(lines(&output.stdout), [json!({"jsonrpc": "2.0", "id": 1, "result": {"children": []}})]);
}

#[test]
fn what_is_no_request_is_refused_and_the_connection_goes_on() {
    let broker = TestBroker::start();
    let after = "{\"jsonrpc\":\"2.0\",\"id\":\"after\",\"method\":\"status\"}";
    for (line, expected, id) in [
        ("{\"jsonrpc\":\"2.0\",\"id\":1,", -32700, Value::Null),
        ("{]", -32700, Value::Null),
        ("{\"id\":1} x", -32700, Value::Null),
        ("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"list\"}{}", -32700, Value::Null),
        (" [{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"list\"}]", -32600, Value::Null),
        (" 5", -32600, Value::Null),
        (" \"list\"", -32600, Value::Null),
        ("{}", -32600, Value::Null),
        ("{\"id\":1,\"method\":\"list\"}", -32600, json!(1)),
        ("{\"jsonrpc\":\"1.0\",\"id\":1,\"method\":\"list\"}", -32600, json!(1)),
        ("{\"jsonrpc\":\"2.0\",\"id\":1}", -32600, json!(1)),
        ("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":5}", -32600, json!(1)),
        ("{\"jsonrpc\":\"2.0\",\"id\":null,\"method\":\"list\"}", -32600, Value::Null),
        ("{\"jsonrpc\":\"2.0\",\"id\":{},\"method\":\"list\"}", -32600, Value::Null),
        ("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"list\",\"extra\":1}", -32600, json!(1)),
        ("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"lst\"}", -32601, json!(1)),
        ("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"list\",\"params\":[]}", -32602, json!(1)),
        ("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"list\",\"params\":7}", -32602, json!(1)),
    ] {
        let all = answers(&broker, format!("{line}\n{after}\n"));
        assert_eq!(all.len(), 2, "{line}: {all:?}");
        // Two answers can change places.
        let find = |id: &Value| {
            all.iter().find(|answer| &answer["id"] == id).unwrap_or_else(|| panic!("{line}: {all:?}"))
        };
        assert_eq!(code(find(&id)), expected, "{line}: {all:?}");
        assert_eq!(find(&json!("after"))["result"]["shutting_down"], false, "{line}");
    }
}

#[test]
fn wrong_parameters_are_named() {
    let broker = TestBroker::start();
    let mut client = broker.json();
    for (method, params, named) in [
        ("create", json!({}), "command"),
        ("create", json!({"command": "sleep"}), "command"),
        ("create", json!({"command": []}), "command"),
        ("create", json!({"command": [""]}), "command"),
        ("create", json!({"command": ["sleep", 5]}), "command"),
        ("create", json!({"command": ["sleep", "a\u{0}b"]}), "command"),
        ("create", json!({"command": ["true"], "comand": 1}), "comand"),
        ("create", json!({"command": ["true"], "name": "no spaces"}), "name"),
        ("create", json!({"command": ["true"], "name": "-dash"}), "name"),
        ("create", json!({"command": ["true"], "name": ""}), "name"),
        ("create", json!({"command": ["true"], "name": "n".repeat(129)}), "name"),
        ("create", json!({"command": ["true"], "name": "67e55044-10b1-426f-9247-bb680e5fe0c8"}), "name"),
        ("create", json!({"command": ["true"], "if_exists": "reuse"}), "if_exists"),
        ("create", json!({"command": ["true"], "if_exists": "maybe"}), "if_exists"),
        ("create", json!({"command": ["true"], "request_id": "1"}), "request_id"),
        ("create", json!({"command": ["true"], "labels": {"a": 1}}), "labels"),
        ("create", json!({"command": ["true"], "cwd": "relative"}), "cwd"),
        ("create", json!({"command": ["true"], "cwd": "/\u{0}"}), "cwd"),
        ("create", json!({"command": ["true"], "env": {"A": "\u{0}"}}), "env"),
        ("create", json!({"command": ["true"], "env": {"A=B": "c"}}), "env"),
        ("create", json!({"command": ["true"], "env": {"": "c"}}), "env"),
        ("create", json!({"command": ["true"], "umask": "999"}), "umask"),
        ("create", json!({"command": ["true"], "stdout": "file"}), "stdout"),
        ("create", json!({"command": ["true"], "stop": [{"signal": "SIGNOPE", "grace": 1}]}), "stop"),
        ("create", json!({"command": ["true"], "stop": [{"signal": "TERM", "grace": -1}]}), "stop"),
        ("create", json!({"command": ["true"], "stop": [{"signal": "TERM", "grace": "soon"}]}), "stop"),
        ("create", json!({"command": ["true"], "stop_order": 1.5}), "stop_order"),
        ("create", json!({"command": ["true"], "rlimits": {"files": 5}}), "rlimits"),
        ("create", json!({"command": ["true"], "limit": {"key": "", "max": 1}}), "limit"),
        ("destroy", json!({}), "target"),
        ("destroy", json!({"target": {"labels": {}}}), "target"),
        ("destroy", json!({"target": {"all": false}}), "target"),
        ("get", json!({"target": {"all": true}}), "target"),
        ("wait", json!({"target": "one", "until": "later"}), "until"),
        ("wait", json!({"target": "one", "timeout": "x"}), "timeout"),
        ("signal", json!({"target": "one", "signal": 0}), "signal"),
        ("signal", json!({"target": "one", "signal": 99}), "signal"),
        ("signal", json!({"target": "one", "signal": "HUP", "scope": "everyone"}), "scope"),
        ("status", json!({"verbose": true}), "verbose"),
    ] {
        let refused = client.refused(method, params.clone());
        assert_eq!(
            (refused.code, refused.kind.as_str()),
            (-32602, "invalid_params"),
            "{method} {params}: {refused:?}"
        );
        assert!(refused.message.contains(named), "{method} {params}: {}", refused.message);
    }
    assert_eq!(client.ok("list", json!({"all": true}))["children"], json!([]));
}

#[test]
fn absent_and_null_parameters_mean_the_same() {
    let broker = TestBroker::start();
    let mut client = broker.json();
    let nulls = json!({"name": null, "if_exists": null, "request_id": null, "labels": null, "cwd": null, "env": null,
        "env_clear": null, "umask": null, "user": null, "groups": null, "stdin": null, "stdout": null, "stderr": null,
        "stop": null, "stop_order": null, "ready": null, "ready_timeout": null, "no_wait": null, "restart": null,
        "lifetime": null, "linger": null, "cleanup": null, "limit": null, "rlimits": null, "resources": null});
    let child = client.create(with(willing(), &nulls));
    assert_eq!((&child["stop_order"], &child["lifetime"]), (&json!(0), &json!("broker")));
    assert_eq!(client.ok("list", json!({"labels": null, "all": null}))["children"], json!([child]));
    client.ok("destroy", json!({"target": child["id"], "stop": null, "no_wait": null}));
}

#[test]
fn a_line_over_the_bound_is_refused_and_the_connection_goes_on() {
    let broker = TestBroker::start();
    let mut client = broker.json();
    let long =
        format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"list\",\"x\":\"{}\"}}\n", "x".repeat(TOO_LONG));
    client.write(long.as_bytes());
    let answer = client.message().unwrap();
    assert_eq!(answer["error"]["data"]["kind"], "limit_exceeded", "{answer}");
    assert_eq!(client.ok("list", json!({}))["children"], json!([]));
}

#[test]
fn a_frame_over_the_bound_is_refused_and_the_connection_goes_on() {
    let broker = TestBroker::start();
    let mut client = broker.frames();
    let mut frame = u32::try_from(TOO_LONG).unwrap().to_le_bytes().to_vec();
    // The id of a request comes first.
    frame.push(77);
    frame.resize(4 + TOO_LONG, 0);
    client.write(&frame);
    let (id, refused) = client.answer().unwrap();
    assert_eq!((id, refused.unwrap_err().kind), (77, ErrorKind::LimitExceeded));
    assert!(client.call(&Request::Status(NoParams {})).is_ok());
}

#[test]
fn a_frame_that_is_no_request_is_refused_and_the_connection_goes_on() {
    let broker = TestBroker::start();
    let mut client = broker.frames();
    for (content, expected, id) in [
        (&[][..], ErrorKind::InvalidRequest, 0),
        (&[0, 10], ErrorKind::InvalidRequest, 0),
        (&[5, 200], ErrorKind::MethodNotFound, 5),
        (&[5], ErrorKind::InvalidParams, 5),
        (&[5, 10, 0], ErrorKind::InvalidParams, 5),
        (&[5, 0, 255, 255, 255, 255], ErrorKind::InvalidParams, 5),
    ] {
        let mut frame = u32::try_from(content.len()).unwrap().to_le_bytes().to_vec();
        frame.extend_from_slice(content);
        client.write(&frame);
        let (answered, refused) = client.answer().unwrap();
        assert_eq!((answered, refused.unwrap_err().kind), (id, expected), "{content:?}");
    }
    assert!(matches!(client.call(&Request::List(ListParams::default())), Ok(Response::Children(_))));
}

#[test]
fn frames_are_pipelined_and_all_answered_after_a_half_close() {
    let broker = TestBroker::start();
    let mut client = broker.frames();
    let mut sent: Vec<u64> = (0..300).map(|_| client.send(&Request::List(ListParams::default()))).collect();
    client.half_close();
    let mut answered: Vec<u64> = std::iter::from_fn(|| client.answer()).map(|(id, _)| id).collect();
    answered.sort_unstable();
    sent.sort_unstable();
    assert_eq!(answered, sent);
}

#[test]
fn a_frame_that_is_cut_off_is_refused_at_the_end() {
    let broker = TestBroker::start();
    let mut client = broker.frames();
    client.write(&[100, 0, 0, 0, 1, 2, 3]);
    client.half_close();
    let (id, refused) = client.answer().unwrap();
    assert_eq!((id, refused.unwrap_err().kind), (0, ErrorKind::InvalidRequest));
    assert!(client.answer().is_none());
    broker.status();
}

#[test]
fn an_unknown_version_is_answered_with_those_that_there_are() {
    let broker = TestBroker::start();
    let answer = exchange(broker.raw(), b"PBRK\xf0\xff\xff\xff");
    assert_eq!(answer, b"PBRK\x00\x00\x01\x00\x01\x00");
    // A range that holds one of ours is enough.
    assert_eq!(exchange(broker.raw(), b"PBRK\x01\x00\xff\xff"), b"PBRK\x01\x00");
}

#[test]
fn a_beginning_that_is_neither_encoding_gets_one_line_and_the_end() {
    let broker = TestBroker::start();
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"\x00\x01\x02",
        b"PBRX\x01\x00\x01\x00",
        b"[]\n",
        b"PBRK\x00\x00\x00\x00",
        b"PBRK\x05\x00\x01\x00",
    ] {
        let mut stream = broker.raw();
        stream.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("closed by the broker");
        let all = lines(&answer);
        assert_eq!(all.len(), 1, "{bytes:?}: {all:?}");
        assert!(all[0]["error"]["message"].as_str().is_some_and(|message| !message.is_empty()), "{all:?}");
        assert_eq!(all[0]["id"], Value::Null);
    }
    broker.status();
}

#[test]
fn a_message_that_does_not_end_in_time_costs_its_connection() {
    let broker = Setup::new().flags(["--partial-message-timeout", "50ms"]).start();
    for beginning in [&b"{\"jsonrpc\":"[..], b"PB", b" ", b"PBRK\x01\x00\x01\x00\x09\x00\x00\x00\x01"] {
        let mut stream = broker.raw();
        stream.write_all(beginning).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("closed by the broker");
        if beginning.first() == Some(&b'{') {
            assert_eq!(lines(&answer)[0]["error"]["data"]["kind"], "timeout");
        }
    }
    // One that has said all that it wants to say is left in peace, also while it waits for an answer.
    let mut client = broker.json();
    let child = client.create(willing());
    let wait = client.send("wait", json!({"target": child["id"]}));
    let mut late = broker.raw();
    late.write_all(b"{").unwrap();
    late.read_to_end(&mut Vec::new()).expect("closed by the broker, later than the others were asked");
    broker.json().ok("destroy", json!({"target": child["id"]}));
    assert_eq!(client.answer(wait).unwrap()["child"]["state"], "ended");
}

#[test]
fn bytes_that_come_one_at_a_time_are_put_together() {
    let broker = TestBroker::start();
    let request = b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"list\",\"params\":{}}\n";
    let mut stream = broker.raw();
    for byte in request {
        stream.write_all(&[*byte]).unwrap();
    }
    let mut client = JsonClient::over(stream);
    assert_eq!(client.message().unwrap()["result"], json!({"children": []}));
}
