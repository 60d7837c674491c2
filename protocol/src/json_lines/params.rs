//! From a line to a request: which method, and its parameters.

use std::fmt;

use serde::de::DeserializeOwned;

use super::envelope::{self, Envelope};
use super::tree;
use super::{JsonRequest, Refusal, ReplyTo};
use crate::beginning::beginning;
use crate::error::{Error, ErrorKind};
use crate::request::{Method, Request};

/// Reads a request from one line, without its end.
///
/// # Errors
/// A [`Refusal`], which also says whether it is to be answered.
pub fn decode_request(line: &[u8]) -> Result<JsonRequest, Refusal> {
    let Envelope { id, method, params } = envelope::read(line)?;
    match find(&method).and_then(|method| read(method, params)) {
        Ok(request) => Ok(JsonRequest { id, request }),
        Err(error) => Err(Refusal { reply: id.map_or(ReplyTo::Nobody, ReplyTo::Id), error }),
    }
}

fn find(name: &str) -> Result<Method, Error> {
    Method::from_name(name).ok_or_else(|| {
        let known: Vec<&str> = Method::ALL.into_iter().map(Method::as_str).collect();
        let message = format!("there is no method {:?}; there are {}", beginning(name), known.join(", "));
        Error::new(ErrorKind::MethodNotFound, message)
    })
}

fn read(method: Method, params: Option<&str>) -> Result<Request, Error> {
    let json = match params {
        None | Some("null") => "{}",
        Some(json) if json.starts_with('{') => json,
        Some(_) => {
            let message =
                format!("{method}: params are named: give an object such as {{\"target\": \"web\"}}");
            return Err(Error::new(ErrorKind::InvalidParams, message));
        }
    };
    Ok(match method {
        Method::Create => Request::Create(Box::new(parse(method, json)?)),
        Method::Destroy => Request::Destroy(parse(method, json)?),
        Method::List => Request::List(parse(method, json)?),
        Method::Get => Request::Get(parse(method, json)?),
        Method::Wait => Request::Wait(parse(method, json)?),
        Method::Signal => Request::Signal(parse(method, json)?),
        Method::Restart => Request::Restart(parse(method, json)?),
        Method::Renew => Request::Renew(parse(method, json)?),
        Method::Logs => Request::Logs(parse(method, json)?),
        Method::Events => Request::Events(parse(method, json)?),
        Method::Status => Request::Status(parse(method, json)?),
        Method::Shutdown => Request::Shutdown(parse(method, json)?),
        Method::Upgrade => Request::Upgrade(parse(method, json)?),
        Method::Metrics => Request::Metrics(parse(method, json)?),
    })
}

fn parse<T: DeserializeOwned>(method: Method, json: &str) -> Result<T, Error> {
    let invalid =
        |reason: &dyn fmt::Display| Error::new(ErrorKind::InvalidParams, format!("{method}: {reason}"));
    // It is JSON, as the envelope has shown.
    let value = tree::read(json).map_err(|misfit| invalid(&misfit))?;
    T::deserialize(value).map_err(|misfit| invalid(&misfit))
}

#[cfg(test)]
mod tests {
    use super::super::JsonId;
    use super::*;
    use crate::request::ListParams;

    fn refused(line: &str) -> (ReplyTo, i32, String) {
        let refusal = decode_request(line.as_bytes()).unwrap_err();
        (refusal.reply, refusal.error.kind.code(), refusal.error.message)
    }

    fn id(json: &str) -> ReplyTo {
        ReplyTo::Id(JsonId::from_json(json).unwrap())
    }

    fn request(members: &str) -> String {
        format!("{{\"jsonrpc\":\"2.0\",\"id\":1,{members}}}")
    }

    #[test]
    fn absent_null_and_empty_params_are_the_same() {
        for params in ["", ",\"params\":null", ",\"params\":{}", ", \"params\" : { } "] {
            let line = request(&format!("\"method\":\"list\"{params}"));
            assert_eq!(
                decode_request(line.as_bytes()).unwrap().request,
                Request::List(ListParams::default())
            );
        }
    }

