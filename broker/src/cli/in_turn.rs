//! Restarts one child after the other, so that the others serve meanwhile: the broker itself takes all of a request at once.

use std::collections::BTreeMap;

use procbroker_client::{Broker, Error as ClientError};
use procbroker_protocol::request::{ListParams, ManyParams};
use procbroker_protocol::{ErrorKind, Request, Response, Target};

/// Restarts what the targets mean now, each when the one before it is ready again. The first that fails, or does not come back,
/// is the last: those behind it stay as they are.
pub(super) async fn restart(
    broker: &Broker,
    targets: Vec<Target>,
    is_done: impl Fn(&Response) -> bool,
) -> Vec<Result<Response, ClientError>> {
    let mut answers = Vec::new();
    for target in targets {
        let each = match each_of(broker, &target).await {
            Ok(each) => each,
            Err(error) => {
                answers.push(Err(error));
                return answers;
            }
        };
        for child in each {
            let answer = broker.call(Request::Restart(ManyParams { target: child })).await;
            if !target.is_single() && is_gone(&answer) {
                continue;
            }
            let has_failed = !answer.as_ref().is_ok_and(&is_done);
            answers.push(answer);
            if has_failed {
                return answers;
            }
        }
    }
    if answers.is_empty() {
        answers.push(Ok(Response::Children(Vec::new())));
    }
    answers
}

/// Whether a child has ended by itself before its turn came: whoever asks for all that are there does not mean it any more.
fn is_gone(answer: &Result<Response, ClientError>) -> bool {
    matches!(answer, Err(ClientError::Broker(error)) if error.kind == ErrorKind::NotFound)
}

/// The children that a target means now, one by one.
pub(super) async fn each_of(broker: &Broker, target: &Target) -> Result<Vec<Target>, ClientError> {
    let labels = match target {
        Target::Id(_) | Target::Name(_) => return Ok(vec![target.clone()]),
        Target::Labels(labels) => labels.clone(),
        Target::All => BTreeMap::new(),
    };
    let list = ListParams { labels, ..ListParams::default() };
    let answer = broker.call(Request::List(list)).await?;
    let children = if let Response::Children(children) = answer { children } else { Vec::new() };
    Ok(children.iter().map(|child| Target::Id(child.id)).collect())
}
