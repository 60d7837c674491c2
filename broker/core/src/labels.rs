//! Labels: how children are chosen.

use std::collections::BTreeMap;

use procbroker_protocol::Child as ChildView;

/// Returns whether a child has all of these labels.
pub(crate) fn has_labels(child: &ChildView, labels: &BTreeMap<String, String>) -> bool {
    labels.iter().all(|(key, value)| child.labels.get(key) == Some(value))
}
