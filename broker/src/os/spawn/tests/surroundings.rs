//! What a child finds around itself: descriptors, session, signals, ids, limits, directory, environment.
#![expect(unsafe_code, reason = "closes and opens the test's own descriptors by number, ignores a signal")]

use std::fs;
use std::os::fd::IntoRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{
    SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, pthread_sigmask, sigaction,
};
use nix::unistd::{Gid, Uid, getgid, getgroups, getuid};

use super::*;
use crate::os::spawn::{Resource, ResourceLimit};

/// The value of a line of `/proc/self/status`.
fn status<'a>(text: &'a str, key: &str) -> &'a str {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).unwrap().trim()
}

#[test]
fn a_child_has_no_descriptor_but_0_1_and_2() {
    // Hundreds that a child would inherit, were they not closed on purpose.
    let inheritable: Vec<_> = (0..300)
        .map(|_| {
            let file = fs::File::open("/dev/null").unwrap();
            fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
            file
        })
        .collect();
    let scene = Scene::new();
    for way in every_way() {
        // 3 is the directory that `ls` reads.
        assert_eq!(run(way, scene.spec(&["ls", "/proc/self/fd"])), 0);
        assert_eq!(scene.take_output(), "0\n1\n2\n3\n", "{way:?}");
    }
    for file in &inheritable {
        fcntl(file, FcntlArg::F_GETFD).expect("it is still open in the parent");
    }
}

#[test]
fn streams_go_where_they_were_sent() {
    let scene = Scene::new();
    let script = "echo out; echo err >&2; readlink /proc/self/fd/0";
    for way in every_way() {
        assert_eq!(run(way, scene.shell(script)), 0);
        assert_eq!(fs::metadata(scene.path("out")).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(scene.take_output(), "out\nerr\n/dev/null\n");

        let stderr = ErrorOutput::Own(Output::Append(scene.path("err")));
        assert_eq!(run(way, SpawnSpec { stderr, ..scene.shell(script) }), 0);
        assert_eq!(run(way, scene.shell("echo appended")), 0);
        assert_eq!(scene.take_output(), "out\n/dev/null\nappended\n");
        assert_eq!(fs::read_to_string(scene.path("err")).unwrap(), "err\n");
        scene.make_output("err");

        let null = scene.shell("test \"$(readlink /proc/$$/fd/1 /proc/$$/fd/2)\" = '/dev/null\n/dev/null'");
        assert_eq!(run(way, SpawnSpec { stdout: Output::Null, ..null }), 0, "{way:?}");
    }
}

/// The descriptors 0, 1 and 2 of this process, closed until it is dropped.
struct StreamsClosed([i32; 3]);

impl StreamsClosed {
    fn new() -> Self {
        let kept = [0, 1, 2].map(|descriptor| {
            // SAFETY: it duplicates one of this process's descriptors above those that a test opens.
            let copy = unsafe { libc::fcntl(descriptor, libc::F_DUPFD_CLOEXEC, 100) };
            assert!(copy >= 100);
            copy
        });
        for descriptor in 0..3 {
            // SAFETY: nobody uses it until it is restored: this test is alone in its process.
            unsafe { libc::close(descriptor) };
        }
        Self(kept)
    }
}

impl Drop for StreamsClosed {
    fn drop(&mut self) {
        for (target, copy) in (0..).zip(self.0) {
            // SAFETY: both are this type's own.
            unsafe { libc::dup2(copy, target) };
        }
    }
}

#[test]
fn a_broker_without_0_1_and_2_gives_them_to_its_children() {
    if !alone("surroundings::a_broker_without_0_1_and_2_gives_them_to_its_children") {
        return;
    }
    let scene = Scene::new();
    let script = "ls /proc/self/fd; readlink /proc/self/fd/0 /proc/$$/fd/2; echo err >&2";
    for way in every_way() {
        let own =
            SpawnSpec { stderr: ErrorOutput::Own(Output::Append(scene.path("err"))), ..scene.shell(script) };
        let inherited = SpawnSpec { stderr: ErrorOutput::Own(Output::Inherit), ..scene.shell(script) };
        let closed = StreamsClosed::new();
        let codes = [run(way, scene.shell(script)), run(way, own), run(way, inherited)];
        drop(closed);
        assert_eq!(codes, [0; 3], "{way:?}");
        let out = scene.path("out").canonicalize().unwrap().display().to_string();
        let err = scene.path("err").canonicalize().unwrap().display().to_string();
        let expected = format!(
            "0\n1\n2\n3\n/dev/null\n{out}\nerr\n0\n1\n2\n3\n/dev/null\n{err}\n0\n1\n2\n3\n/dev/null\n/dev/null\n"
        );
        assert_eq!(scene.take_output(), expected, "{way:?}");
    }
}

#[test]
fn inherited_output_is_the_brokers_own() {
    if !alone("surroundings::inherited_output_is_the_brokers_own") {
        return;
    }
    let scene = Scene::new();
    for way in every_way() {
        let closed = StreamsClosed::new();
        let file = fs::File::create(scene.path("broker")).unwrap().into_raw_fd();
        // SAFETY: 1 is closed, and 0 was the lowest free number. (With close-on-exec, which must not count.)
        let moved = unsafe { libc::dup3(file, 1, libc::O_CLOEXEC) };
        // SAFETY: it was opened above.
        unsafe { libc::close(file) };
        let code = run(way, SpawnSpec { stdout: Output::Inherit, ..scene.shell("echo out; echo err >&2") });
        drop(closed);
        assert_eq!((moved, code), (1, 0));
        assert_eq!(fs::read_to_string(scene.path("broker")).unwrap(), "out\nerr\n", "{way:?}");
    }
}

#[test]
fn a_child_finds_its_own_number_in_its_environment_where_it_is_to() {
    let scene = Scene::new();
    for way in every_way() {
        let script = "test \"$OWN\" = $$ && tr '\\0' '\\n' < /proc/$$/environ";
        let spec = || SpawnSpec { own_pid: Some("OWN"), ..scene.shell(script) };
        let spawned = spawn(way, spec()).unwrap();
        assert_eq!(reap(&spawned), 0, "{way:?}");
        assert_eq!(scene.take_output(), format!("PATH=/usr/bin:/bin\nOWN={}\n", spawned.pid));
        // A program that is looked for is told too.
        let found = SpawnSpec { command: ["sh", "-c", script].map(Into::into).into(), ..spec() };
        assert_eq!(run(way, found), 0, "{way:?}");
        scene.take_output();
    }
}

#[test]
fn a_child_leads_its_own_session_and_group() {
    let scene = Scene::new();
    for way in every_way() {
        let spawned = spawn(way, scene.shell("cat /proc/$$/stat")).unwrap();
        assert_eq!(reap(&spawned), 0);
        let text = scene.take_output();
        let fields: Vec<_> = text.rsplit(')').next().unwrap().split_whitespace().collect();
        let pid = spawned.pid.to_string();
        assert_eq!(fields[1], std::process::id().to_string(), "the parent");
        assert_eq!(fields[2..4], [pid.as_str(), pid.as_str()], "the group and the session");
        assert_eq!(fields[4], "0", "no controlling terminal");
    }
}

#[test]
fn no_signal_is_blocked_or_ignored_in_a_child_and_the_brokers_mask_stays() {
    let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    // SAFETY: the test binary does without this signal. (SIGPIPE is ignored by the runtime.)
    unsafe { sigaction(Signal::SIGUSR2, &ignore) }.unwrap();
    let mut blocked = SigSet::empty();
    blocked.add(Signal::SIGTERM);
    blocked.add(Signal::SIGWINCH);
    let mut before = SigSet::empty();
    pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&blocked), Some(&mut before)).unwrap();
    let mask =
        || fs::read_to_string("/proc/thread-self/status").map(|text| status(&text, "SigBlk").to_owned());
    let own = mask().unwrap();
    assert_ne!(own, "0000000000000000");
    let scene = Scene::new();
    for way in every_way() {
        assert_eq!(run(way, scene.spec(&["cat", "/proc/self/status"])), 0);
        let text = scene.take_output();
        for set in ["SigBlk", "SigIgn", "SigCgt", "SigPnd", "ShdPnd"] {
            assert_eq!(status(&text, set), "0000000000000000", "{set}, {way:?}");
        }
        refusal(way, scene.spec(&["/missing"]));
        assert_eq!(mask().unwrap(), own, "{way:?}");
    }
    pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&before), None).unwrap();
}

