//! Where the processes of a child are searched for: among what the broker inherits, or everywhere.
//!
//! What descends from a child of this process comes to the broker when it loses its parent. Nothing of an adopted child
//! does: the broker that started it is gone. Every order is carried out by the same steps; only the walk differs.

use procbroker_core::Kinship;

/// The way in which the processes of a child are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Search {
    /// Below its main process, and among the orphans of the broker.
    Inherited,
    /// In all of `/proc`, since nothing of it comes to this broker.
    Everywhere,
}

impl Search {
    /// Every way, the cheap one first.
    pub(super) const ALL: [Self; 2] = [Self::Inherited, Self::Everywhere];
}

impl From<Kinship> for Search {
    fn from(kinship: Kinship) -> Self {
        match kinship {
            Kinship::Own => Self::Inherited,
            Kinship::Foreign => Self::Everywhere,
        }
    }
}

/// One value for each way to search.
#[derive(Clone, Debug, Default)]
pub(super) struct PerSearch<T> {
    inherited: T,
    everywhere: T,
}

impl<T> PerSearch<T> {
    pub(super) fn of(&self, search: Search) -> &T {
        match search {
            Search::Inherited => &self.inherited,
            Search::Everywhere => &self.everywhere,
        }
    }

    pub(super) fn of_mut(&mut self, search: Search) -> &mut T {
        match search {
            Search::Inherited => &mut self.inherited,
            Search::Everywhere => &mut self.everywhere,
        }
    }
}
