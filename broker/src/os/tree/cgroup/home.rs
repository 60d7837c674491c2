//! Which group is the broker's home: the one that its folder of children's groups is in.
//!
//! Processes and bounds exclude each other in a group (the "no internal process" rule of the kernel's cgroup-v2
//! documentation): for children's groups to have bounds, the broker itself has to be in a leaf beside them. It is where it
//! was started in a group that is called `broker`; or it moves there, where that is wanted and nobody else is in its group.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

use super::controllers::{self, CONTROLLERS};
use super::mount::locate;
use super::tree::is_root;

/// The name of a group that is a broker's own leaf, below the group that is its home.
pub(super) const LEAF: &str = "broker";

/// Whether the broker may leave the group that it was started in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaf {
    /// It stays where it is.
    Stay,
    /// It moves into a leaf below its group, if children can have bounds then.
    Enter,
}

/// The group that the broker's folder is in.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Home {
    /// Where it is mounted.
    pub(super) path: PathBuf,
    /// What the kernel calls it.
    pub(super) shown: String,
    /// Why no controller can be enabled in it, if that is known already.
    pub(super) crowded: Option<String>,
}

impl Home {
    /// Finds it for a broker whose own group is this one, as the kernel calls it. None where no mount shows it.
    pub(super) fn find(own: &str, mountinfo: &str, leaf: Leaf) -> Option<Self> {
        let path = locate(own, mountinfo)?;
        if let Some(above) = own.strip_suffix(LEAF).and_then(|above| above.strip_suffix('/'))
            && let above = if above.is_empty() { "/" } else { above }
            && let Some(path) = locate(above, mountinfo)
            && access(&path, AccessFlags::W_OK).is_ok()
        {
            return Some(Self { path, shown: above.to_owned(), crowded: None });
        }
        let crowded = if is_root(&path) { None } else { leave(&path, leaf).err() };
        Some(Self { path, shown: own.to_owned(), crowded })
    }

    /// What the kernel calls the group of this name below it.
    pub(super) fn shown_below(&self, name: &str) -> String {
        format!("{}/{name}", self.shown.trim_end_matches('/'))
    }
}

/// Leaves a group for a leaf below it, or says why it is not left.
fn leave(group: &Path, leaf: Leaf) -> Result<(), String> {
    let shown = group.display();
    match leaf {
        Leaf::Stay => {
            return Err(format!(
                "the broker itself is in {shown}, and no group can have processes and bounded groups at once; start it in a \
                 group below that is called {LEAF} (DelegateSubgroup={LEAF} in its unit, systemd 254), or with --leaf-group"
            ));
        }
        Leaf::Enter => {}
    }
    let offered = controllers::listed(&group.join("cgroup.controllers"));
    if !CONTROLLERS.iter().any(|controller| offered.contains(*controller)) {
        // Nothing would be gained by it.
        return Ok(());
    }
    let failed = |attempt: &str, error: &io::Error| {
        format!(
            "the broker itself is in {shown}, and cannot leave it for a group below: cannot {attempt}: {error}"
        )
    };
    let members = fs::read_to_string(group.join("cgroup.procs"))
        .map_err(|error| failed("read its processes", &error))?;
    let own = std::process::id().to_string();
    if members.lines().any(|pid| pid != own) {
        return Err(format!(
            "other processes are in {shown} as well, and no group can have processes and bounded groups at once; give the \
             broker a group of its own, such as a service with Delegate=yes"
        ));
    }
    let below = group.join(LEAF);
    match fs::create_dir(&below) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(failed("create it", &error));
        }
        Ok(()) | Err(_) => {}
    }
    // 0 is who writes it, with all its threads.
    fs::write(below.join("cgroup.procs"), "0").map_err(|error| failed("enter it", &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A group in a fake hierarchy, and how its mount is shown.
    fn tree(own: &str, controllers: &str, members: &str) -> (tempfile::TempDir, String) {
        let folder = tempfile::tempdir().unwrap();
        let group = folder.path().join(own.trim_start_matches('/'));
        fs::create_dir_all(&group).unwrap();
        for folder in group.ancestors().take_while(|ancestor| ancestor.starts_with(folder.path())) {
            fs::write(folder.join("cgroup.procs"), "").unwrap();
        }
        fs::write(group.join("cgroup.type"), "domain\n").unwrap();
        fs::write(group.join("cgroup.controllers"), controllers).unwrap();
        fs::write(group.join("cgroup.procs"), members).unwrap();
        let mountinfo = format!("30 20 0:1 / {} rw - cgroup2 cgroup2 rw\n", folder.path().display());
        (folder, mountinfo)
    }

    fn own_pid() -> String {
        format!("{}\n", std::process::id())
    }

    #[test]
    fn a_group_called_broker_is_a_leaf_and_the_one_above_is_home() {
        for (own, above) in [("/service/broker", "/service"), ("/broker", "/")] {
            let (folder, mountinfo) = tree(own, "memory\n", &own_pid());
            let home = Home::find(own, &mountinfo, Leaf::Enter).unwrap();
            let path = folder.path().join(above.trim_start_matches('/'));
            assert_eq!(home, Home { path, shown: above.to_owned(), crowded: None });
            assert_eq!(home.shown_below("x"), format!("{}/x", above.trim_end_matches('/')));
        }
        let (_folder, mountinfo) = tree("/webbroker", "memory\n", &own_pid());
        assert_eq!(Home::find("/webbroker", &mountinfo, Leaf::Stay).unwrap().shown, "/webbroker");
    }

    #[test]
    fn who_may_enters_a_leaf_and_who_may_not_is_told_the_way_out() {
        let (folder, mountinfo) = tree("/service", "cpu memory\n", &own_pid());
        let stays = Home::find("/service", &mountinfo, Leaf::Stay).unwrap().crowded.unwrap();
        assert!(stays.contains("DelegateSubgroup=broker") && stays.contains("--leaf-group"), "{stays}");
        assert!(!folder.path().join("service/broker").exists());
        // What the kernel makes in a group is not there in a fake one.
        fs::create_dir(folder.path().join("service/broker")).unwrap();
        fs::write(folder.path().join("service/broker/cgroup.procs"), "").unwrap();
        assert_eq!(Home::find("/service", &mountinfo, Leaf::Enter).unwrap().crowded, None);
        let entered = fs::read_to_string(folder.path().join("service/broker/cgroup.procs")).unwrap();
        assert_eq!(entered, "0");
    }

    #[test]
    fn a_group_with_others_in_it_is_not_left_and_one_without_controllers_neither() {
        let (folder, mountinfo) = tree("/shared", "memory\n", &format!("{}1\n", own_pid()));
        let crowded = Home::find("/shared", &mountinfo, Leaf::Enter).unwrap().crowded.unwrap();
        assert!(crowded.contains("other processes") && crowded.contains("Delegate=yes"), "{crowded}");
        assert!(!folder.path().join("shared/broker").exists());
        let (folder, mountinfo) = tree("/bare", "hugetlb\n", &own_pid());
        assert_eq!(Home::find("/bare", &mountinfo, Leaf::Enter).unwrap().crowded, None);
        assert!(!folder.path().join("bare/broker").exists());
    }
}
