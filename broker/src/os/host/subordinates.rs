//! Reads which users are numbers that an account has beside its own (subuid(5)): whoever has the account can be each of them.

use std::fs;
use std::io;
use std::path::Path;

use procbroker_core::UserRange;

/// Where they are listed. Those that a directory service gives are not among them.
pub const FILE: &str = "/etc/subuid";

/// Reads the ranges of all accounts; none where there is no such file.
///
/// # Errors
/// What the system has against reading it.
pub fn read(file: &Path) -> io::Result<Vec<UserRange>> {
    match fs::read(file) {
        Ok(text) => Ok(String::from_utf8_lossy(&text).lines().filter_map(range).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// The range of a line, `ACCOUNT:FIRST:COUNT`. What reads otherwise gives nobody anything (newuidmap(1)).
fn range(line: &str) -> Option<UserRange> {
    let mut fields = line.trim().split(':').skip(1).map(|field| field.parse().ok());
    let (first, count) = (fields.next()??, fields.next()??);
    fields.next().is_none().then_some(UserRange { first, count })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_gives_an_account_a_range() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("subuid");
        assert_eq!(read(&file).unwrap(), []);
        fs::write(
            &file,
            b"# a:1:2:3\nalice:100000:65536\n1001:165536:65536\n\nbob:x:1\nbob:1\nb\xe9:1:2:3\n",
        )
        .unwrap();
        let expected = [100_000, 165_536].map(|first| UserRange { first, count: 65_536 });
        assert_eq!(read(&file).unwrap(), expected);
        assert!(read(folder.path()).is_err(), "a folder cannot be read");
    }
}
