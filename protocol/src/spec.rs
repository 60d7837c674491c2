//! The whole specification of a child: what it was created with, and what that has become.

use serde::{Deserialize, Serialize, Serializer};

use crate::create::CreateParams;

/// What a child was created with, and what that has become.
///
/// In JSON one object: the members of a `create`'s parameters, and beside them `group` and `log`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct Spec {
    /// The parameters, with the working directory that stands for none, and the user and the groups by their numbers as
    /// far as they were looked up.
    pub params: CreateParams,
    /// The group that it runs as; none where it is the broker's own.
    pub group: Option<u32>,
    /// Where its output is kept: the path of the first file, to whose name a dot and a position are added for each further
    /// one. None where nothing is kept.
    pub log: Option<String>,
}

impl Serialize for Spec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        /// Flattened for JSON alone: the binary form would lose its lengths.
        #[derive(Serialize)]
        struct Readable<'a> {
            #[serde(flatten)]
            params: &'a CreateParams,
            group: Option<u32>,
            log: Option<&'a str>,
        }
        if !serializer.is_human_readable() {
            return Self::serialize(self, serializer);
        }
        let Self { params, group, log } = self;
        Readable { params, group: *group, log: log.as_deref() }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Spec {
    /// Reads the binary form; no program reads the JSON form with this library.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::deserialize(deserializer)
    }
}
