//! Kinds of children, as parameters of `create`. Those that say that they are there write a line to a named pipe.

use serde_json::{Value, json};

use super::{Fifo, Process};

/// One that ends at SIGTERM.
pub(crate) fn willing() -> Value {
    json!({"command": ["sleep", "infinity"]})
}

/// One that ignores SIGTERM, SIGHUP and SIGINT; says `stubborn PID`.
pub(crate) fn stubborn(hello: &Fifo) -> Value {
    script(hello, "trap '' TERM HUP INT; echo stubborn $$ >\"$1\"; exec sleep infinity")
}

/// One with a daemon in a session of its own, which ignores SIGTERM; says `daemon PID`.
pub(crate) fn with_daemon(hello: &Fifo) -> Value {
    let daemon = "trap \"\" TERM HUP; echo daemon $$ >\"$1\"; exec sleep infinity";
    script(hello, &format!("setsid --fork sh -c '{daemon}' daemon \"$1\"; exec sleep infinity"))
}

/// The same, and the daemon has an empty environment. It calls itself by the path of the pipe, so that it can be
/// found all the same.
pub(crate) fn with_anonymous_daemon(hello: &Fifo) -> Value {
    let daemon = "echo daemon $$ >\"$1\"; exec -a \"$1\" sleep infinity";
    script(hello, &format!("env -i setsid --fork bash -c '{daemon}' daemon \"$1\"; exec sleep infinity"))
}

/// One whose main process ends at SIGTERM while a member of its group ignores that; says `member PID`.
pub(crate) fn with_stubborn_member(hello: &Fifo) -> Value {
    let member = "trap \"\" TERM; echo member $$ >\"$1\"; exec sleep infinity";
    script(hello, &format!("sh -c '{member}' member \"$1\" & exec sleep infinity"))
}

/// A shell script with the path of a pipe as its first argument.
pub(crate) fn script(pipe: &Fifo, text: &str) -> Value {
    json!({"command": ["sh", "-c", text, "sh", pipe.path()]})
}

/// These parameters with more of them.
pub(crate) fn with(mut params: Value, more: &Value) -> Value {
    let all = params.as_object_mut().expect("an object");
    all.extend(more.as_object().expect("an object").clone());
    params
}

/// One that says what happens to it: see `attentive.py`.
pub(crate) fn attentive(pipe: &Fifo, word: &str, go: Option<&Fifo>) -> Value {
    let path = |fifo: &Fifo| fifo.path().to_str().expect("a path in UTF-8").to_owned();
    let mut command =
        ["python3", "-c", include_str!("attentive.py"), &path(pipe), word].map(str::to_owned).to_vec();
    command.extend(go.map(path));
    json!({"command": command})
}

/// The cleanup that a shell script is, with the path of a pipe as its first argument.
pub(crate) fn cleanup(pipe: &Fifo, text: &str) -> Value {
    json!({"cleanup": script(pipe, text)})
}

/// A cleanup that says how its child ended: `cleaned REASON CODE SIGNAL`, with `-` for what there is not.
pub(crate) fn telling_cleanup(pipe: &Fifo) -> Value {
    cleanup(
        pipe,
        "echo cleaned $PROCBROKER_EXIT_REASON ${PROCBROKER_EXIT_CODE--} ${PROCBROKER_EXIT_SIGNAL--} >\"$1\"",
    )
}

/// The process of a line that ends with its pid.
pub(crate) fn pid_in(line: &str) -> Process {
    Process(line.rsplit(' ').next().and_then(|pid| pid.parse().ok()).expect("a line that ends with a pid"))
}
