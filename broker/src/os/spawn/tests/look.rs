//! Looks for listeners: what is found, with whose rights, and what becomes of one that hangs.

use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::sync::Arc;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::*;
use crate::os::host::fs_rights::Rights;
use crate::os::process::alone;
use crate::os::spawn::{PathLook, PathLooks, kill};

const USER: u32 = 64_001;

fn await_end(pidfd: &Arc<OwnedFd>) {
    assert_eq!(poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE), Ok(1));
}

/// What one has found.
fn outcome(mut look: PathLook) -> bool {
    await_end(look.pidfd());
    look.outcome().unwrap()
}

#[test]
fn a_listener_is_found_and_nothing_else_is_one() {
    let scene = Scene::new();
    let own = geteuid().as_raw();
    for way in every_way() {
        let looks = Arc::new(PathLooks::new(way).unwrap());
        let listens =
            |path: &Path, user| outcome(looks.begin(path.to_str().unwrap(), &Rights::Own, user).unwrap());
        let path = scene.path("listener");
        assert!(!listens(&path, own), "there is nothing");
        let listener = UnixListener::bind(&path).unwrap();
        // More than there are slots.
        for _ in 0..20 {
            assert!(listens(&path, own));
        }
        assert!(!listens(&path, own + 1), "it is somebody else's");
        let through = format!("/proc/{}/cwd/{}", std::process::id(), path.display());
        assert!(!listens(Path::new(&through), own), "a link of /proc is not followed");
        symlink(&path, scene.path("link")).unwrap();
        assert!(listens(&scene.path("link"), own));
        drop(listener);
        assert!(!listens(&path, own), "nobody listens there any more");
        let _datagrams = UnixDatagram::bind(scene.path("datagrams")).unwrap();
        assert!(!listens(&scene.path("datagrams"), own));
        assert!(looks.begin("a\0b", &Rights::Own, own).is_err());
        fs::remove_file(&path).unwrap();
        fs::remove_file(scene.path("link")).unwrap();
        fs::remove_file(scene.path("datagrams")).unwrap();
    }
    assert_eq!(children_of_this_thread(), "");
}

#[test]
fn what_is_closed_to_a_user_is_closed_to_who_looks_for_it() {
    if !geteuid().is_root() {
        return;
    }
    let scene = Scene::new();
    fs::set_permissions(scene.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let rights = Rights::Of { uid: USER, gid: USER, groups: vec![64_002] };
    // Who listens is this process: it is only asked who can get there.
    let file = |name: &str, mode, uid, gid| {
        let path = scene.path(name);
        let listener = UnixListener::bind(&path).unwrap();
        chown(&path, Some(uid), Some(gid)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (path, listener)
    };
    for way in every_way() {
        let looks = Arc::new(PathLooks::new(way).unwrap());
        for (name, mode, uid, gid, is_open) in [
            ("closed", 0o600, 0, 0, false),
            ("root", 0o660, 0, 0, false),
            ("own", 0o600, USER, 0, true),
            ("group", 0o660, 0, 64_002, true),
            ("other", 0o660, 0, 64_003, false),
        ] {
            let (path, _listener) = file(name, mode, uid, gid);
            assert_eq!(
                outcome(looks.begin(path.to_str().unwrap(), &rights, 0).unwrap()),
                is_open,
                "{way:?} {name}"
            );
            assert!(outcome(looks.begin(path.to_str().unwrap(), &Rights::Own, 0).unwrap()), "{name}");
            fs::remove_file(path).unwrap();
        }
    }
}

/// A file system that nobody serves: whoever goes there waits until he is killed.
const SILENT: &str = "exec unshare -m sh -c 'exec 9<>/dev/fuse && mount -i -t fuse \
    -o fd=9,rootmode=040000,user_id=0,group_id=0,allow_other silent \"$PROCBROKER_TEST_SILENT\" && exec \"$@\"' sh \"$@\"";

#[test]
fn one_that_hangs_in_a_file_system_is_killed_and_costs_no_slot() {
    let test = "one_that_hangs_in_a_file_system_is_killed_and_costs_no_slot";
    if !geteuid().is_root() || !Path::new("/dev/fuse").exists() {
        return;
    }
    let folder = TempDir::new().unwrap();
    if !alone::here_by(module_path!(), test, SILENT, |command| {
        command.env("PROCBROKER_TEST_SILENT", folder.path());
    }) {
        return;
    }
    let path = PathBuf::from(std::env::var_os("PROCBROKER_TEST_SILENT").unwrap()).join("socket");
    let path = path.to_str().unwrap();
    let rights = Rights::Of { uid: USER, gid: USER, groups: Vec::new() };
    for way in every_way() {
        let looks = Arc::new(PathLooks::new(way).unwrap());
        for _ in 0..10 {
            let mut hanging = looks.begin(path, &rights, USER).unwrap();
            assert_eq!(hanging.outcome(), None);
            kill(hanging.pidfd());
            await_end(hanging.pidfd());
            assert_eq!(hanging.outcome(), Some(false));
        }
        let mut hanging: Vec<PathLook> = (0..10).map(|_| looks.begin(path, &rights, USER).unwrap()).collect();
        looks.end_all(Duration::from_secs(60));
        assert_eq!(children_of_this_thread(), "", "{way:?}: none is left to who takes over");
        for look in &mut hanging {
            assert_eq!(look.outcome(), Some(false));
        }
    }
    // One that nobody wants any more.
    let looks = Arc::new(PathLooks::new(SpawnFacilities::probe().unwrap()).unwrap());
    let dropped = looks.begin(path, &rights, USER).unwrap();
    let pidfd = Arc::clone(dropped.pidfd());
    drop(dropped);
    await_end(&pidfd);
}

/// What the kernel says of a socket that is about to connect to a port of this machine: whose it is (`proc_net_tcp(5)`).
fn owner_of_connecting_socket(port: u16) -> Option<u32> {
    const SYN_SENT: &str = "02";
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_meant = fields[3] == SYN_SENT && fields[2].ends_with(&format!(":{port:04X}"));
        is_meant.then(|| fields[7].parse().unwrap())
    })
}

#[test]
fn an_address_is_connected_to_by_the_user_and_nobody_else() {
    if !geteuid().is_root() {
        return;
    }
    let rights = Rights::Of { uid: USER, gid: USER, groups: Vec::new() };
    for way in every_way() {
        let looks = Arc::new(PathLooks::new(way).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert!(outcome(looks.begin_at(address, &rights).unwrap()));
        drop(listener.accept().unwrap());
        // Nobody accepts what fills it: whatever comes after that waits (listen(2)).
        nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
        let _filling = TcpStream::connect(address).unwrap();
        let waiting = looks.begin_at(address, &rights).unwrap();
        let owner = loop {
            if let Some(owner) = owner_of_connecting_socket(address.port()) {
                break owner;
            }
            std::thread::yield_now();
        };
        assert_eq!(owner, USER);
        kill(waiting.pidfd());
        assert!(!outcome(waiting));
        drop(listener);
        assert!(!outcome(looks.begin_at(address, &rights).unwrap()), "nobody listens there any more");
    }
    assert_eq!(children_of_this_thread(), "");
}
