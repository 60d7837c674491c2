//! With what a program was started: its arguments and its environment, in a file in memory for when it is executed again.
//!
//! The program in between may be a script that adds to either.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::os::process::variables::UPGRADE_VARIABLES;

/// Bytes of it, at most: what execve(2) takes.
const BYTES_MAX: u64 = 8 << 20;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) arguments: Vec<OsString>,
    pub(super) environment: Vec<OsString>,
}

impl Start {
    /// Those of this program.
    pub(super) fn own() -> Self {
        Self { arguments: std::env::args_os().collect(), environment: environment() }
    }

    /// Writes how many arguments there are, and all words, each with the NUL that ends it.
    pub(super) fn write(&self) -> io::Result<OwnedFd> {
        let mut bytes = format!("{}\0", self.arguments.len()).into_bytes();
        for word in self.arguments.iter().chain(&self.environment) {
            bytes.extend_from_slice(word.as_bytes());
            bytes.push(0);
        }
        let mut file = File::from(memfd_create(c"procbroker start", MFdFlags::MFD_CLOEXEC)?);
        file.write_all(&bytes)?;
        Ok(file.into())
    }

    /// Reads what [`write`](Self::write) has written; nothing where that makes no sense.
    pub(super) fn read(file: OwnedFd) -> Option<Self> {
        let (mut file, mut bytes) = (File::from(file), Vec::new());
        file.rewind().ok()?;
        file.take(BYTES_MAX).read_to_end(&mut bytes).ok()?;
        let words = bytes.strip_suffix(&[0])?;
        let mut words = words.split(|byte| *byte == 0);
        let count: usize = std::str::from_utf8(words.next()?).ok()?.parse().ok()?;
        let mut words: Vec<OsString> = words.map(|word| OsString::from_vec(word.to_vec())).collect();
        let environment = (count <= words.len()).then(|| words.split_off(count))?;
        Some(Self { arguments: words, environment })
    }
}

/// The environment of this program, less what it was told as the one that takes over.
pub(super) fn environment() -> Vec<OsString> {
    let inherited = std::env::vars_os().filter(|(name, _)| !UPGRADE_VARIABLES.iter().any(|own| name == own));
    let words = inherited.map(|(mut name, value)| {
        name.push("=");
        name.push(value);
        name
    });
    words.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_is_read() {
        let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        for (arguments, environment) in [(&["procbroker", "", "a b"][..], &["A=1", "B="][..]), (&["x"], &[])]
        {
            let start = Start { arguments: words(arguments), environment: words(environment) };
            assert_eq!(Start::read(start.write().unwrap()), Some(start));
        }
    }

    #[test]
    fn another_form_is_nothing() {
        for text in ["", "1", "x\0a\0", "3\0a\0b\0"] {
            let mut file = File::from(memfd_create(c"start", MFdFlags::MFD_CLOEXEC).unwrap());
            file.write_all(text.as_bytes()).unwrap();
            assert_eq!(Start::read(file.into()), None, "{text:?}");
        }
    }
}
