//! Reads which modules of a crate each module imports, from its sources.
//!
//! A path counts wherever it stands, in a `use` or in the midst of code. What a module hands on from another one is imported from that other one: a front page that
//! only declares and re-exports imports nothing, and nothing is imported from it. Tests import what they like.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The modules of a crate, each with those that it imports. The root has no name.
pub(crate) type Imports = BTreeMap<String, BTreeSet<String>>;

/// Which paths count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Paths {
    /// Those that begin with `crate`.
    FromTheRoot,
    /// Those that begin with `super` or with a module below, too.
    All,
}

impl Paths {
    fn count(self, path: &str) -> bool {
        match self {
            Self::FromTheRoot => path.starts_with("crate::"),
            Self::All => true,
        }
    }
}

/// How often a name may be handed on before it is where it is defined.
const HANDED_ON_MAX: usize = 8;

/// A module, as its file has it.
struct Module {
    /// The code without comments, tests and `use` declarations.
    code: String,
    /// The modules that are declared in it.
    below: BTreeSet<String>,
    uses: Vec<Use>,
}

/// One name that a module takes in.
struct Use {
    is_handed_on: bool,
    counts: bool,
    /// From the root of the crate.
    path: Vec<String>,
}

/// Reads what each module of the crate imports whose sources are in this folder.
pub(crate) fn imports(root: &Path, counted: Paths) -> Imports {
    let named = sources(root).into_iter().map(|path| (module(root, &path), path));
    let all: BTreeMap<String, Module> =
        named.map(|(name, path)| (name.clone(), read(&name, &path, counted))).collect();
    let of_crate = Crate { modules: reachable(all) };
    of_crate.modules.keys().map(|name| (name.clone(), of_crate.imported_by(name, counted))).collect()
}

/// The modules of a crate.
struct Crate {
    modules: BTreeMap<String, Module>,
}

impl Crate {
    fn imported_by(&self, name: &str, counted: Paths) -> BTreeSet<String> {
        let Some(module) = self.modules.get(name) else { return BTreeSet::new() };
        let words: BTreeSet<&str> = module.code.split(|char| !is_of_word(char)).collect();
        let is_used = |import: &&Use| {
            let is_named = || import.path.last().is_some_and(|last| words.contains(last.as_str()));
            import.counts && (!import.is_handed_on || is_named())
        };
        let used = module.uses.iter().filter(is_used).map(|import| import.path.clone());
        let in_code = paths(&module.code)
            .filter(|path| counted.count(path))
            .filter_map(|path| absolute(name, &module.below, &path));
        let from = used.chain(in_code).filter_map(|path| self.defined_in(path));
        from.filter(|from| from != name && !from.is_empty()).collect()
    }

    /// The module in which that is defined which has this path.
    fn defined_in(&self, mut path: Vec<String>) -> Option<String> {
        for _ in 0..HANDED_ON_MAX {
            let lengths = (0..=path.len()).rev();
            let (name, rest) = lengths
                .map(|length| (path[..length].join("::"), &path[length..]))
                .find(|(name, _)| self.modules.contains_key(name))?;
            let handed_on = rest.first().and_then(|wanted| {
                let uses = &self.modules[&name].uses;
                uses.iter().find(|import| import.path.last() == Some(wanted) && import.path != path)
            });
            match handed_on {
                Some(import) => path = import.path.iter().chain(&rest[1..]).cloned().collect(),
                None => return Some(name),
            }
        }
        None
    }
}

/// Leaves out the modules that nothing declares but a test.
fn reachable(mut all: BTreeMap<String, Module>) -> BTreeMap<String, Module> {
    let mut found = BTreeMap::new();
    let mut next = vec![String::new()];
    while let Some(name) = next.pop() {
        if let Some(module) = all.remove(&name) {
            let prefix = if name.is_empty() { String::new() } else { format!("{name}::") };
            next.extend(module.below.iter().map(|below| format!("{prefix}{below}")));
            found.insert(name, module);
        }
    }
    found
}