    #[test]
    fn an_id_is_kept_as_it_came() {
        for json in ["1", "-0", "1.50", "1e400", "\"a\\u0062\"", "\"\"", "12345678901234567890123"] {
            let line = format!("{{\"id\": {json} , \"jsonrpc\":\"2.0\",\"method\":\"list\"}}");
            assert_eq!(decode_request(line.as_bytes()).unwrap().id.unwrap().as_json(), json);
        }
        for json in [format!("\"{}\"", "x".repeat(1024)), "1".repeat(1024)] {
            let line = format!("{{\"id\":{json},\"jsonrpc\":\"2.0\",\"method\":\"list\"}}");
            assert_eq!(decode_request(line.as_bytes()).unwrap().id.unwrap().as_json(), json);
        }
        let line = b"{\"jsonrpc\":\"2.0\",\"method\":\"list\"}";
        assert_eq!(decode_request(line).unwrap().id, None);
    }

    #[test]
    fn an_id_of_another_form_is_an_invalid_request_answered_to_null() {
        let long = format!("\"{}\"", "x".repeat(1025));
        for json in ["null", "true", "{}", "[1]", &long, &"1".repeat(1025)] {
            let line = format!("{{\"jsonrpc\":\"2.0\",\"id\":{json},\"method\":\"list\"}}");
            let (reply, code, message) = refused(&line);
            assert_eq!((reply, code), (ReplyTo::Null, -32600), "{json}");
            assert!(message.contains("the id is not"), "{message}");
        }
    }

    #[test]
    fn what_is_not_json_is_a_parse_error_with_its_position() {
        let early = |column: usize| format!("the line is not JSON: it ends early, after column {column}");
        let odd = |column: usize| format!("the line is not JSON: it breaks off at column {column}");
        for (line, expected) in [
            ("{\"a\"", early(4)),
            ("{} x", odd(4)),
            ("nul", early(3)),
            ("not json", odd(2)),
            ("[1,", early(3)),
            ("{\"id\":01}", odd(8)),
            ("{1:2}", odd(2)),
        ] {
            assert_eq!(refused(line), (ReplyTo::Null, -32700, expected), "{line}");
        }
        let refusal = decode_request(b"{\"id\":\"\xff\"}").unwrap_err();
        assert_eq!(refusal.error.message, "the line is not JSON: not UTF-8 after 7 bytes");
    }

    #[test]
    fn a_batch_is_an_invalid_request_that_says_so() {
        let (reply, code, message) = refused("[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"list\"}]");
        assert_eq!((reply, code), (ReplyTo::Null, -32600));
        assert!(message.contains("batches are not taken"), "{message}");
        for line in ["1", "-1", "1.5", "true", "null", "\"x\""] {
            assert_eq!(refused(line).1, -32600, "{line}");
        }
    }

    #[test]
    fn a_fault_in_the_envelope_is_named_and_answered_to_the_id_that_follows_it() {
        let cases = [
            (
                "{\"surprise\":[{}],\"jsonrpc\":\"2.0\",\"method\":\"list\",\"id\":7}",
                id("7"),
                "unknown field \"surprise\"",
            ),
            (
                "{\"jsonrpc\":\"2.0\",\"method\":\"list\",\"method\":\"get\",\"id\":7}",
                id("7"),
                "\"method\" is given twice",
            ),
            (
                "{\"jsonrpc\":\"2.0\",\"method\":\"list\",\"id\":7,\"id\":8}",
                ReplyTo::Null,
                "\"id\" is given twice",
            ),
            ("{\"jsonrpc\":2.0,\"method\":\"list\",\"id\":7}", id("7"), "\"jsonrpc\" is not \"2.0\""),
            ("{\"method\":\"list\",\"id\":\"x\"}", id("\"x\""), "\"jsonrpc\" is not \"2.0\""),
            ("{\"jsonrpc\":\"2.0\",\"method\":1,\"id\":7}", id("7"), "\"method\" is not a string"),
            ("{\"jsonrpc\":\"2.0\"}", ReplyTo::Null, "\"method\" is not a string"),
        ];
        for (line, reply, message) in cases {
            let refusal = refused(line);
            assert_eq!((refusal.0, refusal.1), (reply, -32600), "{line}");
            assert!(refusal.2.contains(message), "{}", refusal.2);
        }
    }

    #[test]
    fn an_unknown_method_is_told_the_known_ones() {
        let (reply, code, message) = refused(&request("\"method\":\"spawn\""));
        assert_eq!((reply, code), (id("1"), -32601));
        assert_eq!(
            message,
            "there is no method \"spawn\"; there are create, destroy, list, get, wait, signal, restart, renew, logs, events, status, metrics, shutdown, upgrade"
        );
    }

