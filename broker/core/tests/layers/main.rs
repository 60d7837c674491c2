//! The layers of the sources: no two modules import each other in a ring, and in the core nothing imports what is above.

#![expect(clippy::expect_used, reason = "a source that cannot be read fails the test")]

mod imports;
mod names;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use imports::{Imports, Paths, imports, sources, without_tests};

#[test]
fn no_two_modules_of_the_core_import_each_other_in_a_ring() {
    let imports = imports(&root().join("broker/core/src"), Paths::FromTheRoot);
    assert!(imports.len() > 20, "these are not all modules of the core: {imports:#?}");
    assert_eq!(rings(&imports), BTreeMap::new(), "these modules import each other in a ring");
}

#[test]
fn no_two_modules_of_the_edge_import_each_other_in_a_ring() {
    let imports = imports(&root().join("broker/src"), Paths::All);
    assert!(imports.len() > 200, "these are not all modules of the edge: {imports:#?}");
    assert_eq!(rings(&imports), BTreeMap::new(), "these modules import each other in a ring");
}

#[test]
fn no_two_folders_of_the_edge_import_each_other_in_a_ring() {
    let imports = imports(&root().join("broker/src"), Paths::All);
    let folders = imports.keys().filter_map(|module| module.rsplit_once("::")).map(|(folder, _)| folder);
    for folder in folders.chain([""]).collect::<BTreeSet<_>>() {
        let rings = rings(&below(folder, &imports));
        assert_eq!(rings, BTreeMap::new(), "what is in {folder:?} imports each other in a ring");
    }
}

/// What is right below a folder, each with what is below it, as one.
fn below(folder: &str, imports: &Imports) -> Imports {
    let prefix = if folder.is_empty() { String::new() } else { format!("{folder}::") };
    let entry = |module: &String| {
        let inside = module.strip_prefix(&prefix).filter(|inside| !inside.is_empty())?;
        Some(format!("{prefix}{}", inside.split("::").next()?))
    };
    let mut entries = Imports::new();
    for (module, imported) in imports {
        let Some(from) = entry(module) else { continue };
        let others = imported.iter().filter_map(entry).filter(|other| *other != from);
        entries.entry(from.clone()).or_default().extend(others);
    }
    entries
}

/// The modules that are reached from themselves, each with those of them that it imports.
fn rings(imports: &Imports) -> Imports {
    let reaches = |from: &String, to: &String| {
        let mut seen = BTreeSet::new();
        let mut next: Vec<&String> = imports[from].iter().collect();
        while let Some(module) = next.pop() {
            if seen.insert(module) {
                next.extend(imports.get(module).into_iter().flatten());
            }
        }
        seen.contains(to)
    };
    let in_rings: BTreeSet<&String> = imports.keys().filter(|module| reaches(module, module)).collect();
    let others = |module: &String| imports[module].iter().filter(|other| in_rings.contains(other)).cloned();
    in_rings.iter().map(|module| ((*module).clone(), others(module).collect())).collect()
}

#[test]
fn no_module_of_the_core_imports_what_is_inside_one_that_imports_it() {
    let core = imports(&root().join("broker/core/src"), Paths::FromTheRoot);
    let rings = rings(&below("", &core));
    assert_eq!(rings, BTreeMap::new(), "these, with all that is inside of them, import each other in a ring");
}

#[test]
fn every_module_of_the_core_stands_in_the_table_of_layers_and_imports_nothing_from_above() {
    let imports = imports(&root().join("broker/core/src"), Paths::All);
    let layers = layers();
    let nowhere: Vec<&String> =
        imports.keys().filter(|module| !module.is_empty() && layer(module, &layers).is_none()).collect();
    assert!(nowhere.is_empty(), "these modules stand in no layer of the table in lib.rs: {nowhere:?}");
    let all = imports.iter().flat_map(|(module, imported)| imported.iter().map(move |other| (module, other)));
    let named = all.filter(|(module, other)| !module.is_empty() && !other.is_empty());
    let upwards: Vec<(&String, &String)> =
        named.filter(|(module, other)| layer(other, &layers) < layer(module, &layers)).collect();
    assert!(upwards.is_empty(), "these modules import what stands above them: {upwards:?}");
}

#[test]
fn no_state_of_the_broker_names_the_broker_so_that_none_reaches_the_fields_of_another() {
    let imports = imports(&root().join("broker/core/src"), Paths::All);
    let naming = imports.iter().filter(|(_, imported)| imported.contains("broker")).map(|(module, _)| module);
    let folders: BTreeSet<&str> = naming.filter_map(|module| module.split("::").next()).collect();
    assert_eq!(folders, BTreeSet::from(["handle", "life", "methods", "shutdown"]));
}

/// The row of the table in which a module stands, or else the one that it is in.
fn layer(module: &str, layers: &BTreeMap<String, usize>) -> Option<usize> {
    let parts: Vec<&str> = module.split("::").collect();
    (1..=parts.len()).rev().find_map(|length| layers.get(&parts[..length].join("::"))).copied()
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
        let text = without_tests(&fs::read_to_string(&path).expect("a source"));
        for (module, name) in [("std::time", "Instant"), ("std::sync", "Mutex"), ("std::sync", "RwLock")] {
            assert!(!is_listed(&text, module, name), "{} imports {module}::{name}", path.display());
        }
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

/// Whether a source imports a name from a module in braces: by its path it would be found as text.
fn is_listed(text: &str, module: &str, name: &str) -> bool {
    let opening = format!("use {module}::{{");
    let lists = text.split(&opening).skip(1).filter_map(|rest| rest.split('}').next());
    lists.flat_map(|list| list.split([',', ' ', '\n'])).any(|imported| imported == name)
}

#[test]
fn what_is_imported_in_braces_is_seen() {
    let text = "use std::time::{Duration, Instant};\nuse std::sync::{\n    Arc,\n    Mutex,\n};\n";
    assert!(is_listed(text, "std::time", "Instant") && is_listed(text, "std::sync", "Mutex"));
    assert!(!is_listed(text, "std::sync", "RwLock") && !is_listed(text, "std::time", "Inst"));
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
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
