//! Events: which come, in which order, with which numbers, and to whom.

use procbroker_core::{Effect, Input, Members};
use procbroker_protocol::event::Notification;
use procbroker_protocol::{ChildState, ErrorKind, EventKind, ExitReason, ExitStatus, Response};

use crate::world::*;

#[test]
fn a_whole_life_is_told_in_its_order_with_numbers_that_count_up_by_one() {
    let (mut world, client) = World::with_client();
    let subscribed = world.subscribe(client, None);
    assert_eq!(subscribed.next, 1);
    let mut events = Vec::new();
    let call = world.create(client, cleaned(named("a")));
    let run = world.run(call);
    world.recorded(run);
    world.advance(secs(1));
    world.spawned(run);
    world.advance(secs(1));
    world.call(client, destroy(id(run)));
    world.advance(secs(1));
    world.exited(run, ExitStatus::Code(3), Members::Group);
    world.advance(secs(1));
    world.left(run, Members::Nothing);
    world.begin_cleanup(next(run));
    world.advance(secs(1));
    world.end_cleanup(next(run), CLEAN);
    events.extend(world.told(client));
    let kinds: Vec<_> = events.iter().map(|event| event.kind).collect();
    assert_eq!(
        kinds,
        [
            EventKind::Created,
            EventKind::Started,
            EventKind::Ready,
            EventKind::Stopping,
            EventKind::Exited,
            EventKind::Cleaning,
            EventKind::Ended,
        ]
    );
    let numbers: Vec<_> = events.iter().map(|event| event.seq).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7]);
    let start = events[0].at.as_micros();
    let times: Vec<_> = events.iter().map(|event| (event.at.as_micros() - start) / 1_000_000).collect();
    assert_eq!(times, [0, 1, 1, 2, 3, 4, 5]);
    let children: Vec<_> = events.iter().map(|event| event.child.clone().unwrap()).collect();
    let states: Vec<_> = children.iter().map(|child| child.state).collect();
    assert_eq!(states[0], ChildState::Starting);
    assert_eq!(states[1..3], [ChildState::Running; 2]);
    assert_eq!(states[3..5], [ChildState::Stopping; 2]);
    assert_eq!(states[5..], [ChildState::Cleaning, ChildState::Ended]);
    assert_eq!(children[2].pid, Some(pid_of(run).get()));
    assert_eq!(children[4].exit.as_ref().unwrap().status, ExitStatus::Code(3));
    assert_eq!(children[6], world.ended(client, run));
}

#[test]
fn a_child_that_ends_by_itself_has_not_been_stopped() {
    for members in [Members::Nothing, Members::Outside, Members::Group] {
        let (mut world, client) = World::with_client();
        let run = world.start(client, unnamed());
        world.subscribe(client, None);
        world.take();
        world.exited(run, ExitStatus::Code(3), members);
        world.left(run, Members::Nothing);
        let events = world.told(client);
        let kinds: Vec<_> = events.iter().map(|event| event.kind).collect();
        assert_eq!(kinds, [EventKind::Exited, EventKind::Ended], "{members:?}");
        let exited = events[0].child.clone().unwrap();
        assert_eq!((exited.pid, exited.exit.as_ref().unwrap().status), (None, ExitStatus::Code(3)));
        assert_eq!(exited.exit.as_ref().unwrap().reason, ExitReason::Exited);
    }
}

#[test]
fn a_child_that_never_was_is_told_to_have_ended() {
    let (mut world, client) = World::with_client();
    world.subscribe(client, None);
    let call = world.create(client, cleaned(unnamed()));
    let run = world.run(call);
    world.recorded(run);
    world.give(Input::SpawnFailed { run, failure: no_such_file() });
    let events = world.told(client);
    let kinds: Vec<_> = events.iter().map(|event| event.kind).collect();
    assert_eq!(kinds, [EventKind::Created, EventKind::Ended]);
    let ended = events[1].child.clone().unwrap();
    assert_eq!(ended.exit.as_ref().unwrap().reason, ExitReason::StartFailed);
}

