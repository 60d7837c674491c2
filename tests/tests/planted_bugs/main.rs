//! The simulator proves something only if it finds bugs: it has to find each of those in `tests/planted`.

#[cfg(test)]
mod planted;
#[cfg(test)]
mod scratch;

#[cfg(test)]
mod heavy {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use crate::planted::Planted;
    use crate::scratch::{Scratch, Verdict, root};

    /// How many copies are built side by side.
    const COPIES: usize = 2;
    /// How many bugs there are at the least.
    const PLANTED_MIN: usize = 60;

    /// What is wrong about a planted bug, or that it was found.
    fn try_one(scratch: &Scratch, bug: &Planted) -> Result<String, String> {
        let changed = bug.plant(scratch.source(&bug.file))?;
        match scratch.run(Some((&bug.file, &changed))) {
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
        let bugs = Planted::all(&root().join("tests/planted"));
        assert!(bugs.len() >= PLANTED_MIN, "only {} bugs are planted", bugs.len());
        // Without a bug it finds nothing: else what it finds with one would prove nothing.
        match Scratch::new(0).run(None) {
            Verdict::Nothing => {}
            other @ (Verdict::Found { .. } | Verdict::Broken { .. }) => {
                panic!("nothing is planted: {other:?}")
            }
        }
        let next = AtomicUsize::new(0);
        let missed: Vec<Option<String>> = thread::scope(|scope| {
            let workers: Vec<_> = (0..COPIES)
                .map(|number| {
                    let (next, bugs) = (&next, &bugs);
                    scope.spawn(move || {
                        let scratch = Scratch::new(number);
                        let mut results = Vec::new();
                        while let Some(bug) = bugs.get(next.fetch_add(1, Ordering::Relaxed)) {
                            let result = try_one(&scratch, bug);
                            println!("{}", result.as_ref().unwrap_or_else(|missed| missed));
                            results.push(result.err());
                        }
                        results
                    })
                })
                .collect();
            workers.into_iter().flat_map(|worker| worker.join().expect("a worker")).collect()
        });
        let missed: Vec<String> = missed.into_iter().flatten().collect();
        assert!(missed.is_empty(), "{} planted bugs are not found:\n{}", missed.len(), missed.join("\n"));
    }
}
