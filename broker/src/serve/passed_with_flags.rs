//! Flags of the command line that mean nothing to a socket which systemd has made, and what does.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::cli::{ServeArguments, WRITE_BY_OTHERS_THAN_THE_OWNER};

/// Says in the log which flags have no effect on a socket that was passed, and what stands in the way of those who are
/// allowed.
pub(super) fn warn(arguments: &ServeArguments, socket: &Path) {
    let mode = std::fs::metadata(socket).ok().map(|metadata| metadata.mode() & 0o777);
    for line in lines(arguments, socket, mode) {
        tracing::warn!("{line}");
    }
}

/// One line for each; the mode is that of the socket's file, where it has one.
fn lines(arguments: &ServeArguments, socket: &Path, mode: Option<u32>) -> Vec<String> {
    let mut lines = Vec::new();
    if arguments
        .socket
        .as_ref()
        .is_some_and(|path| std::path::absolute(path).is_ok_and(|path| path != socket))
    {
        lines.push(without_effect("--socket", "ListenStream=", socket));
    }
    if arguments.socket_mode != ServeArguments::SOCKET_MODE {
        lines.push(without_effect("--socket-mode", "SocketMode=", socket));
    }
    if arguments.socket_group.is_some() {
        lines.push(without_effect("--socket-group", "SocketGroup=", socket));
    }
    if let Some(mode) =
        mode.filter(|mode| arguments.allows_others() && mode & WRITE_BY_OTHERS_THAN_THE_OWNER == 0)
    {
        lines.push(format!(
            "--allow-user and --allow-group let nobody in while only its owner may write to the socket {} (mode \
             {mode:03o}); open it with SocketMode=0660 and SocketGroup= in its unit, procbroker.socket",
            socket.display()
        ));
    }
    lines
}

fn without_effect(flag: &str, instead: &str, socket: &Path) -> String {
    format!(
        "{flag} has no effect on the socket {}, which was made by systemd: set {instead} in its unit, procbroker.socket",
        socket.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(flags: &[&str], mode: u32) -> Vec<String> {
        let arguments = ServeArguments::parsed(flags).unwrap();
        lines(&arguments, Path::new("/run/procbroker/procbroker.sock"), Some(mode))
    }

    #[test]
    fn every_flag_without_an_effect_is_named_with_what_has_it() {
        for (flags, instead) in [
            (["--socket", "/elsewhere.sock"], "ListenStream="),
            (["--socket-mode", "660"], "SocketMode="),
            (["--socket-group", "0"], "SocketGroup="),
        ] {
            let said = said(&flags, 0o600);
            assert_eq!(said.len(), 1, "{said:?}");
            assert!(said[0].starts_with(flags[0]) && said[0].contains(instead), "{said:?}");
        }
        assert_eq!(said(&["--socket", "/run/procbroker/procbroker.sock"], 0o600), Vec::<String>::new());
    }

    #[test]
    fn those_who_are_allowed_and_whom_the_socket_keeps_out_are_told_of() {
        let said = said(&["--allow-user", "33"], 0o600);
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains("(mode 600)") && said[0].contains("SocketGroup="), "{said:?}");
        assert_eq!(self::said(&["--allow-user", "33"], 0o660), Vec::<String>::new());
        assert_eq!(self::said(&[], 0o600), Vec::<String>::new());
    }
}
