//! What the kernel knows about a process.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use serde_json::Value;

use super::PATIENCE;

/// A process, by its pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process(pub(crate) i64);

impl Process {
    /// The process of a child that the broker says is running.
    ///
    /// What spawns a process goes on as soon as that has let go of its memory, in the midst of execve(2). The arguments are among
    /// the last things that the kernel sets up there, so that all else is settled when they can be read.
    pub(crate) fn of(child: &Value) -> Self {
        Self::executing(child["pid"].as_i64().expect("the pid of a live child"))
    }

    /// The process with this pid, once its program has been executed wholly.
    pub(crate) fn executing(pid: i64) -> Self {
        let process = Self(pid);
        let began = Instant::now();
        while process.arguments().is_empty() {
            assert!(began.elapsed() < PATIENCE, "the process {pid} does not run");
            std::thread::yield_now();
        }
        process
    }

    /// Whether it is there and no zombie.
    pub(crate) fn is_alive(self) -> bool {
        fs::read_to_string(self.path("stat")).is_ok_and(|stat| !after_name(&stat).starts_with('Z'))
    }

    /// The environment that its program was started with.
    pub(crate) fn environment(self) -> BTreeMap<String, String> {
        let bytes = fs::read(self.path("environ")).expect("the environment of a process");
        String::from_utf8(bytes)
            .expect("an environment in UTF-8")
            .split_terminator('\0')
            .filter_map(|variable| variable.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    }

    /// The numbers of its open descriptors and what they are.
    ///
    /// A program that was executed just now has each of its libraries and locales open for a moment. It is looked at again
    /// then: what is to be found are descriptors that it was given.
    pub(crate) fn descriptors(self) -> BTreeMap<u32, PathBuf> {
        let began = Instant::now();
        loop {
            let descriptors = self.descriptors_by_now();
            let is_loading = descriptors
                .values()
                .any(|file| ["/usr", "/lib", "/lib64", "/etc"].iter().any(|folder| file.starts_with(folder)));
            if !is_loading {
                return descriptors;
            }
            assert!(began.elapsed() < PATIENCE, "{self:?} holds {descriptors:?}");
            std::thread::yield_now();
        }
    }

    fn descriptors_by_now(self) -> BTreeMap<u32, PathBuf> {
        let entries = fs::read_dir(self.path("fd")).expect("the descriptors of a process");
        entries
            .flatten()
            .filter_map(|entry| {
                let number = entry.file_name().to_str().and_then(|name| name.parse().ok()).expect("a number");
                // It may be closed since it was listed.
                Some((number, fs::read_link(entry.path()).ok()?))
            })
            .collect()
    }

    /// A line of its status, such as `SigIgn`: its words.
    pub(crate) fn status(self, key: &str) -> Vec<String> {
        let text = fs::read_to_string(self.path("status")).expect("the status of a process");
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {key} in {text}")).split_whitespace().map(str::to_owned).collect()
    }

    /// Its process group and its session.
    pub(crate) fn group_and_session(self) -> (i64, i64) {
        let stat = fs::read_to_string(self.path("stat")).expect("the status of a process");
        let fields: Vec<i64> =
            after_name(&stat).split_whitespace().skip(1).map(|field| field.parse().unwrap_or(0)).collect();
        (fields[1], fields[2])
    }

    /// A resource limit, as `/proc` names it: soft and hard.
    pub(crate) fn limit(self, name: &str) -> (String, String) {
        let text = fs::read_to_string(self.path("limits")).expect("the limits of a process");
        let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("a limit of that name");
        let mut words = line.split_whitespace().map(str::to_owned);
        (words.next().unwrap(), words.next().unwrap())
    }

    /// Its working directory.
    pub(crate) fn cwd(self) -> PathBuf {
        fs::read_link(self.path("cwd")).expect("the working directory of a process")
    }

    /// Its arguments.
    pub(crate) fn arguments(self) -> Vec<String> {
        let bytes = fs::read(self.path("cmdline")).expect("the command line of a process");
        String::from_utf8_lossy(&bytes).split_terminator('\0').map(str::to_owned).collect()
    }

    fn path(self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{file}", self.0))
    }
}

/// The fields of `/proc/PID/stat` after the name, which can contain anything.
fn after_name(stat: &str) -> &str {
    stat.rsplit_once(')').map_or("", |(_, rest)| rest.trim_start())
}
