//! Who is connected, within which bounds.

use procbroker_core::{Bounds, Input, Peer, UserRange};
use procbroker_protocol::ErrorKind;
use procbroker_protocol::request::Until;

use crate::world::*;

#[test]
fn root_the_brokers_user_and_those_that_are_allowed_may_connect() {
    let with_groups = |gid, groups: &[u32]| Peer { gid, groups: groups.to_vec(), ..peer(5) };
    let cases = [
        (peer(0), true),
        (peer(BROKER_UID), true),
        (peer(ALICE), true),
        (peer(5), false),
        (with_groups(50, &[]), true),
        (with_groups(5, &[7, 50]), true),
        (with_groups(5, &[ALICE, BROKER_UID, 0]), false),
        (with_groups(0, &[]), false),
        // Subordinate users of an account, of whom one is allowed itself.
        (Peer { gid: 50, ..peer(999) }, true),
        (Peer { gid: 50, ..peer(1_000) }, false),
        (Peer { groups: vec![50], ..peer(1_099) }, false),
        (Peer { gid: 50, ..peer(1_100) }, true),
        (Peer { gid: 50, ..peer(BOB) }, true),
        (Peer { gid: 50, ..peer(ALICE) }, true),
    ];
    let mut world = World::with(|config| {
        config.allow_groups = vec![50];
        config.subordinates =
            vec![UserRange { first: 1_000, count: 100 }, UserRange { first: u32::MAX, count: 9 }];
    });
    for (peer, is_allowed) in cases {
        match world.try_connect(peer.clone()) {
            Ok(_) => assert!(is_allowed, "{peer:?}"),
            Err(error) => {
                assert!(!is_allowed, "{peer:?}");
                assert_eq!(error.kind, ErrorKind::PermissionDenied);
                assert!(error.message.contains("--allow-user"), "{}", error.message);
            }
        }
    }
}

#[test]
fn a_client_that_was_refused_is_not_served() {
    let mut world = World::new();
    world.try_connect(peer(5)).unwrap_err();
    let refused = procbroker_core::ConnectionId(1);
    let call = world.call(refused, status());
    assert!(!world.is_answered(call));
    world.create(refused, unnamed());
    world.call(refused, shutdown(None));
    assert_eq!(world.take(), []);
}

#[test]
fn connections_are_bounded_in_all_and_for_each_user() {
    // One of the four is left to administrators.
    let bounds = Bounds { max_connections: 4, max_connections_per_user: 2, ..Bounds::default() };
    let mut world = World::with(|config| config.bounds = bounds);
    let first = world.connect(ALICE);
    world.connect(ALICE);
    assert_eq!(world.try_connect(peer(ALICE)).unwrap_err().kind, ErrorKind::Overloaded);
    world.connect(BOB);
    assert_eq!(world.try_connect(peer(BOB)).unwrap_err().kind, ErrorKind::Overloaded);
    world.give(Input::Disconnected { connection: first });
    world.give(Input::Disconnected { connection: first });
    world.connect(ALICE);
    assert_eq!(world.try_connect(peer(BOB)).unwrap_err().kind, ErrorKind::Overloaded);
}

#[test]
fn root_and_the_brokers_user_get_in_when_others_have_all_that_they_may() {
    for (max_connections, open) in [(20, 18), (2, 1), (1, 1)] {
        let bounds = Bounds { max_connections, max_connections_per_user: 20, ..Bounds::default() };
        let mut world = World::with(|config| config.bounds = bounds);
        for _ in 0..open {
            world.connect(ALICE);
        }
        let error = world.try_connect(peer(BOB)).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Overloaded);
        assert!(error.message.contains("a tenth is left to root and the broker's user"), "{}", error.message);
        let uids = [0, BROKER_UID].into_iter().cycle();
        for uid in uids.take(usize::try_from(max_connections - open).unwrap()) {
            let administrator = world.connect(uid);
            world.ask(administrator, status()).unwrap();
        }
        assert_eq!(world.try_connect(peer(0)).unwrap_err().kind, ErrorKind::Overloaded);
    }
}

#[test]
fn requests_that_are_not_answered_are_bounded_for_each_connection() {
    let bounds = Bounds { max_pipelined: 2, ..Bounds::default() };
    let mut world = World::with(|config| config.bounds = bounds);
    let (client, other) = (world.connect(BROKER_UID), world.connect(BROKER_UID));
    let run = world.start(client, unnamed());
    let calls = [(); 2].map(|()| world.call(client, wait(id(run), Until::Ended, None)));
    let third = world.call(client, status());
    assert_eq!(world.refused(third), ErrorKind::Overloaded);
    world.ask(other, status()).unwrap();
    world.ends(run);
    assert!(calls.iter().all(|call| world.is_answered(*call)));
    world.ask(client, status()).unwrap();
}

#[test]
fn a_client_that_disconnects_gets_no_answer_any_more() {
    let mut world = World::new();
    let (client, other) = (world.connect(BROKER_UID), world.connect(BROKER_UID));
    let run = world.start(client, unnamed());
    let calls = [
        world.call(other, wait(id(run), Until::Ended, Some(secs(5)))),
        world.call(other, destroy(id(run))),
        world.call(other, signal(id(run), procbroker_protocol::Signal::HUP)),
        world.create(other, named("a")),
        world.call(other, shutdown(None)),
    ];
    world.give(Input::Disconnected { connection: other });
    world.signalled(run, calls[2], procbroker_core::SignalOutcome::Delivered);
    let create = world.run(calls[3]);
    world.recorded(create);
    world.ends(run);
    world.advance(secs(5));
    world.give(Input::Swept { left: 0 });
    assert!(world.exit().is_some());
    assert!(calls.iter().all(|call| !world.is_answered(*call)));
}
