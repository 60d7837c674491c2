//! What a process is called between its birth and its program, so that the next broker can tell whose it is.
//!
//! Until it executes its program a child has the command line and the environment of the broker. A broker that is
//! killed meanwhile leaves it behind with nothing that says which child it is, but this: the name of its one thread,
//! which everybody can read (`proc_pid_stat(5)`), also where the memory behind it is closed to root itself. `execve(2)`
//! takes it away.

use procbroker_protocol::ChildId;

/// Bytes of the name of a thread, the NUL at its end included (`TASK_COMM_LEN` in the kernel's `linux/sched.h`).
const BYTES: usize = 16;

/// What all of them begin with.
const PREFIX: &[u8; 2] = b"pb";

/// The version of a child's id; what stands for its probes has another one.
const CHILD_VERSION: usize = 7;

/// The name of a process that has not executed its program.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct LaunchName([u8; BYTES]);

impl LaunchName {
    /// That of a process of no child.
    #[cfg(test)]
    pub(in crate::os) const NOBODY: Self = Self(*b"pb-nobody\0\0\0\0\0\0\0");

    /// That of the processes of a child: the last 48 bits of its id, all of them random, in hexadecimal. Those of the commands
    /// that ask whether it is ready have another one, by the version of the id that they go by.
    #[must_use]
    pub fn of(child: ChildId) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let bytes = child.as_uuid().into_bytes();
        let digits = bytes.iter().skip(10).flat_map(|byte| [byte >> 4, byte & 0xF]);
        let digits = digits.filter_map(|digit| DIGITS.get(usize::from(digit)).copied());
        let kind = if child.as_uuid().get_version_num() == CHILD_VERSION { b'-' } else { b'?' };
        let mut name = [0; BYTES];
        for (place, byte) in name.iter_mut().zip(PREFIX.iter().copied().chain([kind]).chain(digits)) {
            *place = byte;
        }
        Self(name)
    }

    /// Whether a process that is called so is one of these.
    #[must_use]
    pub fn is(&self, name: &[u8]) -> bool {
        self.0.split(|byte| *byte == 0).next() == Some(name)
    }

    /// Whether it may be anybody's.
    #[must_use]
    pub fn is_one(name: &[u8]) -> bool {
        name.starts_with(PREFIX)
    }

    /// Where the kernel can read it, as a number.
    pub(super) fn address(&self) -> usize {
        self.0.as_ptr().expose_provenance()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_one_child_from_another_and_fits() {
        let child = |number| ChildId::from_uuid(uuid::Uuid::from_u128(number));
        let name = LaunchName::of(child(0x0123_4567_89ab_7def_fedc_ba98_7654_3210));
        assert!(name.is(b"pb-ba9876543210") && LaunchName::is_one(b"pb-ba9876543210"));
        assert!(!name.is(b"pb-ba987654321") && !LaunchName::is_one(b"sleep"));
        assert_ne!(name, LaunchName::of(child(1)));
        assert_eq!(name.0.last(), Some(&0), "the kernel reads up to a NUL");
    }
}
