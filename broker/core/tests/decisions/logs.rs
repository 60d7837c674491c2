//! Logs: whose output is read, which part of it, and until when it is followed.

use std::time::Duration;

use procbroker_core::{Effect, Follow, Input, LogExcerpt, LogOutcome, Members, Run, SubscriptionId};
use procbroker_protocol::create::StandardError;
use procbroker_protocol::request::{LogStream, LogsParams};
use procbroker_protocol::{CreateParams, ErrorKind, ExitStatus, Request, Since, Timestamp};

use crate::world::*;

/// Takes the orders so far, and the excerpts that are to be read.
fn reads(world: &mut World) -> Vec<LogExcerpt> {
    let read = |order| match order {
        Effect::ReadLog { excerpt, .. } => Some(excerpt),
        _ => None,
    };
    world.take().into_iter().filter_map(read).collect()
}

/// Follows the output of a child, up to the answer.
fn followed(world: &mut World, client: procbroker_core::ConnectionId, run: Run) -> Follow {
    let call = world.call(client, follow(id(run)));
    let read = reads(world);
    world.give(Input::LogRead { call, outcome: LogOutcome::Text });
    read[0].follow
}

#[test]
fn a_read_is_ordered_as_it_was_asked_for() {
    let (mut world, client) = World::with_client();
    let run = world.start(client, named("a"));
    for target in [id(run), name("a")] {
        for tail in [None, Some(0), Some(10)] {
            let call = world.call(client, Request::Logs(LogsParams { tail, ..logs(target.clone()) }));
            let (stream, kept_in, follow) = (LogStream::Stdout, LogStream::Stdout, Follow::No);
            let excerpt =
                LogExcerpt { stream, kept_in, tail, since: None, timestamps: false, position: None, follow };
            assert_eq!(world.take(), [Effect::ReadLog { call, child: run.child, excerpt, user: BROKER_UID }]);
        }
    }
}

#[test]
fn an_age_is_counted_from_when_it_is_asked_for() {
    let (mut world, client) = World::with_client();
    let run = world.start(client, unnamed());
    let time = Timestamp::from_micros(7_000_000);
    let now = world.wall().as_micros();
    for (since, expected) in [
        (Since::Time(time), time.as_micros()),
        (Since::Age(Duration::from_millis(2)), now - 2_000),
        (Since::Age(Duration::MAX), 0),
    ] {
        let params = LogsParams { since: Some(since), timestamps: true, ..logs(id(run)) };
        world.call(client, Request::Logs(params));
        let [excerpt] = reads(&mut world).try_into().unwrap();
        let LogExcerpt { since, timestamps, .. } = excerpt;
        assert_eq!((since, timestamps), (Some(Timestamp::from_micros(expected)), true));
    }
}

#[test]
fn the_file_of_a_stream_is_where_the_child_wrote_it() {
    for (stderr, stream, kept_in) in [
        (StandardError::Stdout, LogStream::Stdout, LogStream::Stdout),
        (StandardError::Stdout, LogStream::Stderr, LogStream::Stdout),
        (StandardError::Log, LogStream::Stdout, LogStream::Stdout),
        (StandardError::Log, LogStream::Stderr, LogStream::Stderr),
        (StandardError::Null, LogStream::Stderr, LogStream::Stderr),
        (StandardError::Inherit, LogStream::Stderr, LogStream::Stderr),
    ] {
        let (mut world, client) = World::with_client();
        let run = world.start(client, CreateParams { stderr, ..unnamed() });
        world.call(client, Request::Logs(LogsParams { stream, ..logs(id(run)) }));
        let read = reads(&mut world);
        assert_eq!((read[0].stream, read[0].kept_in), (stream, kept_in));
    }
}

#[test]
fn others_cannot_read_and_ended_children_can_be_read_while_they_are_visible() {
    let mut world = World::new();
    let (alice, bob, root) = (world.connect(ALICE), world.connect(BOB), world.connect(BROKER_UID));
    let run = world.start(alice, named("a"));
    for is_ended in [false, true] {
        if is_ended {
            world.ends(run);
        }
        world.take();
        for request in [Request::Logs(logs(id(run))), Request::Logs(logs(name("a"))), follow(id(run))] {
            assert_eq!(world.ask(bob, request.clone()).unwrap_err().kind, ErrorKind::NotFound);
            assert_eq!(reads(&mut world), []);
            world.call(alice, request.clone());
            world.call(root, request);
            assert_eq!(reads(&mut world).len(), 2);
        }
    }
    world.advance(secs(3600));
    assert_eq!(world.ask(alice, Request::Logs(logs(id(run)))).unwrap_err().kind, ErrorKind::NotFound);
}

#[test]
fn what_is_followed_ends_when_the_child_has_ended_with_its_cleanup() {
    let (mut world, client) = World::with_client();
    let run = world.start(client, cleaned(unnamed()));
    let follows = [followed(&mut world, client, run), followed(&mut world, client, run)];
    assert!(follows.iter().all(|follow| matches!(follow, Follow::UntilItEnds(_))), "{follows:?}");
    assert_ne!(follows[0], follows[1]);
    world.exited(run, ExitStatus::Code(0), Members::Nothing);
    world.begin_cleanup(next(run));
    world.exited(next(run), CLEAN, Members::Nothing);
    assert!(!world.take().contains(&Effect::EndLog { child: run.child }));
    world.recorded(next(run));
    let ends = world.take().into_iter().filter(|order| *order == Effect::EndLog { child: run.child });
    assert_eq!(ends.count(), 1);
}

