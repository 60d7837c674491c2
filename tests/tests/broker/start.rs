//! How a broker starts: where it listens, whom it makes way for, and what it refuses with one clear line.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use serde_json::json;

use crate::harness::children::{script, willing};
use crate::harness::{
    Ended, JsonClient, PATIENCE, STRANGER, Said, Setup, TestBroker, await_end, is_root, kill_tagged,
    procbroker, procbroker_in, tagged_processes, user_of_this_process,
};

/// It refused with exit status 1 and one line that names this.
fn one_clear_line(ended: &Ended, names: &Path) {
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    assert_eq!(ended.log.lines().count(), 1, "{}", ended.log);
    assert!(
        ended.log.starts_with("procbroker: ") && ended.log.contains(names.to_str().unwrap()),
        "{}",
        ended.log
    );
}

#[test]
fn a_second_broker_on_the_same_socket_refuses_to_start() {
    let broker = TestBroker::start();
    let second = Setup::new();
    let state = second.folder().join("state2");
    let ended = second
        .choosing_places(broker.socket().to_owned())
        .flags(["--socket".as_ref(), broker.socket().as_os_str(), "--state-dir".as_ref(), state.as_os_str()])
        .refuses();
    one_clear_line(&ended, broker.socket());
    assert!(ended.log.contains(&broker.pid().to_string()), "which one is there: {}", ended.log);
    assert!(!state.exists(), "the refused one has left an empty state folder");
    broker.status();
}

#[test]
fn a_broker_that_is_refused_leaves_the_folders_that_were_there_before() {
    let broker = TestBroker::start();
    let scratch = tempfile::tempdir().unwrap();
    let (there, state) = (scratch.path().join("there"), scratch.path().join("there/new/state"));
    fs::create_dir(&there).unwrap();
    let refused = |state: &Path| {
        let ended = Setup::new()
            .choosing_places(broker.socket().to_owned())
            .flags([
                "--socket".as_ref(),
                broker.socket().as_os_str(),
                "--state-dir".as_ref(),
                state.as_os_str(),
            ])
            .refuses();
        one_clear_line(&ended, broker.socket());
    };
    refused(&state);
    assert!(there.is_dir(), "it has removed what was there before");
    assert_eq!(fs::read_dir(&there).unwrap().count(), 0, "it has left a folder that it has made");
    refused(&there);
    assert!(there.is_dir(), "it has removed what was there before");
    assert_eq!(fs::read_dir(&there).unwrap().count(), 0, "it has left its lock");
}

#[test]
fn a_second_broker_on_the_same_state_folder_refuses_to_start() {
    let broker = TestBroker::start();
    let state = broker.state_dir();
    let second = Setup::new();
    let socket = second.folder().join("run/broker.sock");
    let ended = second
        .choosing_places(socket.clone())
        .flags(["--socket".as_ref(), socket.as_os_str(), "--state-dir".as_ref(), state.as_os_str()])
        .refuses();
    one_clear_line(&ended, &state);
    assert!(!socket.exists(), "the refused one has left its socket");
    broker.status();
}

#[test]
fn a_socket_that_nobody_listens_on_is_replaced() {
    let setup = Setup::new();
    fs::create_dir(setup.folder().join("run")).unwrap();
    drop(UnixListener::bind(setup.folder().join("run/broker.sock")).unwrap());
    setup.start().status();
}

#[test]
fn the_socket_of_a_broker_that_was_killed_is_replaced() {
    let mut killed = TestBroker::start();
    killed.signal(Signal::SIGKILL);
    assert_eq!(killed.ended().signal(), Some(9));
    assert!(killed.socket().exists());
    let (socket, state) = (killed.socket().to_owned(), killed.state_dir());
    let next = Setup::new()
        .choosing_places(socket.clone())
        .flags(["--socket".as_ref(), socket.as_os_str(), "--state-dir".as_ref(), state.as_os_str()])
        .start();
    next.status();
}

