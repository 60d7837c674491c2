//! A writer that stops at a length.

use std::io;

/// Appends to a vector, and fails instead of appending more than a given number of bytes.
#[derive(Debug)]
pub(crate) struct Capped<'a> {
    out: &'a mut Vec<u8>,
    left: usize,
    over: bool,
}

impl<'a> Capped<'a> {
    /// A writer of at most `cap` bytes to the end of `out`.
    pub(crate) fn new(out: &'a mut Vec<u8>, cap: usize) -> Self {
        Self { out, left: cap, over: false }
    }

    /// Whether something was not written because of the cap.
    pub(crate) fn is_over(&self) -> bool {
        self.over
    }

    #[inline]
    fn append(&mut self, bytes: &[u8]) -> bool {
        let Some(left) = self.left.checked_sub(bytes.len()) else {
            self.over = true;
            return false;
        };
        self.left = left;
        self.out.extend_from_slice(bytes);
        true
    }
}

impl bincode::enc::write::Writer for Capped<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> Result<(), bincode::error::EncodeError> {
        if self.append(bytes) { Ok(()) } else { Err(bincode::error::EncodeError::UnexpectedEnd) }
    }
}

impl io::Write for Capped<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes).map(|()| bytes.len())
    }

    #[inline]
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.append(bytes) { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
