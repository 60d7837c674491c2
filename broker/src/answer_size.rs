//! How large an answer is, before and when it is encoded.

use std::collections::BTreeMap;

use procbroker_core::bytes_of;
use procbroker_protocol::{Child, Error, PartialChild, Response};

use crate::limits::{CHILDREN_ENCODED_INLINE, TEXT_BYTES_ENCODED_INLINE};

/// Returns how many bytes an answer takes by itself until it is sent: children are shared, and texts are not.
#[must_use]
pub fn own_bytes(result: &Result<Response, Error>) -> u64 {
    match result {
        Ok(Response::Got(got)) => got.spec.as_ref().map_or(0, |spec| 2 * bytes_of(&spec.params)),
        Ok(Response::Logs(logs)) => logs.text.len() as u64,
        Ok(Response::Metrics(metrics)) => metrics.text.len() as u64,
        Ok(Response::Children(children)) => 16 * children.len() as u64,
        Ok(Response::PartialChildren(children)) => 16 * children.len() as u64,
        Ok(Response::ShutDown(report)) => 16 * report.children.len() as u64,
        Ok(
            Response::Created(_)
            | Response::Child(_)
            | Response::Subscribed(_)
            | Response::Status(_)
            | Response::Upgraded,
        )
        | Err(_) => 0,
    }
}

/// Returns about how many bytes a large answer takes when it is encoded.
#[must_use]
pub fn encoded_bytes(result: &Result<Response, Error>) -> u64 {
    let bytes = match result {
        Ok(Response::Children(children)) => children.iter().map(|child| child_bytes(child)).sum(),
        Ok(Response::ShutDown(report)) => report.children.iter().map(|child| child_bytes(child)).sum(),
        Ok(Response::PartialChildren(children)) => children.iter().map(|child| partial_bytes(&child)).sum(),
        // The room of a text was found before it was read.
        Ok(
            Response::Logs(_)
            | Response::Created(_)
            | Response::Child(_)
            | Response::Got(_)
            | Response::Metrics(_)
            | Response::Subscribed(_)
            | Response::Status(_)
            | Response::Upgraded,
        )
        | Err(_) => 0,
    };
    bytes as u64
}

/// What a child takes beside its texts.
const CHILD_BYTES: usize = 512;

fn child_bytes(child: &Child) -> usize {
    CHILD_BYTES + texts(&child.command, &child.labels)
}

fn partial_bytes(child: &PartialChild<'_>) -> usize {
    let none = (Vec::new(), BTreeMap::new());
    CHILD_BYTES / 4 + texts(child.command().unwrap_or(&none.0), child.labels().unwrap_or(&none.1))
}

fn texts(command: &[String], labels: &BTreeMap<String, String>) -> usize {
    let words: usize = command.iter().map(String::len).sum();
    words + labels.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>()
}

/// Whether an answer takes long to encode.
#[must_use]
pub fn is_large(result: &Result<Response, Error>) -> bool {
    match result {
        Ok(Response::Children(children)) => children.len() > CHILDREN_ENCODED_INLINE,
        Ok(Response::PartialChildren(children)) => children.len() > CHILDREN_ENCODED_INLINE,
        Ok(Response::ShutDown(report)) => report.children.len() > CHILDREN_ENCODED_INLINE,
        Ok(Response::Logs(logs)) => logs.text.len() > TEXT_BYTES_ENCODED_INLINE,
        Ok(
            Response::Created(_)
            | Response::Child(_)
            | Response::Got(_)
            | Response::Metrics(_)
            | Response::Subscribed(_)
            | Response::Status(_)
            | Response::Upgraded,
        )
        | Err(_) => false,
    }
}