#[test]
fn output_ends_with_its_child_whether_somebody_follows_it_or_not() {
    let (mut world, client) = World::with_client();
    let read = world.start(client, unnamed());
    world.call(client, Request::Logs(logs(id(read))));
    let dropped = world.start(client, unnamed());
    let other = world.connect(BROKER_UID);
    followed(&mut world, other, dropped);
    world.give(Input::Disconnected { connection: other });
    let failed = world.start(client, unnamed());
    let call = world.call(client, follow(id(failed)));
    world.give(Input::LogRead { call, outcome: LogOutcome::Error });
    for run in [read, dropped, failed] {
        assert!(!world.take().contains(&Effect::EndLog { child: run.child }));
        world.ends(run);
        let ends = world.take().into_iter().filter(|order| *order == Effect::EndLog { child: run.child });
        assert_eq!(ends.count(), 1);
    }
}

#[test]
fn a_child_that_ends_before_its_log_is_read_ends_it_all_the_same() {
    let (mut world, client) = World::with_client();
    let run = world.start(client, unnamed());
    let call = world.call(client, follow(id(run)));
    world.ends(run);
    assert!(world.take().contains(&Effect::EndLog { child: run.child }));
    world.give(Input::LogRead { call, outcome: LogOutcome::Text });
    assert_eq!(world.take(), []);
}

#[test]
fn a_child_that_never_was_ends_what_follows_it() {
    let (mut world, client) = World::with_client();
    let call = world.create(client, unnamed());
    let run = world.run(call);
    world.recorded(run);
    followed(&mut world, client, run);
    world.give(Input::SpawnFailed { run, failure: no_such_file() });
    let orders = world.take();
    let end = orders.iter().position(|order| *order == Effect::EndLog { child: run.child });
    let forget = orders.iter().position(|order| *order == Effect::Forget { child: run.child });
    assert!(end.unwrap() < forget.unwrap());
}

#[test]
fn of_an_ended_child_the_rest_is_all_that_follows() {
    let (mut world, client) = World::with_client();
    let run = world.start(client, unnamed());
    world.ends(run);
    assert!(matches!(followed(&mut world, client, run), Follow::Rest(_)));
}

#[test]
fn what_has_been_followed_to_its_end_makes_room_for_more() {
    let mut world = World::with(|config| config.bounds.max_subscriptions = 1);
    let client = world.connect(BROKER_UID);
    let mut seen = Vec::new();
    for is_ended in [false, true, true, false] {
        let run = world.start(client, unnamed());
        if is_ended {
            world.ends(run);
        }
        let subscription = match followed(&mut world, client, run) {
            Follow::UntilItEnds(subscription) | Follow::Rest(subscription) => subscription,
            Follow::No => SubscriptionId(0),
        };
        assert!(!seen.contains(&subscription), "{subscription:?} is used again");
        seen.push(subscription);
        if !is_ended {
            assert_eq!(world.ask(client, follow(id(run))).unwrap_err().kind, ErrorKind::LimitExceeded);
            world.ends(run);
        }
    }
    let run = world.start(client, unnamed());
    let call = world.call(client, follow(id(run)));
    world.give(Input::LogRead { call, outcome: LogOutcome::Error });
    assert!(matches!(followed(&mut world, client, run), Follow::UntilItEnds(_)));
}

#[test]
fn a_read_counts_among_the_requests_that_are_not_answered_until_it_is() {
    let mut world = World::with(|config| config.bounds.max_pipelined = 1);
    let client = world.connect(BROKER_UID);
    let run = world.start(client, unnamed());
    let call = world.call(client, Request::Logs(logs(id(run))));
    assert_eq!(world.ask(client, status()).unwrap_err().kind, ErrorKind::Overloaded);
    world.give(Input::LogRead { call, outcome: LogOutcome::Text });
    assert!(world.ask(client, status()).is_ok());
    // A report about a request that is not there changes nothing.
    world.give(Input::LogRead { call, outcome: LogOutcome::Error });
    world.give(Input::Disconnected { connection: client });
    world.give(Input::LogRead { call, outcome: LogOutcome::Text });
}

#[test]
fn where_output_is_gone_on_from_is_told_and_goes_with_no_other_beginning() {
    let (mut world, client) = World::with_client();
    let run = world.start(client, unnamed());
    let params = LogsParams { position: Some(1 << 40), follow: true, ..logs(id(run)) };
    world.call(client, Request::Logs(params.clone()));
    let excerpt = reads(&mut world).pop().unwrap();
    assert_eq!((excerpt.position, excerpt.tail, excerpt.since), (Some(1 << 40), None, None));
    let since = Some(Since::Age(Duration::from_secs(1)));
    for also in [LogsParams { tail: Some(1), ..params.clone() }, LogsParams { since, ..params }] {
        let error = world.ask(client, Request::Logs(also)).unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidParams);
        assert!(error.message.contains("position"), "{}", error.message);
    }
}

#[test]
fn an_exit_before_the_output_is_sent_is_told_as_what_it_is() {
    let (mut world, client) = World::with_client();
    let run = world.start(client, unnamed());
    world.ends(run);
    let call = world.call(client, Request::Logs(logs(id(run))));
    world.term();
    world.give(Input::Swept { left: 0 });
    assert!(world.exit().is_some());
    let error = world.answer(call).unwrap_err();
    assert_eq!(error.kind, ErrorKind::ShuttingDown);
    assert!(error.message.contains("before it has sent the output"), "{}", error.message);
}