#[test]
fn a_broker_with_another_state_folder_is_warned_of_the_children_of_one_that_was_killed() {
    let mut killed = TestBroker::start();
    let child = killed.json().create(willing());
    killed.signal(Signal::SIGKILL);
    assert_eq!(killed.ended().signal(), Some(9));
    let (socket, state) = (killed.socket().to_owned(), killed.state_dir());
    let other = killed.path("other state");
    fs::create_dir(&other).unwrap();
    fs::set_permissions(&other, fs::Permissions::from_mode(0o700)).unwrap();
    let started = |state: &Path| {
        Setup::new()
            .choosing_places(socket.clone())
            .flags(["--socket".as_ref(), socket.as_os_str(), "--state-dir".as_ref(), state.as_os_str()])
            .start()
    };
    let ended = started(&other).stop();
    let lines = ended.lines_with("is what a broker with the state folder");
    assert_eq!(lines.len(), 1, "{}", ended.log);
    for said in
        ["WARN", &format!("such as process {}", child["pid"]), &format!("--state-dir {}", state.display())]
    {
        assert!(lines[0].contains(said), "no {said}: {lines:?}");
    }
    // That is the way out.
    let mut found = started(&state);
    let children = found.json().ok("list", json!({}));
    assert_eq!(children["children"][0]["id"], child["id"]);
    let ended = found.stop();
    assert!(ended.lines_with("is what a broker with the state folder").is_empty(), "{}", ended.log);
}

#[test]
fn a_file_that_is_no_socket_is_not_replaced() {
    let setup = Setup::new();
    fs::create_dir(setup.folder().join("run")).unwrap();
    let file = setup.folder().join("run/broker.sock");
    fs::write(&file, "precious").unwrap();
    one_clear_line(&setup.refuses(), &file);
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
}

#[test]
fn places_that_cannot_be_used_are_named() {
    let setup = Setup::new();
    let state = setup.folder().join("file");
    fs::write(&state, "").unwrap();
    let socket = setup.folder().join("s");
    let ended = setup
        .choosing_places(socket.clone())
        .flags([
            "--socket".as_ref(),
            socket.as_os_str(),
            "--state-dir".as_ref(),
            state.join("below").as_os_str(),
        ])
        .refuses();
    one_clear_line(&ended, &state);

    let setup = Setup::new();
    // A socket's path has 107 bytes at most (unix(7)).
    let long = setup.folder().join("x".repeat(120));
    let state = setup.folder().join("state");
    let ended = setup
        .choosing_places(long.clone())
        .flags(["--socket".as_ref(), long.as_os_str(), "--state-dir".as_ref(), state.as_os_str()])
        .refuses();
    one_clear_line(&ended, &long);
}

#[test]
fn accounts_that_do_not_exist_are_named() {
    for flag in ["--allow-user", "--allow-group", "--socket-group"] {
        let ended = Setup::new().flags([flag, "no-such-account"]).refuses();
        one_clear_line(&ended, Path::new("no-such-account"));
    }
}

#[test]
fn a_bad_command_line_is_told_from_a_failure() {
    for arguments in [
        &["serve", "--no-such-flag"][..],
        &["serve", "--socket-mode", "999"],
        &["serve", "--shutdown-timeout", "soon"],
        &["serve", "--max-children", "0"],
        &["serve", "--containment", "hope"],
        &["serve", "extra"],
        &["no-such-verb"],
        &[],
    ] {
        let said = Said::by(Command::new(procbroker()).args(arguments));
        assert_eq!((said.status, said.out.as_str()), (2, ""), "{arguments:?}: {said:?}");
        assert!(!said.err.is_empty());
    }
}

#[test]
fn the_socket_has_the_mode_and_group_that_were_asked_for() {
    let broker = TestBroker::start();
    assert_eq!(fs::metadata(broker.socket()).unwrap().permissions().mode() & 0o7777, 0o600);
    if is_root() {
        let broker =
            Setup::new().flags(["--socket-mode", "660", "--socket-group", &STRANGER.to_string()]).start();
        let file = fs::metadata(broker.socket()).unwrap();
        assert!(file.file_type().is_socket());
        assert_eq!((file.mode() & 0o7777, file.uid(), file.gid()), (0o660, 0, STRANGER));
    }
}

