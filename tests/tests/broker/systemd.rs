//! Under a real systemd, with the project's own units: socket activation, an orderly stop, an exit when idle; crashes,
//! and stops in which the broker is killed; bounds on what children use.

mod heavy {
    use std::path::Path;
    use std::process::{Command, Stdio};

    use crate::harness::procbroker_in;

    /// The status by which the script says that the machine does not allow it.
    const SKIPPED: i32 = 77;

    #[test]
    fn the_units_activate_stop_and_come_back_under_a_real_systemd() {
        play("activation");
    }

    #[test]
    fn no_child_is_lost_in_a_crash_nor_left_by_a_stop_under_a_real_systemd() {
        play("recovery");
    }

    #[test]
    fn a_child_over_its_memory_is_killed_and_told_so_and_nobody_else_is_touched_under_a_real_systemd() {
        play("resources");
    }

    fn play(scenario: &str) {
        let project = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the project's folder");
        let tests = project.join("tests/systemd");
        let units = project.join("broker/systemd");
        // The scenario knows the program by its own name.
        let folder = tempfile::tempdir().expect("a scratch folder");
        let output = Command::new(tests.join("boot"))
            .arg(tests.join(scenario))
            .args([tests.join("requests.bash"), procbroker_in(folder.path())])
            .args([
                units.join("procbroker.socket"),
                units.join("procbroker.service"),
                project.join("README.md"),
            ])
            .stdin(Stdio::null())
            .output()
            .expect("the script that boots a systemd");
        let said = String::from_utf8_lossy(&output.stdout);
        let complaints = String::from_utf8_lossy(&output.stderr);
        match output.status.code() {
            Some(0) => {}
            Some(SKIPPED) => eprintln!("skipped: {complaints}{said}"),
            status => panic!("status {status:?}\n{said}\n{complaints}"),
        }
    }
}
