//! The probe behind a seccomp filter, as a container's runtime sets one up.
#![expect(unsafe_code, reason = "installs a seccomp filter")]

use libc::{BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, c_long, sock_filter, sock_fprog};

use super::*;

/// From here on this process and its children get an error number from a system call.
fn refuse(number: c_long, errno: Errno) {
    let statement = |code: u32, jt, k: u32| sock_filter { code: code.try_into().unwrap(), jt, jf: 0, k };
    // Is it this call (the first field of `struct seccomp_data`)? If not, let it through.
    let mut filter = [
        statement(BPF_LD | BPF_W | BPF_ABS, 0, 0),
        statement(BPF_JMP | BPF_JEQ | BPF_K, 1, number.try_into().unwrap()),
        statement(BPF_RET | BPF_K, 0, libc::SECCOMP_RET_ALLOW),
        statement(BPF_RET | BPF_K, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
    ];
    let program = sock_fprog { len: 4, filter: filter.as_mut_ptr() };
    // SAFETY: it takes no memory.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    // SAFETY: it reads the program and the four statements that it points to.
    assert_eq!(
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) },
        0
    );
}

#[test]
fn without_clone3_the_probe_finds_clone_and_without_that_it_says_so() {
    if !alone("filtered::without_clone3_the_probe_finds_clone_and_without_that_it_says_so") {
        return;
    }
    let scene = Scene::new();
    let true_program = || scene.spec(&["/bin/true"]);
    refuse(libc::SYS_clone3, Errno::ENOSYS);
    let probed = SpawnFacilities::probe().unwrap();
    assert_eq!(probed.method, CloneMethod::Clone);
    assert_eq!(run(probed, true_program()), 0);

    let clone3 = SpawnFacilities { method: CloneMethod::Clone3 };
    assert_eq!(refusal(clone3, true_program()), ("clone", Errno::ENOSYS));

    refuse(libc::SYS_clone, Errno::EACCES);
    let error = SpawnFacilities::probe().unwrap_err().to_string();
    let expected = "no process can be created here: could not create a process: EACCES: Permission denied";
    assert_eq!(error, expected);
}

#[test]
fn want_of_processes_is_no_reason_for_another_way() {
    if !alone("filtered::want_of_processes_is_no_reason_for_another_way") {
        return;
    }
    refuse(libc::SYS_clone3, Errno::EAGAIN);
    let error = SpawnFacilities::probe().unwrap_err().to_string();
    assert!(error.contains("could not create a process: EAGAIN"), "{error}");
}
