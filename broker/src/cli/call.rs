//! Connects a verb to the broker, and gets its answer.

use std::path::PathBuf;

use procbroker_client::Broker;
use tokio::runtime::Runtime;

use super::failure::Failure;

/// The event loop that the socket needs.
pub(super) fn runtime() -> Result<Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build().map_err(|source| {
        Failure::Machine { attempted: "cannot set up the event loop that the socket needs", source }
    })
}

/// Connects to the broker at this socket, or where it is to be found otherwise.
pub(super) async fn connect(socket: Option<PathBuf>) -> Result<Broker, Failure> {
    let mut builder = Broker::builder();
    if let Some(socket) = socket {
        builder = builder.socket(socket);
    }
    Ok(builder.connect().await?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::path::Path;
    use std::thread;

    use procbroker_protocol::request::{ListParams, NoParams};
    use procbroker_protocol::{Error, ErrorKind, Request, Response};

    use super::*;
    use crate::cli::command_status::CommandStatus;
    use crate::cli::fake_broker::serve;

    fn call(socket: Option<PathBuf>, request: Request) -> Result<Response, Failure> {
        runtime()?.block_on(async { Ok(connect(socket).await?.call(request).await?) })
    }

    /// Calls a broker that gives this answer, and checks that it is asked exactly this.
    fn call_to(socket: &Path, answer: Result<Response, Error>) -> Result<Response, Failure> {
        let asked = Request::List(ListParams::default());
        let listener = UnixListener::bind(socket).unwrap();
        let broker = thread::spawn(move || serve(&listener, &answer, &[]).0);
        let result = call(Some(socket.to_owned()), asked.clone());
        assert_eq!(broker.join().unwrap(), asked);
        result
    }

    #[test]
    fn a_request_is_sent_and_its_answer_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let response = call_to(&folder.path().join("sock"), Ok(Response::Children(Vec::new()))).unwrap();
        assert_eq!(response, Response::Children(Vec::new()));
    }

    #[test]
    fn a_refusal_of_the_broker_is_a_failure_with_its_words() {
        let folder = tempfile::tempdir().unwrap();
        let refusal = Error::new(ErrorKind::LimitExceeded, "too many children");
        let failure = call_to(&folder.path().join("sock"), Err(refusal)).unwrap_err();
        assert_eq!(failure.status(), CommandStatus::Taken);
        assert_eq!(failure.report(false), "procbroker: too many children\n");
    }

    #[test]
    fn no_broker_there_says_which_socket_was_tried() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("sock");
        let failure = call(Some(socket.clone()), Request::Status(NoParams {})).unwrap_err();
        assert_eq!(failure.status(), CommandStatus::NoBroker);
        let line = failure.report(false);
        assert!(line.contains(socket.to_str().unwrap()) && line.lines().count() == 1, "{line}");
    }

    #[test]
    fn a_socket_that_nobody_listens_at_any_more_is_no_broker() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("sock");
        drop(UnixListener::bind(&socket).unwrap());
        let failure = call(Some(socket), Request::Status(NoParams {})).unwrap_err();
        assert_eq!(failure.status(), CommandStatus::NoBroker);
    }
}
