//! The controllers by which children are bounded: enabled above their groups as far as the broker may, and what is lacking.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use procbroker_core::ResourceBound;

use super::tree::is_root;

/// Those that set bounds which a child can be given.
pub(super) const CONTROLLERS: [&str; 4] = ["cpu", "io", "memory", "pids"];

/// What is offered to children.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// The controllers that are enabled for their groups.
    pub enabled: BTreeSet<&'static str>,
    /// The bounds that they cannot be given, with why and the way out.
    pub lacking: BTreeMap<ResourceBound, String>,
}

impl Offer {
    /// Nothing, for this reason.
    #[must_use]
    pub fn nothing(why: &str) -> Self {
        let lacking = ResourceBound::ALL.map(|bound| (bound, why.to_owned())).into();
        Self { enabled: BTreeSet::new(), lacking }
    }

    /// What is enabled, or why nothing is, for people.
    #[must_use]
    pub fn shown(&self) -> String {
        match self.lacking.values().next() {
            Some(why) if self.enabled.is_empty() => format!("none: {why}"),
            Some(_) | None => self.enabled.iter().copied().collect::<Vec<_>>().join(" "),
        }
    }
}

/// Enables what can be in the folder of groups, and in its home where that is the broker's to change; `group` is one of
/// the groups. `crowded` says why nothing can be enabled in the home.
pub(super) fn enable(home: &Path, folder: &Path, group: &Path, crowded: Option<&str>) -> Offer {
    let mut offer = Offer::default();
    let mut refusals = BTreeMap::new();
    for controller in CONTROLLERS {
        match enable_one(controller, home, folder, crowded) {
            Ok(()) => {
                offer.enabled.insert(controller);
            }
            Err(why) => {
                refusals.insert(controller, why);
            }
        }
    }
    for bound in ResourceBound::ALL {
        if let Some(why) = refusals.get(bound.controller()) {
            offer.lacking.insert(bound, why.clone());
        } else if !group.join(bound.file()).exists() {
            let why = format!("this kernel has no {} in {}", bound.file(), group.display());
            offer.lacking.insert(bound, why);
        }
    }
    offer
}

fn enable_one(controller: &str, home: &Path, folder: &Path, crowded: Option<&str>) -> Result<(), String> {
    let control = home.join("cgroup.subtree_control");
    if !listed(&control).contains(controller) {
        let offered = home.join("cgroup.controllers");
        if !listed(&offered).contains(controller) {
            return Err(format!(
                "{} does not have it; a service gets it by Delegate=yes, unless the machine has it in a hierarchy of \
                 version 1",
                offered.display()
            ));
        }
        if is_root(home) {
            // The whole machine's is not the broker's to change.
            return Err(format!(
                "it is not enabled in {}; run the broker in a service with Delegate=yes",
                control.display()
            ));
        }
        if let Some(crowded) = crowded {
            return Err(crowded.to_owned());
        }
        write(&control, controller)?;
    }
    write(&folder.join("cgroup.subtree_control"), controller)
}

fn write(control: &Path, controller: &str) -> Result<(), String> {
    fs::write(control, format!("+{controller}")).map_err(|error| {
        let advice = match error.kind() {
            io::ErrorKind::ResourceBusy => "processes are in that group; the broker needs one of its own (Delegate=yes)",
            _ => "the broker needs a group that is its own to change, such as that of a service with Delegate=yes",
        };
        format!("it cannot be enabled in {}: {error}; {advice}", control.display())
    })
}