#[test]
fn the_variable_names_the_socket_when_no_flag_does() {
    let setup = Setup::new();
    let (socket, state) = (setup.folder().join("run/by-variable"), setup.folder().join("state"));
    let broker = setup
        .env("PROCBROKER_SOCKET", &socket)
        .choosing_places(socket)
        .flags(["--state-dir".as_ref(), state.as_os_str()])
        .start();
    broker.status();
    assert_eq!(broker.run(&["status"]).status, 0);
}

/// A broker of a user who is not root, that finds its places by itself.
fn for_a_user(environment: &[(&str, &str)], socket: &str, user: u32) -> (TestBroker, PathBuf) {
    let mut setup = Setup::new();
    let folder = setup.folder().to_owned();
    if geteuid().is_root() {
        setup = setup.user(user);
    }
    for (key, value) in environment {
        setup = setup.env(key, folder.join(value));
    }
    let socket = folder.join(socket);
    (setup.choosing_places(socket).start(), folder)
}

#[test]
fn a_users_broker_follows_the_xdg_folders() {
    let places = [("XDG_RUNTIME_DIR", "run"), ("XDG_STATE_HOME", "state"), ("HOME", "home")];
    let (broker, folder) = for_a_user(&places, "run/procbroker/procbroker.sock", STRANGER);
    broker.status();
    let made = folder.join("state/procbroker");
    assert_eq!(fs::metadata(made).unwrap().permissions().mode() & 0o777, 0o700);
    // A client of the same user finds it by the same variable.
    let mut list = if geteuid().is_root() {
        let id = STRANGER.to_string();
        let mut list = Command::new("setpriv");
        list.args(["--reuid", &id, "--regid", &id, "--clear-groups"]).arg(procbroker_in(&folder));
        list
    } else {
        Command::new(procbroker())
    };
    list.arg("list").env_remove("PROCBROKER_SOCKET").env("XDG_RUNTIME_DIR", folder.join("run"));
    let said = Said::by(&mut list);
    assert_eq!(said.status, 0, "{said:?}");
}

#[test]
fn a_users_broker_without_xdg_state_keeps_its_state_in_the_home() {
    let setup = [("XDG_RUNTIME_DIR", "run"), ("HOME", "home"), ("XDG_STATE_HOME", "")];
    let (broker, folder) = for_a_user(&setup[..2], "run/procbroker/procbroker.sock", STRANGER);
    broker.status();
    assert!(folder.join("home/.local/state/procbroker").is_dir());
}

/// Removes a folder when the test is over, however it ends.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        // It may never have been made.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_users_broker_without_a_runtime_folder_makes_a_private_one_and_takes_no_other() {
    if !is_root() {
        return;
    }
    // The folder is not below the test's own.
    let user = user_of_this_process();
    let folder = Removed(PathBuf::from(format!("/tmp/procbroker-{user}")));
    let socket = folder.0.join("procbroker.sock");
    let start = || {
        let setup = Setup::new().user(user);
        let state = setup.folder().join("state");
        setup.choosing_places(socket.clone()).flags(["--state-dir".as_ref(), state.as_os_str()])
    };
    {
        let broker = start().start();
        broker.status();
        assert_eq!(fs::metadata(&folder.0).unwrap().permissions().mode() & 0o7777, 0o700);
    }
    // Somebody else has been there first: root, in this case.
    std::os::unix::fs::chown(&folder.0, Some(0), Some(0)).unwrap();
    fs::set_permissions(&folder.0, fs::Permissions::from_mode(0o777)).unwrap();
    one_clear_line(&start().refuses(), &folder.0);
}

#[test]
fn an_idle_broker_exits_if_told_to_and_not_while_a_child_lives() {
    // Long enough for a busy machine to come to the first connection.
    let mut broker = Setup::new().flags(["--exit-when-idle", "5s"]).start();
    let mut go = broker.fifo("go");
    let mut client = broker.json();
    client.create(script(&go, "read word <\"$1\"; exit 4"));
    drop(client);
    go.say("end");
    let ended = broker.ended_in_order();
    assert_eq!(ended.lines_with("reason=exited").len(), 1, "{}", ended.log);
    // One that nobody ever talks to.
    Setup::new().flags(["--exit-when-idle", "10ms"]).start().ended_in_order();
}

/// systemd-socket-activate(1) and then the broker in its place.
struct Activated {
    folder: PathBuf,
    process: Child,
}

