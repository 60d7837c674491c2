//! A variable of a process's environment that has the number of the process itself in it, which is known to that alone.
#![expect(unsafe_code, reason = "a raw system call")]

use std::ffi::c_char;
use std::sync::atomic::{AtomicU8, Ordering};

use super::raw::call;

/// Digits of the largest number that a process can have, and more.
const DIGITS_MAX: usize = 10;

/// The variable, with room for the number, which the process writes there before it executes its program.
#[derive(Debug)]
pub(super) struct OwnPid {
    /// Its name, an equals sign, and the number with a NUL byte, whose places are after `value_at`.
    text: Box<[AtomicU8]>,
    value_at: usize,
}

impl OwnPid {
    /// Makes room for a variable of this name.
    pub(super) fn new(name: &'static str) -> Self {
        let start = name.bytes().chain([b'=']);
        let text: Box<[AtomicU8]> = start.chain([0; DIGITS_MAX + 1]).map(AtomicU8::new).collect();
        Self { text, value_at: name.len() + 1 }
    }

    /// Where the variable is, which ends with a NUL byte at any time.
    pub(super) fn pointer(&self) -> *const c_char {
        self.text.as_ptr().cast()
    }

    /// Writes the number of the calling process. It allocates nothing, and cannot fail.
    pub(super) fn write(&self) {
        // SAFETY: it takes no memory.
        let Ok(mut rest) = (unsafe { call(libc::SYS_getpid, [0; 4]) }) else { return };
        let mut digits = [0_u8; DIGITS_MAX];
        for digit in digits.iter_mut().rev() {
            *digit = b'0'.wrapping_add(u8::try_from(rest % 10).unwrap_or_default());
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        let places = self.text.iter().skip(self.value_at);
        // The places of leading zeros were not written: without them a number is read and compared as it is elsewhere.
        let number = digits.iter().skip_while(|digit| **digit == 0).chain([&0]);
        for (place, byte) in places.zip(number) {
            place.store(*byte, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;

    fn value(own_pid: &OwnPid) -> String {
        // SAFETY: it ends with a NUL byte, and nobody writes there meanwhile.
        unsafe { CStr::from_ptr(own_pid.pointer()) }.to_str().unwrap().to_owned()
    }

    #[test]
    fn the_number_takes_the_place_of_a_longer_one() {
        let own_pid = OwnPid::new("A_PID");
        assert_eq!(value(&own_pid), "A_PID=");
        for place in own_pid.text.iter().skip(6).take(DIGITS_MAX) {
            place.store(b'9', Ordering::Relaxed);
        }
        assert_eq!(value(&own_pid), "A_PID=9999999999");
        for _ in 0..2 {
            own_pid.write();
            assert_eq!(value(&own_pid), format!("A_PID={}", std::process::id()));
        }
    }
}
