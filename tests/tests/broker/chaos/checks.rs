//! What clients were told, what children say of themselves, and what there is: all of it has to agree.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use serde_json::{Value, json};

use crate::harness::{JsonClient, tagged_environments};

/// What clients were told, and where children write.
#[derive(Debug)]
pub(super) struct Books {
    folder: PathBuf,
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    /// Each child that a create was answered with.
    created: BTreeSet<String>,
    /// The child of each request.
    requests: BTreeMap<String, String>,
    /// Those of them that run until somebody destroys them.
    lasting: BTreeSet<String>,
    /// Children that are over, with how often their cleanup was begun.
    ended: BTreeMap<String, u64>,
}

impl Books {
    pub(super) fn in_folder(folder: &Path) -> Self {
        let folder = folder.join("books");
        fs::create_dir(&folder).unwrap();
        Self { folder, told: Mutex::default() }
    }

    /// Where children write.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().expect("clients that did not fail")
    }

    /// A create was answered.
    pub(super) fn created(&self, id: &str, request: &str) {
        let mut told = self.told();
        told.created.insert(id.to_owned());
        let other = told.requests.insert(request.to_owned(), id.to_owned());
        assert!(other.is_none_or(|other| other == id), "two children for the request {request}");
    }

    /// Nothing but a destroy ends this child.
    pub(super) fn lasting(&self, id: &str) {
        self.told().lasting.insert(id.to_owned());
    }

    /// Somebody is about to destroy it.
    pub(super) fn doomed(&self, id: &str) {
        self.told().lasting.remove(id);
    }

    /// Somebody was told that a child is over.
    pub(super) fn ended(&self, child: &Value) {
        assert_eq!(child["state"], "ended", "{child}");
        let cleaned = child["labels"]["cleaned"] == "yes";
        assert_eq!(child["cleanup"].is_object(), cleaned, "{child}");
        let attempts = child["cleanup"]["attempts"].as_u64().unwrap_or(0);
        let id = child["id"].as_str().expect("an id").to_owned();
        let runs = self.lines(&format!("cleanups.{id}"));
        if cleaned {
            assert!((1..=attempts).contains(&(runs.len() as u64)), "{runs:?} and {child}");
            assert_eq!(child["cleanup"]["ok"], true, "{child}");
        }
        let known = *self.told().ended.entry(id).or_insert(attempts);
        assert_eq!(known, attempts, "a cleanup was run again after the end: {child}");
    }

    fn lines(&self, file: &str) -> Vec<String> {
        let text = fs::read_to_string(self.folder.join(file)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// No request has started two processes, and none that was answered started another child than it was told.
    fn check_starts(&self, listed: &BTreeMap<String, Value>) {
        for entry in fs::read_dir(&self.folder).expect("a folder").flatten() {
            let file = entry.file_name().into_string().expect("a name");
            let Some(request) = file.strip_prefix("starts.") else { continue };
            let starts = self.lines(&file);
            // One that was killed early has not come to say anything.
            let Some((start, others)) = starts.split_first() else { continue };
            assert!(others.is_empty(), "the request {request} has started {starts:?}");
            let Some(told) = self.told().requests.get(request).cloned() else { continue };
            // One whose child was replaced before it was ready was answered with the one in the place of that, or with one
            // that had replaced that in turn.
            let started = start.split(' ').next().unwrap_or_default().to_owned();
            if started != told {
                let (first, last) = (&listed[&started], &listed[&told]);
                let is_replaced = first["exit"]["reason"] == "replaced" && started < told;
                let is_in_its_place = first["name"].is_string() && first["name"] == last["name"];
                assert!(
                    is_replaced && is_in_its_place,
                    "{request} has started {first}, and was told of {last}"
                );
            }
        }
    }
}

fn list_all(client: &mut JsonClient) -> BTreeMap<String, Value> {
    let mut listed = client.ok("list", json!({"all": true}));
    let children = listed["children"].as_array_mut().expect("children");
    children.drain(..).map(|child| (child["id"].as_str().expect("an id").to_owned(), child)).collect()
}

/// What a new broker knows, while no client asks for anything.
pub(super) fn check(client: &mut JsonClient, folder: &Path, books: &Books, round: u32) {
    let listed = list_all(client);
    for id in &books.told().created {
        assert!(listed.contains_key(id), "round {round}: {id} is lost");
    }
    for id in &books.told().lasting {
        let child = &listed[id];
        assert_eq!(child["state"], "running", "round {round}: nobody has ended {child}");
    }
    // Only after the list: nothing begins now.
    let living = tagged_environments(folder);
    let mut names: BTreeMap<&str, &str> = BTreeMap::new();
    for (id, child) in &listed {
        if child["state"] == "ended" {
            books.ended(child);
        } else if let Some(name) = child["name"].as_str()
            && let Some(other) = names.insert(name, id)
        {
            panic!("round {round}: {id} and {other} are both {name}");
        }
    }
    for (process, environment) in &living {
        let Some(id) = environment.get("PROCBROKER_CHILD_ID") else { continue };
        let child =
            listed.get(id).unwrap_or_else(|| panic!("round {round}: nobody knows {id}, with {process:?}"));
        assert_ne!(child["state"], "ended", "round {round}: {process:?} outlives {child}");
        if let Some(name) = environment.get("PROCBROKER_CHILD_NAME") {
            let holder = *names.entry(name).or_insert(id);
            assert_eq!(holder, id, "round {round}: two that live are {name}");
        }
    }
    books.check_starts(&listed);
}

/// After the stop of the last broker everything is over, and everything was cleaned up.
pub(super) fn check_the_end(client: &mut JsonClient, books: &Books) {
    let listed = list_all(client);
    for id in &books.told().created {
        assert!(listed.contains_key(id), "{id} is lost");
    }
    for child in listed.values() {
        books.ended(child);
    }
    books.check_starts(&listed);
    let first_try = listed.values().filter(|child| child["cleanup"]["attempts"] == 1).count();
    let again = listed.values().filter(|child| child["cleanup"]["attempts"].as_u64() > Some(1)).count();
    eprintln!("{} children, {first_try} cleaned up at once, {again} once more", listed.len());
    assert!(listed.len() > 10, "no storm: {} children", listed.len());
}