/// The controllers that a file of a group lists.
pub(super) fn listed(file: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.split_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// A fake home with a folder and a group in it, whose kernel has these controllers, and these files in a group.
    struct Tree {
        folder: tempfile::TempDir,
    }

    impl Tree {
        fn new(controllers: &str, enabled: &str, files: &[&str]) -> Self {
            let tree = Self { folder: tempfile::tempdir().unwrap() };
            fs::create_dir_all(tree.group()).unwrap();
            fs::write(tree.home().join("cgroup.type"), "domain").unwrap();
            fs::write(tree.home().join("cgroup.controllers"), controllers).unwrap();
            for folder in [tree.home(), tree.folder()] {
                fs::write(folder.join("cgroup.subtree_control"), "").unwrap();
            }
            fs::write(tree.home().join("cgroup.subtree_control"), enabled).unwrap();
            for file in files {
                fs::write(tree.group().join(file), "").unwrap();
            }
            tree
        }

        fn home(&self) -> PathBuf {
            self.folder.path().to_owned()
        }

        fn folder(&self) -> PathBuf {
            self.folder.path().join("procbroker.1")
        }

        fn group(&self) -> PathBuf {
            self.folder().join("0")
        }

        fn enable(&self, crowded: Option<&str>) -> Offer {
            enable(&self.home(), &self.folder(), &self.group(), crowded)
        }

        fn written_last(folder: &Path) -> String {
            fs::read_to_string(folder.join("cgroup.subtree_control")).unwrap()
        }
    }

    const FILES: [&str; 5] = ["memory.max", "memory.high", "cpu.weight", "cpu.max", "pids.max"];

    #[test]
    fn what_the_kernel_has_is_enabled_in_the_home_and_in_the_folder() {
        let tree = Tree::new("cpuset cpu io memory pids", "", &FILES);
        let offer = tree.enable(None);
        assert_eq!(offer.enabled, CONTROLLERS.into());
        assert_eq!(offer.shown(), "cpu io memory pids");
        // A fake file keeps what was written last.
        assert_eq!(
            (Tree::written_last(&tree.home()), Tree::written_last(&tree.folder())),
            ("+pids".into(), "+pids".into())
        );
        let lacking: Vec<_> = offer.lacking.into_iter().collect();
        let [(ResourceBound::IoWeight, why)] = lacking.as_slice() else { panic!("{lacking:?}") };
        assert!(why.contains("no io.weight"), "{why}");
    }

    #[test]
    fn what_is_enabled_already_is_left_so_even_where_nothing_else_can_be() {
        let tree = Tree::new("cpu memory", "memory", &FILES);
        let offer = tree.enable(Some("too many are here"));
        assert_eq!(offer.enabled, BTreeSet::from(["memory"]));
        assert_eq!(Tree::written_last(&tree.home()), "memory");
        assert_eq!(offer.lacking[&ResourceBound::CpuMax], "too many are here");
        assert!(offer.lacking[&ResourceBound::PidsMax].contains("Delegate=yes"));
        assert_eq!(offer.shown(), "memory");
    }

    #[test]
    fn the_root_of_all_groups_is_not_changed() {
        let tree = Tree::new("cpu memory", "cpu", &FILES);
        fs::remove_file(tree.home().join("cgroup.type")).unwrap();
        let offer = tree.enable(None);
        assert_eq!(offer.enabled, BTreeSet::from(["cpu"]));
        assert_eq!(Tree::written_last(&tree.home()), "cpu");
        assert!(offer.lacking[&ResourceBound::MemoryMax].contains("subtree_control"));
    }

    #[test]
    fn a_hierarchy_without_controllers_offers_nothing_and_says_why() {
        let tree = Tree::new("hugetlb", "", &[]);
        let offer = tree.enable(None);
        assert_eq!(offer.lacking.keys().copied().collect::<Vec<_>>(), ResourceBound::ALL);
        assert!(
            offer.shown().starts_with("none: ") && offer.shown().contains("cgroup.controllers"),
            "{}",
            offer.shown()
        );
        assert_eq!(Offer::nothing("it is so").shown(), "none: it is so");
    }

    #[test]
    fn a_controller_that_cannot_be_enabled_is_told_with_the_file() {
        let tree = Tree::new("memory", "", &FILES);
        fs::remove_file(tree.folder().join("cgroup.subtree_control")).unwrap();
        fs::create_dir(tree.folder().join("cgroup.subtree_control")).unwrap();
        let offer = tree.enable(None);
        let why = &offer.lacking[&ResourceBound::MemoryHigh];
        assert!(why.contains(tree.folder().join("cgroup.subtree_control").to_str().unwrap()), "{why}");
        assert_eq!(offer.enabled, BTreeSet::new());
    }
}
