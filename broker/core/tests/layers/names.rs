//! One meaning a name: of the types that a module can import, no two have the same one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use super::imports::{sources, without_tests};
use super::root;

/// A crate, with those whose public types its modules can import.
struct Crate {
    folder: &'static str,
    imports: &'static [&'static str],
}

const CRATES: [Crate; 4] = [
    Crate { folder: "protocol/src", imports: &[] },
    Crate { folder: "broker/core/src", imports: &["protocol/src"] },
    Crate { folder: "broker/src", imports: &["protocol/src", "broker/core/src", "client/src"] },
    Crate { folder: "client/src", imports: &["protocol/src"] },
];

/// The names that several types have, with the files that define them and why they may.
const SHARED: [(&str, &[&str], &str); 8] = [
    (
        "Broker",
        &["broker/core/src/broker.rs", "client/src/broker.rs", BLOCKING],
        "the broker, and what a client holds of it",
    ),
    (
        "Child",
        &[
            "protocol/src/child.rs",
            "broker/core/src/child.rs",
            "client/src/child.rs",
            "client/src/blocking/child.rs",
        ],
        "a child, what is shown of it, and what a client holds of it",
    ),
    ("Command", &["client/src/command.rs", BLOCKING], "an alias of the very same type"),
    (
        "Created",
        &["protocol/src/response.rs", "client/src/child.rs", "client/src/blocking/child.rs"],
        "the answer to `create`, and the same with a handle in it",
    ),
    (
        "Error",
        &["protocol/src/error.rs", "client/src/error.rs"],
        "the broker's error, and a client's, of which that is one variant",
    ),
    ("Events", &["client/src/subscription.rs", BLOCKING], "the same stream, awaited and blocking"),
    ("LogFollow", &["client/src/subscription.rs", BLOCKING], "the same stream, awaited and blocking"),
    (
        "Refusal",
        &["protocol/src/binary.rs", "protocol/src/json_lines.rs"],
        "a message that cannot be read, in each of the two encodings",
    ),
];

/// Whose types have the names of those that they wait for, as everywhere.
const BLOCKING: &str = "client/src/blocking.rs";

#[test]
fn no_two_types_that_a_module_can_import_have_the_same_name() {
    let definitions: BTreeMap<&str, Vec<Definition>> =
        CRATES.iter().map(|of_crate| (of_crate.folder, definitions(of_crate.folder))).collect();
    let mut several = BTreeMap::new();
    for Crate { folder, imports } in &CRATES {
        let public = imports.iter().flat_map(|folder| &definitions[folder]).filter(|found| found.is_public);
        let mut files: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for Definition { name, file, .. } in definitions[folder].iter().chain(public) {
            files.entry(name).or_default().push(file);
        }
        assert!(files.len() > 50, "these are not all types of {folder}: {files:?}");
        for (name, files) in files.into_iter().filter(|(_, files)| files.len() > 1) {
            several.entry(name).or_insert_with(BTreeSet::new).extend(files);
        }
    }
    let shared = SHARED.iter().map(|(name, files, _)| (*name, files.iter().copied().collect())).collect();
    assert_eq!(several, shared, "left: the names with two meanings; right: those that have a reason to");
}

/// The definition of a type that other files see.
struct Definition {
    name: String,
    file: String,
    /// Whether other crates see it, or would if they saw its module.
    is_public: bool,
}

/// Reads which types a crate defines that are visible in all of it, or beyond.
fn definitions(folder: &str) -> Vec<Definition> {
    let mut all = Vec::new();
    for path in sources(&root().join(folder)) {
        let file = path.strip_prefix(root()).expect("it is below");
        if file.iter().any(|part| part == "tests" || part == "tests.rs") {
            continue;
        }
        let text = without_tests(&fs::read_to_string(&path).expect("a source"));
        all.extend(text.lines().filter_map(|line| {
            let (is_public, rest) = visible(line)?;
            Some(Definition { name: type_name(rest)?, file: file.display().to_string(), is_public })
        }));
    }
    all
}

/// Whether an item is public, and what stands behind its visibility; none where only its neighbours see it.
fn visible(line: &str) -> Option<(bool, &str)> {
    if let Some(rest) = line.strip_prefix("pub ") {
        return Some((true, rest));
    }
    let (scope, rest) = line.strip_prefix("pub(")?.split_once(") ")?;
    (scope == "crate" || scope.starts_with("in crate")).then_some((false, rest))
}

fn type_name(item: &str) -> Option<String> {
    let (kind, rest) = item.split_once(' ')?;
    let is_name = |char: &char| char.is_alphanumeric() || *char == '_';
    ["enum", "struct", "trait", "type", "union"]
        .contains(&kind)
        .then(|| rest.chars().take_while(is_name).collect())
}
