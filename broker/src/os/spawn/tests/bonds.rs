//! What a child of another user has of the broker's process: nothing.
#![expect(unsafe_code, reason = "keyrings, priorities and I/O classes of this thread have no safe wrapper")]

use std::ffi::CString;

use nix::unistd::{Gid, Uid};

use super::*;

/// `KEYCTL_JOIN_SESSION_KEYRING`, and the keyring of the session (`keyctl(2)`).
const JOIN_SESSION_KEYRING: usize = 1;
const SESSION_KEYRING: i32 = -3;

const OOM_SCORE: &str = "/proc/self/oom_score_adj";

fn nobody() -> Credentials {
    let (uid, gid) = (Uid::from_raw(65_534), Gid::from_raw(65_534));
    Credentials::Become { uid, gid, groups: Vec::new() }
}

/// The output of a script, for another user and for the broker's own.
fn of_both(way: SpawnFacilities, scene: &Scene, script: &str) -> [String; 2] {
    [nobody(), Credentials::Unchanged].map(|credentials| {
        assert_eq!(run(way, SpawnSpec { credentials, ..scene.shell(script) }), 0, "{way:?}");
        scene.take_output()
    })
}

/// Gives this thread a session keyring with a key of this name; false where the system has no keyrings.
fn have_a_key(name: &str) -> bool {
    let name = CString::new(name).unwrap();
    let none = std::ptr::null::<libc::c_char>();
    // SAFETY: without a name it takes no memory.
    if unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, none) } < 0 {
        return false;
    }
    let (kind, secret) = (c"user", c"secret");
    // SAFETY: it reads two texts, and as many bytes of a third as are given.
    let key = unsafe {
        libc::syscall(libc::SYS_add_key, kind.as_ptr(), name.as_ptr(), secret.as_ptr(), 6, SESSION_KEYRING)
    };
    key > 0
}

#[test]
fn a_child_of_another_user_has_none_of_the_brokers_keys() {
    if !is_root() {
        return;
    }
    let name = format!("procbroker-test-{}", std::process::id());
    if !have_a_key(&name) {
        eprintln!("skipped: there are no keyrings here");
        return;
    }
    let scene = Scene::new();
    for way in every_way() {
        let [others, own] = of_both(way, &scene, &format!("grep -c {name} /proc/keys; true"));
        assert_eq!((others.trim(), own.trim()), ("0", "1"), "{way:?}");
    }
}

#[test]
fn a_child_of_another_user_has_none_of_the_brokers_priorities() {
    if !is_root() {
        return;
    }
    let scene = Scene::new();
    let set = |nice: i32, class: i32, policy: i32| {
        // SAFETY: they take numbers, and one `struct sched_param`, and change this thread alone.
        unsafe {
            let parameters: libc::sched_param = std::mem::zeroed();
            assert_eq!(libc::sched_setscheduler(0, policy, &raw const parameters), 0);
            assert_eq!(libc::setpriority(libc::PRIO_PROCESS, 0, nice), 0);
            assert_eq!(libc::syscall(libc::SYS_ioprio_set, 1, 0, class << 13), 0);
        }
    };
    // A nice value, and the I/O class for idle times.
    set(-3, 3, libc::SCHED_BATCH);
    let script = "cut -d' ' -f19,41 /proc/$$/stat; ionice -p $$";
    let told: Vec<[String; 2]> = every_way().map(|way| of_both(way, &scene, script)).collect();
    set(0, 0, libc::SCHED_OTHER);
    for [others, own] in told {
        assert_eq!(others.lines().next(), Some("0 0"), "nice and policy");
        assert!(others.contains("none"), "{others}");
        assert_eq!(own.lines().next(), Some("-3 3"));
        assert!(own.contains("idle"), "{own}");
    }
}

#[test]
fn a_child_of_another_user_is_not_spared_with_the_broker_when_memory_runs_out() {
    let name = "bonds::a_child_of_another_user_is_not_spared_with_the_broker_when_memory_runs_out";
    if !is_root() || !alone(name) {
        return;
    }
    // Without CAP_SYS_RESOURCE there is nothing below zero, and the launcher is told that the other value is a privilege.
    let (own, is_told) = if fs::write(OOM_SCORE, "-500").is_ok() { ("-500", false) } else { ("500", true) };
    fs::write(OOM_SCORE, own).unwrap();
    let scene = Scene::new();
    // That it can't be taken back: as a user, it can be set to that and to nothing below.
    let script = format!("cat {OOM_SCORE}; echo -1 2>/dev/null >{OOM_SCORE} || echo stays");
    for way in every_way() {
        let told = [nobody(), Credentials::Unchanged].map(|credentials| {
            let mut starter = Starter::new(way);
            starter.0.is_spared |= is_told;
            let plan = SpawnPlan::prepare(SpawnSpec { credentials, ..scene.shell(&script) }).unwrap();
            reap(&starter.spawn(plan).unwrap());
            scene.take_output()
        });
        assert_eq!(told[0], "0\nstays\n", "{way:?}");
        assert!(told[1].starts_with(&format!("{own}\n")), "{way:?}: {told:?}");
        assert_eq!(fs::read_to_string(OOM_SCORE).unwrap().trim(), own, "the broker's own stays, {way:?}");
    }
}

#[test]
fn what_a_child_is_denied_no_program_gives_it() {
    if !is_root() {
        return;
    }
    let script = "grep -E '^(CapPrm|CapEff|CapInh|CapBnd|NoNewPrivs)' /proc/self/status | cut -f2";
    for way in every_way() {
        for (no_new_privs, told) in [(false, "0"), (true, "1")] {
            let scene = Scene::new();
            // CAP_CHOWN, CAP_SETGID, and one that no kernel has.
            let restraint = Restraint { no_new_privs, capabilities: Some(1 << 63 | 1 << 6 | 1) };
            assert_eq!(run(way, SpawnSpec { restraint, ..scene.shell(script) }), 0);
            let [none, some] = ["0000000000000000", "0000000000000041"];
            let expected = format!("{none}\n{some}\n{some}\n{some}\n{told}\n");
            assert_eq!(scene.take_output(), expected, "{way:?}");
            // Its output becomes its user's own.
            let scene = Scene::new();
            let spec = SpawnSpec { restraint, credentials: nobody(), ..scene.shell(script) };
            assert_eq!(run(way, spec), 0);
            let expected = format!("{none}\n{none}\n{none}\n{some}\n{told}\n");
            assert_eq!(scene.take_output(), expected, "{way:?}");
        }
        let scene = Scene::new();
        assert_eq!(run(way, scene.shell(script)), 0);
        assert!(scene.take_output().ends_with("\n0\n"), "nothing has come off on the broker");
    }
}