#[test]
fn a_subscriber_gets_its_answer_before_what_is_kept_and_then_what_comes() {
    let (mut world, client) = World::with_client();
    let run = world.start(client, unnamed());
    let call = world.call(client, events(Some(2)));
    let subscribed = world.subscribed(call);
    assert_eq!(subscribed.next, 4);
    world.ends(run);
    let all = world.published(client);
    let seqs: Vec<_> = all
        .iter()
        .map(|notification| match notification {
            Notification::Event { subscription, event } => {
                assert_eq!(*subscription, subscribed.subscription);
                event.seq
            }
            other => panic!("told {other:?}"),
        })
        .collect();
    assert_eq!(seqs, [2, 3, 4, 5]);
}

#[test]
fn since_selects_what_is_kept() {
    let (mut world, client) = World::with_client();
    world.start(client, unnamed());
    // Three events are kept: 1 to 3.
    for (since, expected) in [
        (None, vec![]),
        (Some(0), vec![1, 2, 3]),
        (Some(1), vec![1, 2, 3]),
        (Some(3), vec![3]),
        (Some(4), vec![]),
        // A number of an earlier broker, which had counted further: all of this one's is new.
        (Some(5), vec![1, 2, 3]),
        (Some(u64::MAX), vec![1, 2, 3]),
    ] {
        world.subscribe(client, since);
        let seqs: Vec<_> = world.told(client).iter().map(|event| event.seq).collect();
        assert_eq!(seqs, expected, "{since:?}");
    }
}

#[test]
fn the_last_ten_thousand_are_kept_and_who_asks_for_more_is_told_what_it_missed() {
    let (mut world, client) = World::with_client();
    // Five events each.
    for _ in 0..2_002 {
        let run = world.start(client, unnamed());
        world.ends(run);
    }
    world.take();
    for (since, missed) in [(1, Some(10)), (10, Some(1)), (11, None)] {
        let subscribed = world.subscribe(client, Some(since));
        assert_eq!(subscribed.next, 10_011);
        let mut told = world.published(client);
        if let Some(missed) = missed {
            let lagged = Notification::Lagged { subscription: subscribed.subscription, missed };
            assert_eq!(told.remove(0), lagged);
        }
        assert_eq!(told.len(), 10_000, "since {since}");
        assert!(matches!(&told[0], Notification::Event { event, .. } if event.seq == 11));
    }
}

#[test]
fn labels_select_children_and_the_brokers_own_events_come_to_all() {
    let (mut world, client) = World::with_client();
    let call = world.call(client, events_of("pool", "a"));
    world.subscribed(call);
    world.take();
    for value in ["b", "a"] {
        let call = world.create(client, labelled("pool", value));
        let run = world.run(call);
        world.recorded(run);
        world.spawned(run);
        let expected: &[EventKind] = match value {
            "a" => &[EventKind::Created, EventKind::Started, EventKind::Ready],
            _ => &[],
        };
        assert_eq!(world.kinds(client), expected);
    }
    world.term();
    let told = world.told(client);
    let kinds: Vec<_> = told.iter().map(|event| event.kind).collect();
    assert_eq!(kinds, [EventKind::ShuttingDown, EventKind::Stopping]);
    assert_eq!(told[0].child, None);
}

#[test]
fn others_are_told_of_their_own_children_only() {
    let mut world = World::new();
    let clients = [ALICE, BOB, BROKER_UID, 0].map(|uid| world.connect(uid));
    for client in clients {
        world.subscribe(client, None);
    }
    world.take();
    let call = world.create(clients[0], named("a"));
    assert_eq!(world.published(clients[0]), [], "it is not on record yet");
    world.recorded(world.run(call));
    assert_eq!(clients.map(|client| world.published(client).len()), [1, 0, 1, 1]);
    // What is kept is not told to others either.
    world.take();
    world.subscribe(clients[1], Some(1));
    assert_eq!(world.published(clients[1]), []);
    world.term();
    assert_eq!(clients.map(|client| world.published(client).is_empty()), [false; 4]);
}