#[test]
fn umask_directory_environment_and_limits_are_as_given() {
    let scene = Scene::new();
    let script = "umask; pwd; env | grep -v ^PWD= | sort; ulimit -Sn; ulimit -Hn; ulimit -c; : > made";
    for way in every_way() {
        let spec = SpawnSpec {
            env: vec![
                ("B".into(), "2 =".into()),
                ("A".into(), "".into()),
                ("PATH".into(), "/usr/bin:/bin".into()),
            ],
            cwd: scene.folder.path().into(),
            umask: Mode::from_bits_truncate(0o137),
            rlimits: vec![
                ResourceLimit { resource: Resource::NOFILE, soft: 17, hard: 23 },
                ResourceLimit::both(Resource::from_name("core").unwrap(), 0),
            ],
            ..scene.shell(script)
        };
        assert_eq!(run(way, spec), 0);
        let folder = scene.folder.path().canonicalize().unwrap();
        let expected = format!("0137\n{}\nA=\nB=2 =\nPATH=/usr/bin:/bin\n17\n23\n0\n", folder.display());
        assert_eq!(scene.take_output(), expected, "{way:?}");
        assert_eq!(fs::metadata(scene.path("made")).unwrap().permissions().mode() & 0o777, 0o640);
        fs::remove_file(scene.path("made")).unwrap();
    }
}

