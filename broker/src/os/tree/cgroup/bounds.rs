//! The bounds of one group: written before anything lives in it, and what the kernel has killed there for want of memory.

use std::fs::File;
use std::io::Write;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use procbroker_core::ResourceBound;
use procbroker_protocol::create::Resources;

use super::tree::{open_in, read_text};

/// The order in which bounds are written: the soft one of memory first, since the hard one is never below it for long.
const ORDER: [ResourceBound; 6] = [
    ResourceBound::PidsMax,
    ResourceBound::CpuWeight,
    ResourceBound::CpuMax,
    ResourceBound::IoWeight,
    ResourceBound::MemoryHigh,
    ResourceBound::MemoryMax,
];

/// Whether any bound is asked for.
pub(super) fn are_any(resources: &Resources) -> bool {
    ORDER.iter().any(|bound| bound.value(resources).is_some())
}

/// Sets all bounds of a group: a few short writes to files that are no disk's.
///
/// # Errors
/// ENOENT where the controller of one is not enabled, and what the kernel has against its value.
pub(super) fn set(directory: BorrowedFd<'_>, resources: &Resources) -> Result<(), Errno> {
    ORDER
        .iter()
        .filter_map(|bound| Some((bound, bound.value(resources)?)))
        .try_for_each(|(bound, value)| write(directory, bound.file(), &value))
}

/// Sets those bounds again that are not there any more, because their controller was disabled meanwhile. One that is there
/// is not touched.
///
/// # Errors
/// As [`set`]; the others are set all the same.
pub(super) fn restore(directory: BorrowedFd<'_>, resources: &Resources) -> Result<(), Errno> {
    let mut result = Ok(());
    for (bound, value) in ORDER.iter().filter_map(|bound| Some((bound, bound.value(resources)?))) {
        let is_there = read_text(directory, bound.file())
            .is_some_and(|text| text.trim() != default(*bound) || text.trim() == value);
        if !is_there {
            result = write(directory, bound.file(), &value).and(result);
        }
    }
    result
}

/// What is read of a bound that was never set.
fn default(bound: ResourceBound) -> &'static str {
    match bound {
        ResourceBound::MemoryMax | ResourceBound::MemoryHigh | ResourceBound::PidsMax => "max",
        ResourceBound::CpuWeight => "100",
        ResourceBound::CpuMax => "max 100000",
        ResourceBound::IoWeight => "default 100",
    }
}

fn write(directory: BorrowedFd<'_>, file: &str, value: &str) -> Result<(), Errno> {
    let mut file = File::from(open_in(directory, file, OFlag::O_WRONLY)?);
    file.write_all(value.as_bytes()).map_err(|error| super::tree::errno(&error))
}

/// How many processes of a group, or of one below it, the kernel has killed for want of memory: whoever's bound that was
/// (`memory.events`). None where the controller is not enabled.
pub(super) fn memory_kills(directory: BorrowedFd<'_>) -> Option<u64> {
    let text = read_text(directory, "memory.events")?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")).and_then(|number| number.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsFd;

    use super::*;

    fn asked() -> Resources {
        Resources {
            memory_max: Some(1 << 29),
            cpu_weight: Some(50),
            cpu_max: Some("1.5".parse().unwrap()),
            pids_max: Some(64),
            memory_high: Some(1 << 28),
            io_weight: Some(200),
        }
    }

    /// A fake group in which these files have these contents.
    fn group(files: &[(&str, &str)]) -> (tempfile::TempDir, File) {
        let folder = tempfile::tempdir().unwrap();
        for (file, text) in files {
            fs::write(folder.path().join(file), text).unwrap();
        }
        let directory = File::open(folder.path()).unwrap();
        (folder, directory)
    }

    fn empty() -> Vec<(&'static str, &'static str)> {
        ResourceBound::ALL.map(|bound| (bound.file(), "")).into()
    }

    #[test]
    fn each_bound_is_written_to_its_file_and_nothing_else_is() {
        let (folder, directory) = group(&empty());
        set(directory.as_fd(), &asked()).unwrap();
        let read = |file: &str| fs::read_to_string(folder.path().join(file)).unwrap();
        let written = ResourceBound::ALL.map(|bound| (bound.file(), read(bound.file())));
        let expected = [
            ("memory.max", "536870912"),
            ("memory.high", "268435456"),
            ("cpu.weight", "50"),
            ("cpu.max", "150000 100000"),
            ("pids.max", "64"),
            ("io.weight", "200"),
        ];
        assert_eq!(written, expected.map(|(file, text)| (file, text.to_owned())));
        let (folder, directory) = group(&empty());
        set(directory.as_fd(), &Resources { pids_max: Some(3), ..Resources::default() }).unwrap();
        let written =
            ResourceBound::ALL.map(|bound| fs::read_to_string(folder.path().join(bound.file())).unwrap());
        assert_eq!(written, ["", "", "", "", "3", ""]);
    }

    #[test]
    fn a_bound_without_a_file_fails_and_none_at_all_needs_none() {
        let (_folder, directory) = group(&[("pids.max", "")]);
        assert_eq!(set(directory.as_fd(), &asked()), Err(Errno::ENOENT));
        assert_eq!(set(directory.as_fd(), &Resources::default()), Ok(()));
        assert!(are_any(&asked()) && !are_any(&Resources::default()));
    }

    #[test]
    fn a_bound_that_was_lost_is_restored_and_one_that_is_there_is_not_touched() {
        let (folder, directory) = group(&[
            ("memory.max", "max\n"),
            ("memory.high", "123\n"),
            ("cpu.weight", "100\n"),
            ("cpu.max", "max 100000\n"),
            ("pids.max", "64\n"),
        ]);
        assert_eq!(restore(directory.as_fd(), &asked()), Err(Errno::ENOENT), "there is no io.weight");
        let read = |file: &str| fs::read_to_string(folder.path().join(file)).unwrap();
        // A fake file keeps what was longer than what is written over it.
        assert!(read("memory.max").starts_with("536870912"));
        assert_eq!(read("memory.high"), "123\n");
        assert!(read("cpu.weight").starts_with("50"));
        assert!(read("cpu.max").starts_with("150000 100000"));
        assert_eq!(read("pids.max"), "64\n");
    }

    #[test]
    fn kills_for_want_of_memory_are_read_from_their_line() {
        let text = "low 0\nhigh 7\nmax 9\noom 4\noom_kill 3\noom_group_kill 0\n";
        let (_folder, directory) = group(&[("memory.events", text)]);
        assert_eq!(memory_kills(directory.as_fd()), Some(3));
        let (_folder, directory) = group(&[("memory.events", "oom_kill \n")]);
        assert_eq!(memory_kills(directory.as_fd()), None);
        let (_folder, directory) = group(&[]);
        assert_eq!(memory_kills(directory.as_fd()), None);
    }
}