impl Activated {
    /// Waits until the sockets are there; the broker is not.
    fn listen(setup: &Setup, sockets: &[PathBuf], flags: &[&OsStr]) -> Self {
        let mut words: Vec<std::ffi::OsString> = Vec::new();
        for socket in sockets {
            words.extend(["--listen".into(), socket.into()]);
        }
        let mut command = Command::new("systemd-socket-activate");
        command
            .args(words)
            .arg(procbroker())
            .arg("serve")
            .args(["--state-dir", "state"])
            .args(flags)
            .current_dir(setup.folder());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = command.spawn().expect("systemd-socket-activate");
        let mut log = BufReader::new(process.stderr.take().unwrap());
        let activated = Self { folder: setup.folder().to_owned(), process };
        let mut listening = 0;
        while listening < sockets.len() {
            let mut line = String::new();
            assert!(log.read_line(&mut line).unwrap() > 0, "systemd-socket-activate has ended");
            listening += usize::from(line.starts_with("Listening on"));
        }
        // What the broker logs goes on to the same pipe, and nobody minds if it is not read to its end.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        activated
    }
}

impl Drop for Activated {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        kill_tagged(&self.folder);
    }
}

fn connect(socket: &Path) -> JsonClient {
    let stream = UnixStream::connect(socket).expect("a socket that is listened on");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    JsonClient::over(stream)
}

#[test]
fn sockets_passed_by_systemd_are_served_all_of_them() {
    let setup = Setup::new();
    fs::create_dir(setup.folder().join("state")).unwrap();
    fs::set_permissions(setup.folder().join("state"), fs::Permissions::from_mode(0o700)).unwrap();
    let sockets = [setup.folder().join("a.sock"), setup.folder().join("b.sock")];
    let mut activated = Activated::listen(&setup, &sockets, &[]);
    // The first request starts the broker, and is answered.
    let mut first = connect(&sockets[0]);
    let status = first.ok("status", json!({}));
    assert_eq!(status["pid"], activated.process.id());
    assert_eq!(status["facilities"]["activation"], "systemd", "{}", status["facilities"]);
    assert_eq!(status["facilities"]["state_dir"], setup.folder().join("state").to_str().unwrap());
    let mut second = connect(&sockets[1]);
    assert_eq!(second.ok("status", json!({}))["instance"], status["instance"]);
    let child = second.create(willing());
    assert_eq!(first.ok("list", json!({}))["children"], json!([child]));
    // What was meant for the broker is not passed on.
    let environment = crate::harness::Process::of(&child).environment();
    assert!(environment.keys().all(|key| !key.starts_with("LISTEN_")), "{environment:?}");
    assert_eq!(environment["PROCBROKER_SOCKET"], sockets[0].to_str().unwrap());
    first.ok("shutdown", json!({}));
    let status = await_end(&mut activated.process).expect("the broker ends");
    assert_eq!(status.code(), Some(0));
    assert_eq!(tagged_processes(setup.folder()), []);
    // They are not the broker's to remove.
    assert!(sockets.iter().all(|socket| socket.exists()));
}

#[test]
fn children_are_told_a_socket_that_is_served() {
    let setup = Setup::new();
    let [one, other, nobodys] = ["a.sock", "b.sock", "c.sock"].map(|name| setup.folder().join(name));
    for (asked, told) in [(&one, &one), (&other, &other), (&nobodys, &one)] {
        let flags = ["--socket".as_ref(), asked.as_os_str()];
        let mut activated = Activated::listen(&setup, &[one.clone(), other.clone()], &flags);
        let mut client = connect(&one);
        let child = client.create(willing());
        let environment = crate::harness::Process::of(&child).environment();
        assert_eq!(environment["PROCBROKER_SOCKET"], told.to_str().unwrap());
        client.ok("shutdown", json!({}));
        await_end(&mut activated.process).expect("the broker ends");
    }
}

#[test]
fn variables_that_name_another_process_are_not_ones_own() {
    let broker = Setup::new().env("LISTEN_FDS", "1").env("LISTEN_PID", "1").start();
    assert_ne!(broker.status()["facilities"]["activation"], "systemd");
}
