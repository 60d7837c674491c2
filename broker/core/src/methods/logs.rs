//! `logs`: whose output is read, and until when it is followed.

use procbroker_protocol::create::StandardError;
use procbroker_protocol::request::{LogStream, LogsParams};
use procbroker_protocol::{ChildId, CreateParams, Since, Timestamp};

use crate::broker::Broker;
use crate::child::Child;
use crate::effect::{Effect, Follow, LogExcerpt};
use crate::ids::Call;
use crate::input::LogOutcome;
use crate::pending::WaitsFor;
use crate::turn::Turn;

impl Broker {
    /// `logs`: has a child's output read, and followed to its end where that is wanted.
    pub(crate) fn logs(&mut self, call: Call, params: &LogsParams, turn: &mut Turn<'_>) {
        let Some(user) = self.connection(call.connection).map(|connection| connection.peer().uid) else {
            return;
        };
        let (child, live, kept_in) = match self.find(call.connection, &params.target) {
            Ok(child) => (child.id(), child.is_live(), kept_in(child.params(), params.stream)),
            Err(error) => return self.answer(call, Err(error), turn),
        };
        let mut subscription = None;
        if params.follow {
            match self.add_subscription(call.connection, Some(child)) {
                Ok(added) => subscription = Some(added),
                Err(error) => return self.answer(call, Err(error), turn),
            }
        }
        let follow = match subscription {
            None => Follow::No,
            Some(subscription) if live => Follow::UntilItEnds(subscription),
            Some(subscription) => Follow::Rest(subscription),
        };
        if let (Follow::UntilItEnds(subscription), Some(child)) = (follow, self.children.get_mut(child)) {
            child.follow(call.connection, subscription);
        }
        self.wait_for(call, WaitsFor::Logs { subscription }, None);
        let LogsParams { stream, tail, since, timestamps, position, .. } = *params;
        let since = since.map(|since| begin(since, turn.now.wall));
        let excerpt = LogExcerpt { stream, kept_in, tail, since, timestamps, position, follow };
        turn.order(Effect::ReadLog { call, child, excerpt, user });
    }

    /// A request for a child's output has been answered.
    pub(crate) fn log_read(&mut self, call: Call, outcome: LogOutcome) {
        let Some(pending) = self.pending.ticket(call).and_then(|ticket| self.take_pending(ticket)) else {
            return;
        };
        let WaitsFor::Logs { subscription: Some(subscription) } = pending.waits_for else {
            return;
        };
        let connection = self.connection(call.connection);
        let child = connection.and_then(|connection| connection.followed_by(subscription));
        let is_live = child.and_then(|child| self.children.get(child)).is_some_and(Child::is_live);
        match outcome {
            LogOutcome::Text if is_live => {}
            // Of a child that has ended, nothing follows but the rest of what is there.
            LogOutcome::Text | LogOutcome::Error => self.unfollow(call.connection, subscription),
        }
    }

    /// A child has ended: no more output of it comes, and those who follow it are told so.
    pub(crate) fn end_logs(&mut self, id: ChildId, turn: &mut Turn<'_>) {
        let Some(child) = self.children.get_mut(id) else {
            return;
        };
        let followers = child.take_followers();
        for (connection, subscription) in followers {
            self.connections.unsubscribe(connection, subscription);
        }
        turn.order(Effect::EndLog { child: id });
    }
}

/// The time from which on output is wanted.
fn begin(since: Since, now: Timestamp) -> Timestamp {
    match since {
        Since::Time(time) => time,
        Since::Age(age) => {
            let age = u64::try_from(age.as_micros()).unwrap_or(u64::MAX);
            Timestamp::from_micros(now.as_micros().saturating_sub(age))
        }
    }
}

/// Where what a child writes to a stream is kept.
fn kept_in(params: &CreateParams, stream: LogStream) -> LogStream {
    match (stream, params.stderr) {
        (LogStream::Stdout, _) | (LogStream::Stderr, StandardError::Stdout) => LogStream::Stdout,
        (LogStream::Stderr, StandardError::Log | StandardError::Null | StandardError::Inherit) => {
            LogStream::Stderr
        }
    }
}
