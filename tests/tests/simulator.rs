//! Runs the simulator over many seeds.

#[cfg(test)]
mod seeds {
    use procbroker_tests::sim::run::Trace;
    use procbroker_tests::sim::sweep::{run_seed, sweep};

    /// How many seeds the ordinary run takes.
    const SEEDS: u64 = 100_000;

    fn number(variable: &str) -> Option<u64> {
        std::env::var(variable).ok().map(|text| text.parse().expect("a number of seeds"))
    }

    /// Prints what one seed does, and fails if it finds something.
    fn look_at(seed: u64) {
        let mut trace = Trace::kept();
        let result = run_seed(seed, &mut trace);
        for line in trace.lines() {
            println!("{line}");
        }
        if let Err(finding) = result {
            panic!("the simulator found, with PROCBROKER_SEED={seed}:\n{finding}");
        }
    }

    #[test]
    fn every_seed_keeps_every_promise() {
        if let Some(seed) = number("PROCBROKER_SEED") {
            return look_at(seed);
        }
        let seeds = number("PROCBROKER_SEEDS").unwrap_or(SEEDS);
        let first = number("PROCBROKER_FIRST_SEED").unwrap_or(0);
        let verdict = sweep(first..first.saturating_add(seeds), 2);
        if let Some((seed, _)) = verdict.finding {
            look_at(seed);
            panic!("seed {seed} found something once, and nothing when it was run again");
        }
        let tally = verdict.tally;
        println!("{seeds} seeds from {first} on: {tally}");
        assert!(tally.turns > seeds * 20, "the seeds hardly do anything: {tally}");
        assert!(tally.least() >= seeds / 1_000, "the seeds do not go everywhere: {tally}");
    }

    #[test]
    fn a_seed_replays_exactly() {
        for seed in 0..300 {
            let (mut first, mut second) = (Trace::kept(), Trace::kept());
            let results = (run_seed(seed, &mut first), run_seed(seed, &mut second));
            assert_eq!(results.0, results.1);
            assert_eq!(first.hash(), second.hash(), "seed {seed}");
            assert!(first.lines().len() > 5, "seed {seed} does nothing");
        }
    }
}
