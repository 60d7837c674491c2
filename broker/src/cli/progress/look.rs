//! Asks the broker how the children are that are waited for, and by which steps they are stopped.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use procbroker_client::Broker;
use procbroker_protocol::create::StopStep;
use procbroker_protocol::request::{ListParams, NoParams, OneParams};
use procbroker_protocol::response::Got;
use procbroker_protocol::{Child, ChildId, ChildState, Request, Response, Target};

use super::awaited::End;

/// How often the lines are drawn anew; what is done sooner shows none.
pub(super) const INTERVAL: Duration = Duration::from_secs(1);

/// The most children that have a line of their own.
pub(super) const LINES_MAX: usize = 10;

/// The steps of the children's own stops, as far as the broker tells them. They do not change, and are asked for once.
#[derive(Debug, Default)]
pub(super) struct Stops(BTreeMap<ChildId, Option<Vec<StopStep>>>);

impl Stops {
    fn note(&mut self, got: &Got) {
        self.0.insert(got.child.id, got.spec.as_ref().map(|spec| spec.params.stop.clone()));
    }

    pub(super) fn of(&self, child: ChildId) -> Option<&[StopStep]> {
        self.0.get(&child).and_then(Option::as_deref)
    }

    /// Asks for those of children that are being stopped, of not more than can be shown.
    async fn learn(&mut self, broker: &Broker, children: &[Arc<Child>]) {
        let stopping = children.iter().filter(|child| child.state == ChildState::Stopping).take(LINES_MAX);
        for child in stopping {
            if self.0.contains_key(&child.id) {
                continue;
            }
            // One that has gone meanwhile is not shown any more either.
            if let Ok(Response::Got(got)) = broker.call(get(Target::Id(child.id))).await {
                self.note(&got);
            }
        }
    }
}

fn get(target: Target) -> Request {
    Request::Get(OneParams { target })
}

/// The children that are waited for, as far as the broker tells.
pub(super) async fn children(broker: &Broker, targets: &[Target], stops: &mut Stops) -> Vec<Arc<Child>> {
    let mut all = Vec::new();
    // Each is a question of its own, so that there are not more than can be shown.
    for target in targets.iter().take(LINES_MAX) {
        let request = match target {
            Target::All => Request::List(ListParams::default()),
            Target::Labels(labels) => {
                Request::List(ListParams { labels: labels.clone(), ..ListParams::default() })
            }
            Target::Id(_) | Target::Name(_) => get(target.clone()),
        };
        match broker.call(request).await {
            Ok(Response::Children(children)) => all.extend(children),
            Ok(Response::Child(child)) => all.push(child),
            Ok(Response::Got(got)) => {
                stops.note(&got);
                all.push(got.child);
            }
            // One that is not there is not waited for, and its own request says so.
            Ok(_) | Err(_) => {}
        }
    }
    stops.learn(broker, &all).await;
    all
}

/// A shutdown with the time that it may take, where that can be told: not of one that somebody else has begun.
pub(super) async fn bounded(broker: &Broker, end: &End) -> End {
    let End::ShutDown(within) = *end else { return end.clone() };
    match broker.call(Request::Status(NoParams {})).await {
        Ok(Response::Status(status)) if status.shutting_down => End::ShutDown(None),
        Ok(Response::Status(status)) => End::ShutDown(Some(within.unwrap_or(status.limits.shutdown_timeout))),
        Ok(_) | Err(_) => end.clone(),
    }
}
