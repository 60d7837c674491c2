//! Replays what the fuzzer has kept: whatever was once found stays mended.

use std::fs;
use std::path::Path;

use procbroker_fuzz::TARGETS;

#[test]
fn no_target_fails_on_its_corpus() {
    for target in TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
        let mut count = 0;
        for file in fs::read_dir(&folder).unwrap() {
            let path = file.unwrap().path();
            println!("{}", path.display());
            (target.run)(&fs::read(path).unwrap());
            count += 1;
        }
        assert!(count > 0, "{} is empty", folder.display());
    }
}