fn read(name: &str, path: &Path, counted: Paths) -> Module {
    let text = fs::read_to_string(path).expect("a source");
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    let text = without_visibilities(&without_tests(&lines.collect::<Vec<_>>().join("\n")));
    let declared = text.split("mod ").skip(1).filter_map(|rest| rest.split_once(';'));
    let below: BTreeSet<String> =
        declared.map(|(name, _)| name.to_owned()).filter(|name| name.chars().all(is_of_word)).collect();
    let (mut code, mut uses) = (String::new(), Vec::new());
    for statement in text.split_inclusive(';') {
        let Some((before, tree)) = use_declaration(statement) else {
            code.push_str(statement);
            continue;
        };
        code.push_str(before);
        let is_handed_on = before.trim_end().ends_with("pub") || before.trim_end().ends_with(')');
        uses.extend(leaves(tree).into_iter().filter_map(|leaf| {
            let path = absolute(name, &below, &leaf)?;
            Some(Use { is_handed_on, counts: counted.count(&leaf), path })
        }));
    }
    Module { code, below, uses }
}

/// What stands before a `use` declaration, and the tree of what it takes in.
fn use_declaration(statement: &str) -> Option<(&str, &str)> {
    let at = statement.match_indices("use ").map(|(at, _)| at);
    let is_word = |at: &usize| !statement[..*at].ends_with(is_of_word);
    let at = at.filter(is_word).last()?;
    let tree = statement[at..].strip_prefix("use ")?.strip_suffix(';')?;
    Some((&statement[..at], tree))
}

/// Takes each item out that is for tests alone.
pub(crate) fn without_tests(text: &str) -> String {
    let mut parts = text.split("#[cfg(test)]");
    let mut kept = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let mut depth = 0_usize;
        let end = part.char_indices().find(|&(_, char)| {
            match char {
                '{' => depth += 1,
                '}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            depth == 0 && (char == '}' || char == ';')
        });
        kept.push_str(end.map_or("", |(at, _)| &part[at + 1..]));
    }
    kept
}

/// Takes out for whom something is visible: that is a path, and no import.
fn without_visibilities(text: &str) -> String {
    let mut parts = text.split("pub(in ");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.filter_map(|part| part.split_once(')')).fold(first, |text, (_, rest)| text + "pub " + rest)
}

/// The paths in code: words with `::` between them.
fn paths(code: &str) -> impl Iterator<Item = String> {
    let words = code.split(|char| !is_of_word(char) && char != ':');
    words.filter(|word| word.contains("::")).map(|word| word.trim_end_matches(':').to_owned())
}

/// A path from the root of the crate, as far as it begins in it.
fn absolute(name: &str, below: &BTreeSet<String>, path: &str) -> Option<Vec<String>> {
    let mut parts: Vec<String> = path.split("::").map(str::to_owned).collect();
    if parts.last().is_some_and(|last| last == "self" || last == "*") {
        parts.pop();
    }
    let mut base: Vec<String> = name.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect();
    match parts.first()?.as_str() {
        "crate" => base.clear(),
        "self" => {}
        "super" => {
            while parts.first().is_some_and(|part| part == "super") {
                base.pop()?;
                parts.remove(0);
            }
            base.extend(parts);
            return Some(base);
        }
        first if below.contains(first) => {
            base.extend(parts);
            return Some(base);
        }
        _ => return None,
    }
    base.extend(parts.into_iter().skip(1));
    Some(base)
}

/// Takes a tree of imports apart: `a::{b, c::{d as e}}` is `a::b` and `a::c::d`.
fn leaves(tree: &str) -> Vec<String> {
    let items = tree.split_whitespace().collect::<Vec<_>>().join(" ");
    let Some((prefix, rest)) = items.split_once('{') else {
        let path = items.split(" as ").next().unwrap_or_default();
        return vec![path.split_whitespace().collect()];
    };
    let mut depth = 0;
    let items = rest.trim_end().strip_suffix('}').unwrap_or(rest).split(|char| {
        depth += match char {
            '{' => 1,
            '}' => -1,
            _ => 0,
        };
        char == ',' && depth == 0
    });
    let items = items.filter(|item| !item.trim().is_empty());
    items.flat_map(leaves).map(|item| format!("{}{item}", prefix.trim())).collect()
}

fn is_of_word(char: char) -> bool {
    char.is_alphanumeric() || char == '_'
}

fn module(root: &Path, path: &Path) -> String {
    let relative = path.strip_prefix(root).expect("it is below").with_extension("");
    let name = relative.iter().map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("::");
    if name == "lib" { String::new() } else { name.trim_end_matches("::mod").to_owned() }
}

/// All Rust files in a folder and below it.
pub(crate) fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the sources");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths
        .flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}