#[test]
fn a_shutdown_is_told_before_the_first_stop() {
    let (mut world, client, runs) = world_of(&[(0, 5), (1, 5)]);
    world.subscribe(client, None);
    world.take();
    world.term();
    assert_eq!(world.kinds(client), [EventKind::ShuttingDown, EventKind::Stopping]);
    world.term_again();
    world.ends(runs[0]);
    assert!(!world.kinds(client).contains(&EventKind::ShuttingDown));
}

#[test]
fn subscriptions_of_a_connection_are_bounded_and_end_with_it() {
    let mut world = World::with(|config| config.bounds.max_subscriptions = 2);
    let client = world.connect(BROKER_UID);
    let run = world.start(client, unnamed());
    let first = world.subscribe(client, None);
    let call = world.call(client, follow(id(run)));
    assert!(!world.is_answered(call));
    for request in [events(None), follow(id(run))] {
        let error = world.ask(client, request).unwrap_err();
        assert_eq!(error.kind, ErrorKind::LimitExceeded);
        assert!(error.message.contains("--max-subscriptions"), "{}", error.message);
    }
    let other = world.connect(BROKER_UID);
    let second = world.subscribe(other, None);
    assert_ne!(first.subscription, second.subscription);
    world.give(Input::Disconnected { connection: client });
    world.take();
    world.ends(run);
    assert_eq!((world.published(client), world.kinds(other).len()), (vec![], 2));
}

#[test]
fn a_user_has_no_more_subscriptions_than_it_may_have_connections() {
    let mut world = World::with(|config| config.bounds.max_connections_per_user = 3);
    let [first, second] = [(); 2].map(|()| world.connect(ALICE));
    world.subscribe(first, None);
    world.subscribe(first, None);
    world.subscribe(second, None);
    let refused = world.ask(second, events(None)).unwrap_err();
    assert_eq!(refused.kind, ErrorKind::LimitExceeded);
    assert!(refused.message.contains("--max-connections-per-user"), "{}", refused.message);
    let other = world.connect(BOB);
    world.subscribe(other, None);
    world.give(Input::Disconnected { connection: first });
    world.subscribe(second, None);
}

#[test]
fn an_event_of_a_child_is_told_to_its_owner_and_to_administrators_alone() {
    let mut world = World::new();
    let [alice, bob, administrator] = [ALICE, BOB, BROKER_UID].map(|uid| world.connect(uid));
    for client in [alice, bob, administrator] {
        world.subscribe(client, None);
    }
    world.take();
    let run = world.start(alice, unnamed());
    world.ends(run);
    assert_eq!([alice, bob, administrator].map(|client| world.kinds(client).len()), [5, 0, 5]);
}

#[test]
fn a_turn_costs_the_same_however_many_subscribe() {
    let mut world = World::new();
    let creator = world.connect(ALICE);
    let clients: Vec<_> = (0..100).map(|_| world.connect(ALICE)).collect();
    for client in &clients {
        for _ in 0..16 {
            world.subscribe(*client, None);
        }
    }
    let runs: Vec<_> = (0..50).map(|_| world.start(creator, unnamed())).collect();
    world.take();
    world.call(creator, destroy(procbroker_protocol::Target::All));
    let orders = world.take();
    let for_subscribers = |order: &&Effect| matches!(order, Effect::Publish { .. } | Effect::Unread { .. });
    assert_eq!(orders.iter().filter(for_subscribers).count(), 0, "those who have not read are told nothing");
    for client in [clients[0], clients[99]] {
        assert_eq!(world.told(client).len(), 16 * 4 * runs.len());
    }
    world.ends(runs[0]);
    let orders = world.take();
    assert_eq!(orders.iter().filter(for_subscribers).count(), 2, "those who have read are told once");
}

#[test]
fn events_are_told_to_the_end() {
    let (mut world, client, runs) = world_of(&[(0, 5)]);
    let asked = world.call(client, shutdown(None));
    world.subscribe(client, None);
    world.take();
    world.ends(runs[0]);
    assert_eq!(world.kinds(client), [EventKind::Exited, EventKind::Ended]);
    world.give(Input::Swept { left: 0 });
    assert!(matches!(world.answer(asked), Ok(Response::ShutDown(_))));
}
