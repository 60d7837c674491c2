//! Arguments and environment as execve(2) takes them: a list of pointers, and the strings that they lead to.
#![expect(unsafe_code, reason = "lists of pointers, as execve takes them, to what the same value owns")]

use std::ffi::{CString, OsStr, OsString, c_char};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::ptr;

use nix::errno::Errno;

use super::base_environment::BaseEnvironment;
use super::failure::{SpawnError, Step};

/// Strings with a list of pointers to them that ends with a null pointer.
#[derive(Debug)]
pub(super) struct Strings {
    pointers: Vec<*const c_char>,
    /// What they point to, beside what is appended, and what stays where it is when this is moved.
    _owned: Vec<CString>,
    /// What else they point to.
    _shared: BaseEnvironment,
}

// SAFETY: the pointers lead to what the same value, or the program that it is a part of, owns. Nobody writes there but to
// atomic bytes.
unsafe impl Send for Strings {}
// SAFETY: as for `Send`.
unsafe impl Sync for Strings {}

impl Strings {
    /// The address of the list, as a number.
    pub(super) fn address(&self) -> usize {
        self.pointers.as_ptr().expose_provenance()
    }

    /// An environment: a process's own variables, and those of the others that it has not itself.
    pub(super) fn environment(
        own: Vec<(OsString, OsString)>,
        inherited: BaseEnvironment,
    ) -> Result<Self, SpawnError> {
        let mut names: Vec<&OsStr> = own.iter().map(|(name, _)| name.as_os_str()).collect();
        names.sort_unstable();
        let others = inherited.iter().filter(|(name, ..)| names.binary_search(name).is_err());
        let others: Vec<*const c_char> = others.map(|(_, _, text)| text.as_ptr()).collect();
        let own = own.into_iter().map(variable).collect::<Result<Vec<CString>, _>>()?;
        let pointers = own.iter().map(|text| text.as_ptr()).chain(others).chain([ptr::null()]).collect();
        Ok(Self { pointers, _owned: own, _shared: inherited })
    }

    /// Adds a string at the end that somebody else owns, who lives as long.
    pub(super) fn append(&mut self, string: *const c_char) {
        self.pointers.pop();
        self.pointers.extend([string, ptr::null()]);
    }
}

impl FromIterator<CString> for Strings {
    fn from_iter<T: IntoIterator<Item = CString>>(strings: T) -> Self {
        let owned: Vec<CString> = strings.into_iter().collect();
        let pointers = owned.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect();
        Self { pointers, _owned: owned, _shared: BaseEnvironment::default() }
    }
}

/// Without its NUL byte, a string would silently be a shorter one to the kernel.
pub(super) fn c_string(text: OsString, step: Step) -> Result<CString, SpawnError> {
    CString::new(text.into_vec()).map_err(|_| SpawnError::refused(step, Errno::EINVAL))
}

fn variable((name, value): (OsString, OsString)) -> Result<CString, SpawnError> {
    if name.as_bytes().contains(&b'=') {
        return Err(SpawnError::refused(Step::Exec, Errno::EINVAL));
    }
    let mut assignment = name;
    assignment.push("=");
    assignment.push(value);
    c_string(assignment, Step::Exec)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(own: &[(&str, &str)], inherited: &[(&str, &str)]) -> Vec<String> {
        let pair = |&(name, value): &(&str, &str)| (OsString::from(name), OsString::from(value));
        let own = own.iter().map(pair).collect();
        let strings = Strings::environment(own, inherited.iter().map(pair).collect()).unwrap();
        let (last, pointers) = strings.pointers.split_last().unwrap();
        assert!(last.is_null());
        // SAFETY: each leads to a string that `strings` owns or shares.
        let text = |pointer: &*const c_char| {
            unsafe { std::ffi::CStr::from_ptr(*pointer) }.to_str().unwrap().to_owned()
        };
        pointers.iter().map(text).collect()
    }

    #[test]
    fn a_process_has_its_own_variables_and_those_of_all_that_it_has_not_itself() {
        let shared = [("A", "1"), ("AB", "2=3"), ("B", "")];
        assert_eq!(environment(&[], &shared), ["A=1", "AB=2=3", "B="]);
        assert_eq!(environment(&[("C", "5"), ("AB", "4")], &shared), ["C=5", "AB=4", "A=1", "B="]);
        assert_eq!(environment(&[("A", "x")], &[("A\0", "1"), ("A", "\0")]), ["A=x"]);
    }
}
