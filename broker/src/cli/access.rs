//! Why a socket lets somebody not in: what is true for this socket, and what would change it.

use std::ffi::CString;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

/// The bit with which the others of a class may write, and so connect (unix(7)).
const GROUP_MAY_WRITE: u32 = 0o020;

/// One line about the socket, or about the folder on the way to it, that keeps this user out.
pub(super) fn refusal(socket: &Path) -> String {
    let user = user_name(Uid::effective().as_raw());
    match std::fs::metadata(socket) {
        Ok(metadata) => {
            let mode = metadata.mode() & 0o777;
            let owner = user_name(metadata.uid());
            let group = group_name(metadata.gid());
            let (who, way) = if mode & GROUP_MAY_WRITE == 0 {
                let way = "--socket-mode and --socket-group of 'procbroker serve' open it to others (SocketMode= and \
                           SocketGroup= where systemd made it), and its --allow-user or --allow-group lets them in";
                (format!("{owner} alone"), way.to_owned())
            } else {
                (format!("{owner} and the group {group}"), into_group(&user, &group, metadata.gid()))
            };
            format!(
                "user {user} may not use the socket {}: it is open to {who} (mode {mode:o}); {way}",
                socket.display()
            )
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let folder = closed_folder(socket).unwrap_or_else(|| socket.to_owned());
            format!(
                "user {user} may not use the socket {}: the folder {} keeps other users out; open it to them, or have \
                 the broker listen elsewhere (--socket)",
                socket.display(),
                folder.display()
            )
        }
        Err(error) => format!("user {user} may not use the socket {}: {error}", socket.display()),
    }
}

/// What makes a user one of those whom the group of the socket lets in.
fn into_group(user: &str, group: &str, gid: u32) -> String {
    let primary = User::from_uid(Uid::effective()).ok().flatten().map(|account| account.gid);
    let name = CString::new(user).ok();
    let groups = primary.zip(name).and_then(|(primary, name)| getgrouplist(&name, primary).ok());
    if groups.is_some_and(|groups| groups.contains(&Gid::from_raw(gid))) {
        return format!(
            "{user} has become a member of {group} since this login: log in anew, or try 'newgrp {group}'"
        );
    }
    format!("'usermod -aG {group} {user}', as root, makes {user} one of the group, from the next login on")
}

/// The first folder on the way to the socket that this user may not enter.
fn closed_folder(socket: &Path) -> Option<PathBuf> {
    let mut folders: Vec<&Path> = socket.ancestors().skip(1).collect();
    folders.reverse();
    folders.into_iter().find(|folder| !folder.as_os_str().is_empty() && is_closed(folder)).map(Path::to_owned)
}

fn is_closed(folder: &Path) -> bool {
    // Whether something can be looked up in it is what counts, not whether it can be listed.
    std::fs::metadata(folder.join(".")).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

fn user_name(uid: u32) -> String {
    let account = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    account.map_or_else(|| uid.to_string(), |account| account.name)
}

fn group_name(gid: u32) -> String {
    let account = Group::from_gid(Gid::from_raw(gid)).ok().flatten();
    account.map_or_else(|| gid.to_string(), |account| account.name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn it_says_whom_the_socket_lets_in() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("s");
        let _listener = UnixListener::bind(&socket).unwrap();
        let me = user_name(Uid::effective().as_raw());
        let group = group_name(std::fs::metadata(&socket).unwrap().gid());
        for (mode, who) in [
            (0o600, format!("{me} alone (mode 600)")),
            (0o660, format!("{me} and the group {group} (mode 660)")),
        ] {
            std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(mode)).unwrap();
            let line = refusal(&socket);
            assert!(line.contains(&format!("it is open to {who}")), "{line}");
            assert!(line.contains(socket.to_str().unwrap()), "{line}");
            let is_told_of_flags = line.contains("--allow-user") && line.contains("--allow-group");
            assert_eq!(is_told_of_flags, mode == 0o600, "{line}");
        }
    }

    #[test]
    fn whom_the_group_keeps_out_is_told_how_to_get_into_it() {
        let line = into_group("no-such-user", "no-such-group", u32::MAX - 1);
        assert!(line.starts_with("'usermod -aG no-such-group no-such-user', as root,"), "{line}");
        let me = User::from_uid(Uid::effective()).unwrap().unwrap();
        let line = into_group(&me.name, "mine", me.gid.as_raw());
        assert!(line.contains("log in anew"), "{line}");
    }

    #[test]
    fn a_closed_folder_on_the_way_is_named() {
        if Uid::effective().is_root() {
            eprintln!("skipped: no folder is closed to root");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let closed = folder.path().join("closed");
        std::fs::create_dir(&closed).unwrap();
        std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o000)).unwrap();
        let line = refusal(&closed.join("s"));
        std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o700)).unwrap();
        assert!(line.contains(&format!("the folder {} keeps", closed.display())), "{line}");
    }
}
