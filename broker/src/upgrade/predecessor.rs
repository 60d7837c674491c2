//! The program that was executed in this process before, and has handed over: what it has given, and the way back to it.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::prctl;
use nix::unistd::fexecve;

use super::error::UpgradeError;
use super::handover::Inherited;
use super::manifest::{self, InheritedDescriptors};
use super::program::{c_strings, keep_open, told};
use super::start::Start;
use crate::os::host::nofile::raise_nofile;
use crate::os::process::descriptor::own_by_number;
use crate::os::process::probation;
use crate::os::process::variables::{FAILURE_VARIABLE, FORMER_VARIABLE, MANIFEST_VARIABLE, START_VARIABLE};

/// Bytes of what is said, at most.
const FAILURE_BYTES_MAX: usize = 4 << 10;

/// The program before this one, as long as it may be executed again.
///
/// Everything that it has handed over stays open by its number until this is dropped: this program has other descriptors
/// of the same, or shares them.
#[derive(Debug)]
pub struct Predecessor {
    manifest: RawFd,
    held: InheritedDescriptors,
    program: Option<(OwnedFd, Start)>,
    failure: Option<String>,
}

impl Predecessor {
    /// The program that has handed over to this one; none where this one was started in any other way. To be called once.
    #[must_use]
    pub fn of_this_process() -> Option<Self> {
        let manifest = named_by(MANIFEST_VARIABLE)?;
        // A script in between may have lowered the limit (`ulimit -n`), and the broker has more descriptors than that already.
        // Where this is refused, whatever cannot be opened says so.
        let _raised = raise_nofile();
        let open = |variable| {
            let number = named_by(variable).filter(|number| *number > libc::STDERR_FILENO)?;
            own_by_number(number).ok()
        };
        let failure = open(FAILURE_VARIABLE).map(said);
        if failure.is_some() {
            take_back_name();
        }
        let program = open(FORMER_VARIABLE).zip(open(START_VARIABLE).and_then(Start::read));
        if program.is_some() {
            probation::begin();
        }
        Some(Self { manifest, held: InheritedDescriptors::default(), program, failure })
    }

    /// Why another program could not take over from the one that this is, so that this one goes on.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Takes what was handed over.
    ///
    /// # Errors
    /// When it makes no sense.
    pub fn take_over(&mut self) -> Result<Inherited, UpgradeError> {
        manifest::unpack(self.manifest, &mut self.held)
    }

    /// Becomes that program again, and tells it why this one cannot take over. It returns only when that fails: with
    /// nothing where there is no way back.
    #[must_use]
    pub fn go_back(&self, failure: &str) -> Option<UpgradeError> {
        let (program, start) = self.program.as_ref()?;
        Some(match self.execute(program.as_fd(), start, failure) {
            Ok(never) => match never {},
            Err(error) => error,
        })
    }

    fn execute(
        &self,
        program: BorrowedFd<'_>,
        start: &Start,
        failure: &str,
    ) -> Result<std::convert::Infallible, UpgradeError> {
        let said = say(failure).map_err(UpgradeError::Pack)?;
        let kept: Vec<BorrowedFd<'_>> = self.held.all().chain([said.as_fd()]).collect();
        keep_open(&kept)?;
        let words = [told(MANIFEST_VARIABLE, self.manifest), told(FAILURE_VARIABLE, said.as_raw_fd())];
        let returned = |errno| UpgradeError::Return { errno };
        let arguments = c_strings(start.arguments.iter().cloned());
        let environment = c_strings(start.environment.iter().cloned().chain(words));
        let (arguments, environment) = arguments.zip(environment).ok_or_else(|| returned(Errno::EINVAL))?;
        fexecve(program, &arguments, &environment).map_err(returned)
    }
}

/// What is no descriptor's number.
const NONE: RawFd = -1;

/// The descriptor that a variable names for this process, which is [none](NONE) where that makes no sense.
fn named_by(variable: &str) -> Option<RawFd> {
    let told = std::env::var(variable).ok()?;
    let (process, descriptor) = told.split_once(':')?;
    // A program that was started from within this environment is not meant.
    (process.parse() == Ok(std::process::id())).then(|| descriptor.parse().unwrap_or(NONE))
}

/// Writes to a file in memory why a program could not take over.
fn say(failure: &str) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create(c"procbroker failure", MFdFlags::MFD_CLOEXEC)?);
    let bytes = failure.as_bytes();
    file.write_all(bytes.get(..FAILURE_BYTES_MAX).unwrap_or(bytes))?;
    Ok(file.into())
}

/// Reads what [`say`] has written, as far as it can be read.
fn said(file: OwnedFd) -> String {
    let (mut file, mut bytes) = (File::from(file), Vec::new());
    let _ = file.rewind();
    let _ = file.take(FAILURE_BYTES_MAX as u64).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A program that is executed by its descriptor is called by the number of that (`fexecve(3)`), in ps(1) and pgrep(1).
fn take_back_name() {
    let called = std::env::args_os().next().unwrap_or_default();
    let name = Path::new(&called).file_name().unwrap_or_default();
    if let Ok(name) = CString::new(name.as_bytes()) {
        // The old name is an ugly one, and does no harm.
        let _ = prctl::set_name(&name);
    }
}
