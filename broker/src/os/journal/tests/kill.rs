use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use super::*;

/// Where the process that is killed writes.
const PATH: &str = "PROCBROKER_TEST_JOURNAL";

/// What a line about a receipt begins with.
const RECEIPT: &str = "written ";

/// Kills it whichever way the test ends.
struct Victim(Child);

impl Drop for Victim {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Writes one child after the other, with some ahead of the receipts, and says what is written.
fn write_on(path: &Path) {
    let mut writing = Writing::open(path);
    for number in 1_u128.. {
        let receipt = Some(run(number));
        let safety = if number % 64 == 0 { Safety::Power } else { Safety::Process };
        let _ =
            writing.journal.submit(Entry { child: child(number), change: intent(number), safety, receipt });
        writing.submit(number, progress("on"));
        if number > 8 {
            let (run, result) = writing.receipts.recv().unwrap();
            result.unwrap();
            println!("{RECEIPT}{}", run.child.as_uuid().as_u128());
        }
    }
}

#[test]
fn what_was_written_survives_a_kill_and_nothing_earlier_is_missing() {
    if let Some(path) = std::env::var_os(PATH) {
        return write_on(Path::new(&path));
    }
    let (_folder, path) = scratch();
    let (_, module) = module_path!().split_once("::").unwrap();
    let name = format!("{module}::what_was_written_survives_a_kill_and_nothing_earlier_is_missing");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &name, "--nocapture", "--test-threads=1"]).env(PATH, &path);
    let mut victim = Victim(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap());
    let mut lines =
        BufReader::new(victim.0.stdout.take().unwrap()).lines().map_while(std::result::Result::ok);
    let mut next =
        || lines.find_map(|line| line.split_once(RECEIPT).map(|(_, number)| number.parse::<u128>().unwrap()));

    let before = iter::from_fn(&mut next).take(300).last().unwrap();
    let rows = check(&path).unwrap();
    assert!(rows.len() >= usize::try_from(before).unwrap(), "what is written is seen beside the writer");
    let before = iter::from_fn(&mut next).take(3_000).last().unwrap();
    victim.0.kill().unwrap();
    let last = iter::from_fn(&mut next).last().unwrap_or(before);
    drop(victim);

    assert!(beside(&path, "-wal").exists(), "it was killed indeed");
    let (_store, stored) = open(&path).unwrap();
    assert!(stored.rows.len() >= usize::try_from(last).unwrap(), "{} of {last}", stored.rows.len());
    for (found, number) in stored.rows.iter().zip(1..) {
        let progress = found.progress.as_ref().map(|progress| progress.text.as_str());
        assert_eq!(*found, row(number, progress));
        // Only of the last one, the intent may have been taken before there was more.
        assert!(progress.is_some() || number >= last, "{found:?}");
    }
    assert_eq!(stored.host, Some(host()));
}
