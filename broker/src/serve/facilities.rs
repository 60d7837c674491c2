//! Finds out, once and by trying, what this machine lets a broker do.

use procbroker_protocol::Containment;
use procbroker_protocol::status::Facilities;
use thiserror::Error;

use crate::os::process::pidfd::Abilities;
use crate::os::process::subreaper::{Inheritance, InheritanceError};
use crate::os::spawn::{CloneMethod, ProbeError, SpawnFacilities};
use crate::os::tree::cgroup::{Cgroups, Leaf, Offer, PreviousFolder};

/// What this kernel and this control group offer, tried once at the start.
#[derive(Debug)]
pub struct ProbedFacilities {
    /// For `status`. Who started the socket and where state is kept is not known here.
    pub facilities: Facilities,
    /// What holds the descendants of children.
    pub containment: Containment,
    /// How children are spawned.
    pub spawn: SpawnFacilities,
    /// The orphans that the broker inherits from now on.
    pub inheritance: Inheritance,
    /// The groups of children, where they can have them.
    pub cgroups: Option<Cgroups>,
    /// What children can be bounded by.
    pub offer: Offer,
}

/// No broker can run here.
#[derive(Debug, Error)]
pub enum FacilitiesError {
    /// The orphans of children would be lost.
    #[error(transparent)]
    Inheritance(#[from] InheritanceError),
    /// No child can be spawned.
    #[error(transparent)]
    Spawn(#[from] ProbeError),
    /// Processes cannot be held by descriptor.
    #[error(
        "this kernel has no pidfd_open, or the sandbox around the broker forbids it; the broker needs Linux 5.14 or later"
    )]
    NoPidfd,
}

/// Tries everything. To be called on the main thread, before there is a child. `previous` is the folder of the groups
/// that an earlier broker has left, if children may live there; `leaf` says whether the broker may leave its own group for one
/// of its own.
///
/// # Errors
/// When something is missing that a broker cannot do without.
pub fn probe(previous: Option<PreviousFolder>, leaf: Leaf) -> Result<ProbedFacilities, FacilitiesError> {
    let inheritance = Inheritance::begin()?;
    let pidfd = Abilities::probe();
    if !pidfd.open {
        return Err(FacilitiesError::NoPidfd);
    }
    let spawn = SpawnFacilities::probe()?;
    let (cgroups, cgroup, offer) = match begin(previous, leaf, spawn) {
        Ok(mut cgroups) => {
            let offer = cgroups.enable_controllers().clone();
            let path = cgroups.path().display().to_string();
            (Some(cgroups), path, offer)
        }
        Err(reason) => (None, format!("none: {reason}"), Offer::nothing(&reason)),
    };
    let containment = if cgroups.is_some() { Containment::Cgroup } else { Containment::Subreaper };
    let facilities = Facilities {
        spawn: match spawn.method {
            CloneMethod::Clone3 => "clone3".to_owned(),
            CloneMethod::Clone => "fork".to_owned(),
        },
        containment: match containment {
            Containment::Cgroup => "cgroup".to_owned(),
            Containment::Subreaper => "subreaper".to_owned(),
        },
        cgroup,
        controllers: offer.shown(),
        subreaper: inheritance.is_subreaper(),
        pidfd: pidfd.open,
        pidfd_group_signal: pidfd.group_signal,
        pidfd_exit_info: pidfd.exit_status,
        proc_children: inheritance.has_list(),
        activation: String::new(),
        state_dir: String::new(),
    };
    Ok(ProbedFacilities { facilities, containment, spawn, inheritance, cgroups, offer })
}

/// Groups in which children can be born, or why there are none.
fn begin(previous: Option<PreviousFolder>, leaf: Leaf, spawn: SpawnFacilities) -> Result<Cgroups, String> {
    let cgroups = Cgroups::begin_after(previous, leaf).map_err(|error| error.to_string())?;
    let born = cgroups.rehearse(|group| spawn.try_birth_in(group).map_err(|error| error.to_string()));
    match born.unwrap_or_else(|errno| Err(errno.to_string())) {
        Ok(()) => Ok(cgroups),
        Err(reason) => Err(format!("no child can be born into a group: {reason}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::process::alone;

    #[test]
    fn what_is_in_use_is_what_is_told() {
        alone::on_main_thread(module_path!(), "what_is_in_use_is_what_is_told", || {
            let found = probe(None, Leaf::Stay).unwrap();
            let told = &found.facilities;
            assert!(told.pidfd && told.subreaper);
            assert_eq!(told.proc_children, std::path::Path::new("/proc/thread-self/children").exists());
            assert!(told.pidfd_group_signal || !told.pidfd_exit_info, "the second came later");
            let used = (told.containment.as_str(), found.containment);
            if let Some(cgroups) = &found.cgroups {
                assert_eq!(used, ("cgroup", Containment::Cgroup));
                assert_eq!(told.cgroup, cgroups.path().to_str().unwrap());
            } else {
                assert_eq!(used, ("subreaper", Containment::Subreaper));
                assert!(told.cgroup.len() > "none: ".len() && told.cgroup.starts_with("none: "));
            }
        });
    }
}
