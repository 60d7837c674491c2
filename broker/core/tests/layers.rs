//! The layers of the sources: no two modules of the core import each other in a ring, and nothing imports what is above.

#![expect(clippy::expect_used, reason = "a source that cannot be read fails the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The modules of a crate, each with those that it imports.
type Imports = BTreeMap<String, BTreeSet<String>>;

#[test]
fn no_two_modules_of_the_core_import_each_other_in_a_ring() {
    let imports = imports(&root().join("broker/core/src"));
    assert!(imports.len() > 20, "these are not all modules of the core: {imports:#?}");
    let reaches = |from: &String, to: &String| {
        let mut seen = BTreeSet::new();
        let mut next: Vec<&String> = imports[from].iter().collect();
        while let Some(module) = next.pop() {
            if seen.insert(module) {
                next.extend(&imports[module]);
            }
        }
        seen.contains(to)
    };
    let ring: Vec<&String> = imports.keys().filter(|module| reaches(module, module)).collect();
    assert!(ring.is_empty(), "these modules import each other in a ring: {ring:?}");
}

#[test]
fn every_module_of_the_core_stands_in_the_table_of_layers_and_imports_nothing_from_above() {
    let imports = imports(&root().join("broker/core/src"));
    let layers = layers();
    let layer = |module: &str| {
        let mut parts: Vec<&str> = module.split("::").collect();
        while !parts.is_empty() {
            if let Some(layer) = layers.get(&parts.join("::")) {
                return *layer;
            }
            parts.pop();
        }
        panic!("{module} stands in no layer of the table in lib.rs")
    };
    let all = imports.iter().flat_map(|(module, imported)| imported.iter().map(move |other| (module, other)));
    let named = all.filter(|(module, other)| !module.is_empty() && !other.is_empty());
    let upwards: Vec<(&String, &String)> =
        named.filter(|(module, other)| layer(other) < layer(module)).collect();
    assert!(upwards.is_empty(), "these modules import what stands above them: {upwards:?}");
}

/// Reads which row of the table in `lib.rs` each module stands in: the first one is the uppermost.
fn layers() -> BTreeMap<String, usize> {
    let page = fs::read_to_string(root().join("broker/core/src/lib.rs")).expect("the front page of the core");
    let rows = page.lines().skip_while(|line| !line.starts_with("//! | layer |")).skip(2);
    let rows = rows.take_while(|line| line.starts_with("//! |"));
    let modules = rows.filter_map(|row| row.split('|').nth(2)).enumerate();
    modules
        .flat_map(|(row, cell)| {
            cell.split('`').skip(1).step_by(2).map(move |module| (module.to_owned(), row))
        })
        .collect()
}

#[test]
fn protocol_and_core_depend_on_nothing_that_is_above_them() {
    assert_eq!(own_crates(&root().join("protocol")), BTreeSet::new());
    assert_eq!(own_crates(&root().join("broker/core")), BTreeSet::from(["procbroker-protocol".to_owned()]));
}

#[test]
fn the_core_has_no_clock_no_file_no_process_and_no_lock() {
    for path in sources(&root().join("broker/core/src")) {
        let text = without_tests(&path);
        for word in [
            "std::fs",
            "std::io",
            "std::net",
            "std::os",
            "std::process",
            "std::sync::Mutex",
            "std::thread",
            "std::time::Instant",
            "SystemTime",
            "HashMap",
            "HashSet",
            "async fn",
            "tokio",
            "nix::",
        ] {
            assert!(!text.contains(word), "{} names {word}", path.display());
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Reads which modules of a crate each module imports.
fn imports(sources_of: &Path) -> Imports {
    let files: BTreeMap<String, PathBuf> =
        sources(sources_of).into_iter().map(|path| (module(sources_of, &path), path)).collect();
    let known = |path: &str| {
        let parts: Vec<&str> = path.split("::").collect();
        (1..=parts.len()).rev().map(|length| parts[..length].join("::")).find(|name| files.contains_key(name))
    };
    let read = |name: &String, path: &Path| {
        let text = without_tests(path);
        let uses =
            text.split("use crate::").skip(1).filter_map(|rest| rest.split(';').next()).flat_map(leaves);
        let elsewhere = text.replace("use crate::", "");
        let inline = elsewhere.split("crate::").skip(1).map(|rest| {
            rest.chars().take_while(|char| char.is_alphanumeric() || "_:".contains(*char)).collect()
        });
        uses.chain(inline).filter_map(|path: String| known(&path)).filter(|module| module != name).collect()
    };
    files.iter().map(|(name, path)| (name.clone(), read(name, path))).collect()
}

/// Takes a tree of imports apart: `a::{b, c::{d}}` is `a::b` and `a::c::d`.
fn leaves(tree: &str) -> Vec<String> {
    let tree: String = tree.split_whitespace().collect();
    let Some((prefix, rest)) = tree.split_once('{') else {
        return vec![tree];
    };
    let mut depth = 0;
    let items = rest.strip_suffix('}').unwrap_or(rest).split(|char| {
        depth += match char {
            '{' => 1,
            '}' => -1,
            _ => 0,
        };
        char == ',' && depth == 0
    });
    items.filter(|item| !item.is_empty()).flat_map(leaves).map(|item| format!("{prefix}{item}")).collect()
}

fn module(root: &Path, path: &Path) -> String {
    let relative = path.strip_prefix(root).expect("it is below").with_extension("");
    let name = relative.iter().map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("::");
    if name == "lib" { String::new() } else { name }
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the sources");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths
        .flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}

fn without_tests(path: &Path) -> String {
    let text = fs::read_to_string(path).expect("a source");
    text.split("#[cfg(test)]").next().unwrap_or_default().to_owned()
}

/// Reads which crates of this workspace a crate depends on.
fn own_crates(folder: &Path) -> BTreeSet<String> {
    let manifest = fs::read_to_string(folder.join("Cargo.toml")).expect("a manifest");
    let dependencies = manifest.split("[dependencies]").nth(1).unwrap_or_default();
    let names = dependencies.lines().take_while(|line| !line.starts_with('['));
    names
        .filter_map(|line| line.split(['.', ' ', '=']).next())
        .filter(|name| name.starts_with("procbroker"))
        .map(str::to_owned)
        .collect()
}
