//! What command lines mean, and which are refused.

mod create;
mod help;
mod requests;
mod serve;

use clap::CommandFactory;
use procbroker_protocol::Request;
use procbroker_protocol::create::CreateParams;
use procbroker_protocol::json_lines::objects::ParamsObject;

use super::*;

fn parse(arguments: &[&str]) -> Result<CommandLine, clap::Error> {
    CommandLine::read(std::iter::once(&"procbroker").chain(arguments).map(Into::into))
}

fn request(arguments: &[&str]) -> Request {
    match parse(arguments).unwrap().verb {
        Verb::Ask(question) => {
            let [request] = <[Request; 1]>::try_from(question.ask().requests().unwrap()).unwrap();
            request
        }
        other => panic!("{other:?}"),
    }
}

fn create(arguments: &[&str]) -> CreateParams {
    match request(arguments) {
        Request::Create(params) => *params,
        other => panic!("{other:?}"),
    }
}

fn params(arguments: &[&str]) -> String {
    serde_json::to_string(&ParamsObject(&request(arguments))).unwrap()
}

fn serve(arguments: &[&str]) -> ServeArguments {
    match parse(arguments).unwrap().verb {
        Verb::Serve(arguments) => *arguments,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_definition_is_consistent() {
    CommandLine::command().debug_assert();
}

#[test]
fn a_command_line_that_makes_no_sense_is_refused() {
    let cases: [&[&str]; 38] = [
        &["create", "--inherit-env", "--env-clear", "--", "true"],
        &[],
        &["run"],
        &["create"],
        &["create", "--"],
        &["create", "sleep", "1"],
        &["create", "--name", "a b", "--", "true"],
        &["create", "--name", "67e55044-10b1-426f-9247-bb680e5fe0c8", "--", "true"],
        &["create", "--stop", "SIGFOO", "--", "true"],
        &["create", "--umask", "888", "--", "true"],
        &["create", "--cleanup-timeout", "1s", "--", "true"],
        &["create", "--restart-max", "1", "--", "true"],
        &["create", "--restart-window", "1s", "--", "true"],
        &["create", "--restart-backoff", "1s", "--", "true"],
        &["create", "--restart-backoff-max", "1s", "--", "true"],
        &["create", "--ready-interval", "1s", "--", "true"],
        &["create", "--lifetime", "for ever", "--", "true"],
        &["create", "--user", "", "--", "true"],
        &["destroy"],
        &["destroy", "a", "--all"],
        &["destroy", "--all", "--label=a=b"],
        &["get"],
        &["get", "a/b"],
        &["wait", "a", "--until", "later"],
        &["wait", "a", "--timeout", "-1"],
        &["signal"],
        &["signal", "--all", "--label=a=b", "HUP"],
        &["signal", "a", "-SIGFOO"],
        &["restart"],
        &["list", "--name", "["],
        &["list", "--quiet", "--json"],
        &["serve", "--max-children", "0"],
        &["serve", "--json"],
        &["serve", "--log-bytes", "4095"],
        &["serve", "--log-bytes", "16MB"],
        &["logs"],
        &["logs", "a", "--stream", "both"],
        &["logs", "a", "--tail", "-1"],
    ];
    for arguments in cases {
        let error = parse(arguments).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{arguments:?}");
    }
}

#[test]
fn the_socket_can_be_named_before_and_after_the_verb() {
    for arguments in [["--socket", "/a.sock", "list"], ["list", "--socket", "/a.sock"]] {
        assert_eq!(parse(&arguments).unwrap().socket, Some("/a.sock".into()));
    }
    assert_eq!(parse(&["serve", "--socket=/a.sock"]).unwrap().socket, Some("/a.sock".into()));
}
