//! The simulator proves something only if it finds bugs: it has to find each of those in `tests/planted`.

#[cfg(test)]
mod planted;
#[cfg(test)]
mod scratch;

#[cfg(test)]
mod heavy {
    use std::path::PathBuf;
    use std::sync::mpsc::sync_channel;
    use std::thread;

    use crate::planted::Planted;
    use crate::scratch::{Scratch, Verdict, root, run};

    /// How many bugs there are at the least.
    const PLANTED_MIN: usize = 70;
    /// How many seeds are run with a bug: all are found by fewer, and most by far.
    const SEEDS: u64 = 80_000;
    /// How many seeds show that the copy works. That nothing is found without a bug is shown by the simulator's own test.
    const SEEDS_WITHOUT_A_BUG: u64 = 1_000;
    /// How many simulators wait for their run: to build one takes longer.
    const BUILT_AHEAD: usize = 2;

    /// What is wrong about a planted bug, or that it was found.
    fn judge(bug: &Planted, built: Result<PathBuf, String>) -> Result<String, String> {
        match run(&built?, SEEDS) {
            Verdict::Found { seed, check } if bug.found_by.contains(&check) => {
                Ok(format!("{}: {check} with seed {seed}", bug.name))
            }
            Verdict::Found { seed, check } => {
                Err(format!("{}: found by {check} with seed {seed}, and not by {:?}", bug.name, bug.found_by))
            }
            Verdict::Nothing => Err(format!("{}: not found ({})", bug.name, bug.why)),
            Verdict::Broken { output } => Err(format!("{}: does not run:\n{output}", bug.name)),
        }
    }

    #[test]
    fn the_simulator_finds_every_planted_bug() {
        let mut bugs = Planted::all(&root().join("tests/planted"));
        assert!(bugs.len() >= PLANTED_MIN, "only {} bugs are planted", bugs.len());
        if let Ok(wanted) = std::env::var("PROCBROKER_PLANTED") {
            bugs.retain(|bug| bug.name.contains(&wanted));
        }
        let scratch = Scratch::new();
        let healthy = scratch.build(None).expect("the copy without a bug");
        match run(&healthy, SEEDS_WITHOUT_A_BUG) {
            Verdict::Nothing => {}
            other @ (Verdict::Found { .. } | Verdict::Broken { .. }) => {
                panic!("nothing is planted: {other:?}")
            }
        }
        let (built, to_run) = sync_channel(BUILT_AHEAD);
        let missed: Vec<String> = thread::scope(|scope| {
            scope.spawn(|| {
                for bug in &bugs {
                    let changed = bug.plant(scratch.source(&bug.file));
                    let result = changed.and_then(|changed| scratch.build(Some((bug, &changed))));
                    built.send((bug, result)).expect("somebody runs it");
                }
                drop(built);
            });
            let mut missed = Vec::new();
            for (bug, built) in to_run {
                let result = judge(bug, built);
                println!("{}", result.as_ref().unwrap_or_else(|missed| missed));
                missed.extend(result.err());
            }
            missed
        });
        assert!(missed.is_empty(), "{} planted bugs are not found:\n{}", missed.len(), missed.join("\n"));
    }
}
