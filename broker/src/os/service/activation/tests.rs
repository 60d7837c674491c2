use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use super::*;
use crate::os::process::alone;

const SCRIPT: &str = "LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=web: exec \"$@\" 3<&0 4<&0";

/// Passes a socket twice.
fn passed(test: &str, script: &str, socket: impl Into<OwnedFd>) -> bool {
    let socket = socket.into();
    alone::here_by(module_path!(), test, script, |command| {
        command.stdin(Stdio::from(socket));
    })
}

fn unix_listener() -> (tempfile::TempDir, UnixListener) {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join("socket")).unwrap();
    (folder, listener)
}

#[test]
fn all_sockets_that_were_passed_are_served_under_their_names() {
    let (_folder, listener) = unix_listener();
    if !passed("all_sockets_that_were_passed_are_served_under_their_names", SCRIPT, listener) {
        return;
    }
    let sockets = super::passed().unwrap().sockets;
    let names: Vec<_> = sockets.iter().map(|socket| socket.name.as_deref()).collect();
    assert_eq!(names, [Some("web"), None]);
    for (socket, descriptor) in sockets.iter().zip(FIRST..) {
        assert_eq!(usize::try_from(socket.listener.as_raw_fd()), Ok(descriptor));
        let flags = fcntl(socket.listener.as_fd(), FcntlArg::F_GETFD).unwrap();
        assert_eq!(flags, FdFlag::FD_CLOEXEC.bits());
        assert_eq!(socket.listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
    assert!(super::passed().unwrap().sockets.is_empty(), "they are taken once");
}

#[test]
fn what_an_earlier_broker_stored_is_no_socket_to_serve() {
    let (_folder, listener) = unix_listener();
    let script = "LISTEN_PID=$$ LISTEN_FDS=3 \
                  LISTEN_FDNAMES=procbroker-children-read:web:procbroker-children-write exec \"$@\" 3<&0 4<&0 5</dev/null";
    if passed("what_an_earlier_broker_stored_is_no_socket_to_serve", script, listener) {
        let passed = super::passed().unwrap();
        let names: Vec<_> = passed.sockets.iter().map(|socket| socket.name.as_deref()).collect();
        assert_eq!(names, [Some("web")]);
        let kept = format!("{:?}", passed.kept);
        assert!(kept.contains("fd: 3") && kept.contains("fd: 5"), "{kept}");
    }
}

#[test]
fn sockets_for_another_process_are_left_alone() {
    let (_folder, listener) = unix_listener();
    let script = "LISTEN_PID=1 LISTEN_FDS=1 exec \"$@\" 3<&0";
    if passed("sockets_for_another_process_are_left_alone", script, listener) {
        assert!(super::passed().unwrap().sockets.is_empty());
    }
}

#[test]
fn without_listen_pid_nothing_is_taken_for_a_socket() {
    let (_folder, listener) = unix_listener();
    let script = "LISTEN_FDS=1 exec \"$@\" 3<&0";
    if passed("without_listen_pid_nothing_is_taken_for_a_socket", script, listener) {
        assert!(super::passed().unwrap().sockets.is_empty());
    }
}

#[test]
fn a_socket_of_another_family_is_refused_by_its_number() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    if passed("a_socket_of_another_family_is_refused_by_its_number", SCRIPT, listener) {
        let message = super::passed().unwrap_err().to_string();
        assert!(message.contains("descriptor 3 (web)") && message.contains("ListenStream="), "{message}");
    }
}

#[test]
fn a_socket_that_does_not_listen_is_refused() {
    let (stream, _other) = UnixStream::pair().unwrap();
    if passed("a_socket_that_does_not_listen_is_refused", SCRIPT, stream) {
        let message = super::passed().unwrap_err().to_string();
        assert!(message.contains("it does not listen"), "{message}");
    }
}

#[test]
fn what_is_no_number_of_sockets_is_refused() {
    let (_folder, listener) = unix_listener();
    let script = "LISTEN_PID=$$ LISTEN_FDS=many exec \"$@\" 3<&0";
    if passed("what_is_no_number_of_sockets_is_refused", script, listener) {
        assert!(matches!(super::passed(), Err(ActivationError::Number(number)) if number == "many"));
    }
}
