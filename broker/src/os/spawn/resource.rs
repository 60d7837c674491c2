//! The resource limits that a child may be given, by their names on the wire.

use nix::sys::resource::Resource as Kernel;

/// A resource limited by `prlimit(2)`, in the unit that `getrlimit(2)` gives for it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Resource(Kernel);

/// Each name with its resource.
const NAMES: [(&str, Kernel); 16] = [
    ("as", Kernel::RLIMIT_AS),
    ("cpu", Kernel::RLIMIT_CPU),
    ("core", Kernel::RLIMIT_CORE),
    ("data", Kernel::RLIMIT_DATA),
    ("fsize", Kernel::RLIMIT_FSIZE),
    ("memlock", Kernel::RLIMIT_MEMLOCK),
    ("msgqueue", Kernel::RLIMIT_MSGQUEUE),
    ("nice", Kernel::RLIMIT_NICE),
    ("nofile", Kernel::RLIMIT_NOFILE),
    ("nproc", Kernel::RLIMIT_NPROC),
    ("rss", Kernel::RLIMIT_RSS),
    ("rtprio", Kernel::RLIMIT_RTPRIO),
    ("rttime", Kernel::RLIMIT_RTTIME),
    ("sigpending", Kernel::RLIMIT_SIGPENDING),
    ("stack", Kernel::RLIMIT_STACK),
    ("locks", Kernel::RLIMIT_LOCKS),
];

impl Resource {
    /// The number of open descriptors, plus one.
    pub const NOFILE: Self = Self(Kernel::RLIMIT_NOFILE);

    /// The resource of a name such as `nofile`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        NAMES.iter().find(|(known, _)| *known == name).map(|&(_, resource)| Self(resource))
    }

    /// The resource of the kernel's number.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        NAMES.iter().map(|&(_, resource)| Self(resource)).find(|resource| resource.0 as u32 == number)
    }

    /// Every name that [`from_name`](Self::from_name) knows, for messages that list them.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMES.iter().map(|&(name, _)| name)
    }

    pub(super) const fn number(self) -> usize {
        self.0 as usize
    }

    /// The broker's own hard limit; none is `u64::MAX`.
    pub(super) fn own_hard_limit(self) -> nix::Result<u64> {
        self.own_limits().map(|(_soft, hard)| hard)
    }

    /// The broker's own limits, soft and hard; none is `u64::MAX`.
    ///
    /// # Errors
    /// None that a kernel has a reason for.
    pub fn own_limits(self) -> nix::Result<(u64, u64)> {
        nix::sys::resource::getrlimit(self.0)
    }
}

/// One limit of a child.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ResourceLimit {
    /// The resource that is limited.
    pub resource: Resource,
    /// The limit in force, at most `hard`.
    pub soft: u64,
    /// How far the child may raise `soft`, at most the broker's own hard limit.
    pub hard: u64,
}

impl ResourceLimit {
    /// Makes a bound whose soft and hard limits are this value.
    #[must_use]
    pub const fn both(resource: Resource, value: u64) -> Self {
        Self { resource, soft: value, hard: value }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_the_resource_that_the_kernel_calls_so() {
        for name in Resource::names() {
            let Resource(kernel) = Resource::from_name(name).unwrap();
            assert_eq!(format!("{kernel:?}"), format!("RLIMIT_{}", name.to_uppercase()));
        }
        assert_eq!(Resource::from_name("nofile"), Some(Resource::NOFILE));
        assert_eq!(Resource::from_name("NOFILE"), None);
        assert_eq!(Resource::names().count(), 16);
    }
}