#[test]
fn an_unchanged_identity_keeps_ids_and_groups() {
    let scene = Scene::new();
    let mut own: Vec<_> = getgroups().unwrap().iter().map(|group| group.as_raw()).collect();
    own.sort_unstable();
    for way in every_way() {
        assert_eq!(run(way, scene.spec(&["cat", "/proc/self/status"])), 0);
        let text = scene.take_output();
        let mut groups: Vec<u32> =
            status(&text, "Groups").split_whitespace().map(|group| group.parse().unwrap()).collect();
        groups.sort_unstable();
        assert_eq!(groups, own);
        assert!(status(&text, "Uid").starts_with(&getuid().to_string()));
        assert!(status(&text, "Gid").starts_with(&getgid().to_string()));
    }
}

#[test]
fn a_child_takes_on_every_id_of_its_user_and_keeps_no_capability() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    fs::set_permissions(scene.folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let nobody = || Credentials::Become {
        uid: Uid::from_raw(65_534),
        gid: Gid::from_raw(65_533),
        groups: vec![Gid::from_raw(7), Gid::from_raw(12)],
    };
    for way in every_way() {
        // Its output is opened by the broker: it could not have entered the folder itself.
        let spec = SpawnSpec { credentials: nobody(), ..scene.spec(&["cat", "/proc/self/status"]) };
        assert_eq!(run(way, spec), 0);
        let output = fs::metadata(scene.path("out")).unwrap();
        assert_eq!((output.uid(), output.gid(), output.mode() & 0o777), (65_534, 65_533, 0o600));
        let text = scene.take_output();
        assert_eq!(status(&text, "Uid"), "65534\t65534\t65534\t65534", "{way:?}");
        assert_eq!(status(&text, "Gid"), "65533\t65533\t65533\t65533");
        assert_eq!(status(&text, "Groups"), "7 12");
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(status(&text, set), "0000000000000000", "{set}");
        }
        // The working directory is entered with its permissions.
        let spec =
            SpawnSpec { credentials: nobody(), cwd: scene.folder.path().into(), ..scene.shell("true") };
        assert_eq!(refusal(way, spec), ("cwd", Errno::EACCES));
        // Nothing of that has come off on the broker.
        assert!(is_root() && getgid().as_raw() == 0);
    }
}

#[test]
fn the_memory_lent_to_a_child_cannot_be_traced_by_its_user() {
    if !is_root() || !alone("surroundings::the_memory_lent_to_a_child_cannot_be_traced_by_its_user") {
        return;
    }
    let scene = Scene::new();
    let way = every_way().next().unwrap();
    assert_eq!(run(way, scene.spec(&["/bin/true"])), 0);
    assert!(nix::sys::prctl::get_dumpable().unwrap());
    let credentials = Credentials::Become { uid: 65_534.into(), gid: 65_534.into(), groups: Vec::new() };
    assert_eq!(run(way, SpawnSpec { credentials, ..scene.spec(&["/bin/true"]) }), 0);
    assert!(!nix::sys::prctl::get_dumpable().unwrap());
}

#[test]
fn a_relative_program_starts_at_the_working_directory() {
    let scene = Scene::new();
    fs::create_dir(scene.path("bin")).unwrap();
    scene.write("bin/tool", "#!/bin/sh\necho \"$0\"", "755");
    for way in every_way() {
        let tool = |program: &str, cwd: &str, path: &str| SpawnSpec {
            cwd: scene.path(cwd),
            env: vec![("PATH".into(), path.into())],
            ..scene.spec(&[program])
        };
        assert_eq!(run(way, tool("bin/tool", "", "/bin")), 0);
        assert_eq!(run(way, tool("./tool", "bin", "/bin")), 0);
        assert_eq!(run(way, tool("tool", "bin", "/bin:")), 0);
        assert_eq!(run(way, tool("tool", "", "/bin:bin")), 0);
        assert_eq!(scene.take_output(), "bin/tool\n./tool\ntool\nbin/tool\n");
        assert_eq!(refusal(way, tool("bin/tool", "bin", "/bin")), ("exec", Errno::ENOENT));
    }
}

#[test]
fn without_a_path_the_default_one_is_searched() {
    let scene = Scene::new();
    for way in every_way() {
        assert_eq!(run(way, SpawnSpec { env: Vec::new(), ..scene.spec(&["true"]) }), 0);
    }
}

#[test]
fn launchers_work_side_by_side() {
    let scene = Scene::new();
    std::thread::scope(|scope| {
        for (thread, way) in every_way().enumerate() {
            let scene = &scene;
            scope.spawn(move || {
                let mut starter = Starter::new(way);
                for round in 0..25 {
                    let code = i32::try_from(thread * 25 + round).unwrap();
                    let plan = SpawnPlan::prepare(scene.shell(&format!("exit {code}"))).unwrap();
                    let child = starter.spawn(plan).unwrap();
                    assert!(fcntl(&child.pidfd, FcntlArg::F_GETFD).unwrap() & libc::FD_CLOEXEC != 0);
                    assert_eq!(reap(&child), code);
                    let missing = SpawnPlan::prepare(scene.spec(&["/missing"])).unwrap();
                    starter.spawn(missing).unwrap_err();
                }
                assert_eq!(children_of_this_thread(), "");
            });
        }
    });
}