    #[test]
    fn wrong_params_name_the_method_the_field_and_what_was_expected() {
        let cases = [
            (r#""method":"create""#, "create: the field \"command\" is missing"),
            (
                r#""method":"create","params":{"command":["a"],"stop":[{"signal":"SIGFOO"}]}"#,
                "create: stop[0].signal: \"SIGFOO\" is not a signal; give a name such as \"SIGHUP\" or \"HUP\", or a number from 1 to 64",
            ),
            (
                r#""method":"create","params":{"command":"a"}"#,
                "create: command: expected a list, but got the string \"a\"",
            ),
            (
                r#""method":"create","params":{"command":["a"],"env":{"A":1}}"#,
                "create: env.A: expected a string, but got 1",
            ),
            (
                r#""method":"create","params":{"command":["a"],"env":{"A":"1","A":"2"}}"#,
                "create: env: the key \"A\" is given twice",
            ),
            (
                r#""method":"create","params":{"command":["a"],"limit":{"key":"k","max":1,"more":2}}"#,
                "create: limit: unknown field \"more\"; there are key, max, wait",
            ),
            (
                r#""method":"list","params":{"labels":{"a":"1","\u0061":"2"}}"#,
                "list: labels: the key \"a\" is given twice",
            ),
            (
                r#""method":"list","params":{"fields":["pid","nmae"]}"#,
                "list: fields[1]: a child has no member \"nmae\"; it has id, shortened, name, labels, command, pid, owner, state, created_at, started_at, restarts, lifetime, stop_order, exit, cleanup, containment, status_text, usage",
            ),
            (r#""method":"list","params":{"all":true,"all":true}"#, "list: the field \"all\" is given twice"),
            (
                r#""method":"get","params":{"target":{"labels":{"a":"1","a":"2"}}}"#,
                "get: target.labels: the key \"a\" is given twice",
            ),
            (
                r#""method":"get","params":{"target":7}"#,
                "get: target: expected an id, a name, {\"labels\": {..}} or {\"all\": true}, but got 7",
            ),
            (
                r#""method":"wait","params":{"target":"a","timeout":-1}"#,
                "wait: timeout: a duration of -1 seconds is negative",
            ),
            (r#""method":"status","params":{"x":1}"#, "status: unknown field \"x\"; there are none"),
            (
                r#""method":"get","params":["a"]"#,
                "get: params are named: give an object such as {\"target\": \"web\"}",
            ),
            (
                r#""method":"get","params":"a""#,
                "get: params are named: give an object such as {\"target\": \"web\"}",
            ),
        ];
        for (members, expected) in cases {
            let (reply, code, message) = refused(&request(members));
            assert_eq!((reply, code, message.as_str()), (id("1"), -32602, expected));
        }
    }

    #[test]
    fn of_members_of_which_one_is_to_be_there_null_ones_are_absent() {
        for (members, same) in [
            (
                r#""method":"create","params":{"command":["a"],"lifetime":{"pid":null,"ttl":5}}"#,
                r#""method":"create","params":{"command":["a"],"lifetime":{"ttl":5}}"#,
            ),
            (
                r#""method":"create","params":{"command":["a"],"ready":{"tcp":"[::1]:80","unix":null}}"#,
                r#""method":"create","params":{"command":["a"],"ready":{"tcp":"[::1]:80"}}"#,
            ),
            (
                r#""method":"destroy","params":{"target":{"all":true,"labels":null}}"#,
                r#""method":"destroy","params":{"target":{"all":true}}"#,
            ),
            (
                r#""method":"destroy","params":{"target":{"labels":{"a":"b"},"all":null}}"#,
                r#""method":"destroy","params":{"target":{"labels":{"a":"b"}}}"#,
            ),
            (
                r#""method":"list","params":{"fields":["shortened","pid"]}"#,
                r#""method":"list","params":{"fields":["pid"]}"#,
            ),
        ] {
            let [read, expected] = [members, same].map(|it| decode_request(request(it).as_bytes()).unwrap());
            assert_eq!(read.request, expected.request, "{members}");
        }
    }

    #[test]
    fn wrong_params_within_others_say_what_was_expected_and_what_came() {
        let cases = [
            (
                r#""method":"get","params":{"target":{"labls":{"a":"1"}}}"#,
                "get: target: unknown field \"labls\"; there are labels, all",
            ),
            (
                r#""method":"get","params":{"target":{"all":true,"labels":{"a":"1"}}}"#,
                "get: target: it has labels or all, and nothing else; give one of them",
            ),
            (
                r#""method":"get","params":{"target":"\ud800"}"#,
                "get: target: \\ud800 is half of a surrogate pair, which is no character; give both halves, or the character itself",
            ),
            (
                r#""method":"get","params":{"target":{"all":true,"all":true}}"#,
                "get: target: the field \"all\" is given twice",
            ),
            (
                r#""method":"create","params":{"command":["a"],"lifetime":{"ttl":1,"ttl":2}}"#,
                "create: lifetime: the field \"ttl\" is given twice",
            ),
            (
                r#""method":"create","params":{"command":["a"],"lifetime":{"ttl":1,"pid":2}}"#,
                "create: lifetime: it has ttl and pid; give one of them",
            ),
            (
                r#""method":"create","params":{"command":["a"],"lifetime":{"ttl":null,"pid":null}}"#,
                "create: lifetime: expected one of broker, connection, pid, ttl, but got an object",
            ),
            (
                r#""method":"create","params":{"command":["a"],"lifetime":{"ttl":1,"life":null}}"#,
                "create: lifetime: \"life\" is none of broker, connection, pid, ttl",
            ),
            (
                r#""method":"create","params":{"command":["a"],"ready":{"log":"a","log":"b"}}"#,
                "create: ready: the field \"log\" is given twice",
            ),
            (
                r#""method":"get","params":{"target":{}}"#,
                "get: target: it has labels or all, and nothing else; give one of them",
            ),
            (
                r#""method":"destroy","params":{"target":"a","stop":["SIGTERM"]}"#,
                "destroy: stop[0]: expected a step such as {\"signal\": \"SIGTERM\", \"grace\": 10}, but got the string \"SIGTERM\"",
            ),
            (
                r#""method":"destroy","params":{"target":"a","stop":[["SIGTERM",1]]}"#,
                "destroy: stop[0]: expected a step such as {\"signal\": \"SIGTERM\", \"grace\": 10}, but got a list",
            ),
            (
                r#""method":"create","params":{"command":["a"],"restart":{"policy":"sometimes"}}"#,
                "create: restart.policy: \"sometimes\" is none of never, on-failure, always",
            ),
            (
                r#""method":"create","params":{"command":["a"],"restart":[]}"#,
                "create: restart: expected an object, but got a list",
            ),
            (
                r#""method":"create","params":{"command":["a"],"lifetime":"pid"}"#,
                "create: lifetime: give \"pid\" as an object: {\"pid\": ..}",
            ),
            (
                r#""method":"create","params":{"command":["a"],"stop_order":1.5}"#,
                "create: stop_order: expected a whole number from -2147483648 to 2147483647, but got 1.5",
            ),
            (
                r#""method":"create","params":{"command":["a"],"no_wait":"yes"}"#,
                "create: no_wait: expected true or false, but got the string \"yes\"",
            ),
            (
                r#""method":"create","params":{"command":["a"],"if_exists":7}"#,
                "create: if_exists: expected one of fail, reuse, replace, but got 7",
            ),
        ];
        for (members, expected) in cases {
            let (reply, code, message) = refused(&request(members));
            assert_eq!((reply, code, message.as_str()), (id("1"), -32602, expected));
        }
    }

    #[test]
    fn a_well_formed_notification_is_never_answered() {
        for members in ["\"method\":\"spawn\"", "\"method\":\"create\"", "\"method\":\"get\",\"params\":[]"] {
            let (reply, ..) = refused(&format!("{{\"jsonrpc\":\"2.0\",{members}}}"));
            assert_eq!(reply, ReplyTo::Nobody, "{members}");
        }
    }

    #[test]
    fn deep_nesting_is_an_error_and_no_overflow() {
        let deep = "[".repeat(500_000);
        let (_, code, _) = refused(&deep);
        assert_eq!(code, -32700);
        let closed = format!("{}{}", "[".repeat(500_000), "]".repeat(500_000));
        assert_eq!(refused(&closed).1, -32600);
        let (_, code, message) =
            refused(&request(&format!("\"method\":\"get\",\"params\":{{\"target\":{closed}}}")));
        assert_eq!(code, -32602, "{message}");
    }
}
