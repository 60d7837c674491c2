//! The part of a new process's environment that all have from the broker: made once, and shared by all plans.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::Arc;

/// Variables that a process has beside its own ones, which go before them. A copy is the same.
#[derive(Clone, Debug, Default)]
pub struct BaseEnvironment(Arc<[Assignment]>);

#[derive(Debug)]
struct Assignment {
    name_bytes: usize,
    text: CString,
}

impl FromIterator<(OsString, OsString)> for BaseEnvironment {
    /// What cannot be a variable, for a NUL byte in it, is left out.
    fn from_iter<T: IntoIterator<Item = (OsString, OsString)>>(variables: T) -> Self {
        let assignment = |(name, value): (OsString, OsString)| {
            let name_bytes = name.len();
            let mut text = name;
            text.push("=");
            text.push(value);
            Some(Assignment { name_bytes, text: CString::new(text.into_vec()).ok()? })
        };
        Self(variables.into_iter().filter_map(assignment).collect())
    }
}

impl BaseEnvironment {
    /// The variables: name, value, and both as `execve(2)` takes them.
    pub(in crate::os) fn iter(&self) -> impl Iterator<Item = (&OsStr, &OsStr, &CStr)> {
        self.0.iter().map(|assignment| {
            let bytes = assignment.text.as_bytes();
            let (name, rest) = bytes.split_at_checked(assignment.name_bytes).unwrap_or((bytes, b"="));
            let value = rest.strip_prefix(b"=").unwrap_or(rest);
            (OsStr::from_bytes(name), OsStr::from_bytes(value), assignment.text.as_c_str())
        })
    }

    /// The value of a variable.
    pub(in crate::os) fn get(&self, wanted: &str) -> Option<&OsStr> {
        self.iter().find(|(name, ..)| *name == wanted).map(|(_, value, _)| value)
    }
}
