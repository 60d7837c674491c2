use std::os::unix::net::UnixStream;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::unistd::{getegid, geteuid};

use super::*;
use crate::captured_log::captured;

fn options(path: &Path) -> SocketOptions {
    let place = Place { path: path.to_owned(), origin: Origin::User };
    SocketOptions { place, mode: 0o600, group: None }
}

#[test]
fn a_socket_has_its_mode_and_its_group_and_is_gone_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/socket");
    let group = getegid().as_raw();
    let options = SocketOptions { mode: 0o660, group: Some(group), ..options(&path) };
    let (listener, file) = listen_at(&options).unwrap();
    assert_eq!(file.path(), path);
    let found = fs::metadata(&path).unwrap();
    assert_eq!((found.mode() & 0o777, found.gid()), (0o660, group));
    assert_eq!(fs::metadata(folder.path().join("new")).unwrap().mode() & 0o777, 0o700);
    assert_eq!(fcntl(&listener, FcntlArg::F_GETFD).unwrap(), FdFlag::FD_CLOEXEC.bits());
    assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    let _stream = UnixStream::connect(&path).unwrap();
    listener.accept().unwrap();
    drop(file);
    assert_eq!(fs::read_dir(folder.path().join("new")).unwrap().count(), 0);
}

#[test]
fn a_socket_is_open_to_its_group_from_its_first_moment() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    // Root makes files for any group, others for their own.
    let group = if geteuid().is_root() { 12_345 } else { getegid().as_raw() };
    let options = SocketOptions { mode: 0o660, group: Some(group), ..options(&path) };
    let listener = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind_for(&listener, &UnixAddr::new(&path).unwrap(), &options).unwrap();
    let found = fs::metadata(&path).unwrap();
    assert_eq!((found.mode() & 0o777, found.gid()), (0o660, group));
    let later = folder.path().join("later");
    fs::write(&later, "").unwrap();
    assert_eq!(fs::metadata(&later).unwrap().gid(), getegid().as_raw(), "other files have the usual group");
}

#[test]
fn a_second_broker_is_refused_and_the_first_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let (listener, _file) = listen_at(&options(&path)).unwrap();
    let message = listen_at(&options(&path)).unwrap_err().to_string();
    assert!(message.contains(path.to_str().unwrap()), "{message}");
    assert!(message.contains(&std::process::id().to_string()), "{message}");
    assert!(!message.contains('\n'), "{message}");
    let _stream = UnixStream::connect(&path).unwrap();
    listener.accept().unwrap();
}

#[test]
fn the_socket_of_a_broker_that_is_gone_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    drop(UnixListener::bind(&path).unwrap());
    assert_eq!(UnixStream::connect(&path).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    let (_listener, _file) = listen_at(&options(&path)).unwrap();
    UnixStream::connect(&path).unwrap();
}

#[test]
fn a_file_that_is_no_socket_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    fs::write(&path, "mine").unwrap();
    assert!(matches!(listen_at(&options(&path)), Err(SocketError::NotASocket { .. })));
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "the lock is given up");
}

#[test]
fn a_socket_that_somebody_else_made_meanwhile_is_not_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let (_listener, file) = listen_at(&options(&path)).unwrap();
    fs::remove_file(&path).unwrap();
    let other = UnixListener::bind(&path).unwrap();
    drop(file);
    UnixStream::connect(&path).unwrap();
    other.accept().unwrap();
}

#[test]
fn a_path_that_does_not_fit_is_refused_with_its_length() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x".repeat(108));
    let message = listen_at(&options(&path)).unwrap_err().to_string();
    assert!(message.contains(&format!("{} bytes", path.as_os_str().len())), "{message}");
    let longest = folder.path().join("x".repeat(PATH_BYTES_MAX - folder.path().as_os_str().len() - 1));
    let (_listener, _file) = listen_at(&options(&longest)).unwrap();
    UnixStream::connect(&longest).unwrap();
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    let message = listen_at(&options(&folder.path().join("file/socket"))).unwrap_err().to_string();
    assert!(message.contains("cannot make the folder"), "{message}");
}

#[test]
fn the_temporary_folder_of_somebody_else_is_refused_by_its_first_part() {
    let folder = tempfile::Builder::new().prefix("procbroker-test-").tempdir_in("/tmp").unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
    let place = Place { path: folder.path().join("a/socket"), origin: Origin::Temporary };
    let options = SocketOptions { place, mode: 0o600, group: None };
    drop(listen_at(&options).unwrap());
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    assert!(matches!(
        listen_at(&options),
        Err(SocketError::Folder(FolderError::Untrusted { path, .. })) if path == folder.path()
    ));
}

#[test]
fn a_folder_in_which_others_can_exchange_the_socket_is_warned_of() {
    let scratch = tempfile::tempdir().unwrap();
    let (folder, path) = (scratch.path().join("run"), scratch.path().join("run/socket"));
    fs::create_dir(&folder).unwrap();
    let warned = |mode: u32| {
        fs::set_permissions(&folder, Permissions::from_mode(mode)).unwrap();
        captured(|| drop(listen_at(&options(&path)).unwrap()))
    };
    for safe in [0o755, 0o1777] {
        assert_eq!(warned(safe), "", "{safe:o}");
    }
    let warning = warned(0o777);
    assert!(warning.contains("WARN") && warning.contains("everybody may write to"), "{warning}");
    if geteuid().is_root() {
        chown(&folder, Some(64_001), None).unwrap();
        assert!(warned(0o755).contains("belongs to user 64001"));
    }
}
