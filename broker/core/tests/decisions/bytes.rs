//! Bounds in bytes: what is shown of long texts, and what one user can make the broker keep.

use procbroker_core::{ConnectionId, Effect, Input, Notice, Report, Run, bytes_of};
use procbroker_protocol::create::{IfExists, Ready};
use procbroker_protocol::request::{EventsParams, Until};
use procbroker_protocol::{
    CreateParams, ErrorKind, EventKind, Field, Fields, Got, Request, Response, Signal,
};

use crate::world::*;

/// A create with a command line of about so many bytes, in two words.
fn of_bytes(bytes: usize) -> CreateParams {
    CreateParams { command: vec!["sleep".to_owned(), "ä".repeat(bytes / 2)], ..unnamed() }
}

#[test]
fn a_long_command_is_whole_in_get_and_shortened_everywhere_else() {
    let (mut world, client) = World::with_client();
    let asked = of_bytes(200 << 10);
    let call = world.create(client, asked.clone());
    let run = world.run(call);
    world.recorded(run);
    world.spawned(run);
    let call = world.call(client, list(false));
    let listed = world.children(call).remove(0);
    let command: Fields = [Field::Command].into_iter().collect();
    assert_eq!(listed.shortened, command);
    assert_eq!(listed.command[0], "sleep");
    assert!(asked.command[1].starts_with(&listed.command[1]));
    let bytes: usize = listed.command.iter().map(String::len).sum();
    assert!((3 << 10..=4 << 10).contains(&bytes), "{bytes}");

    let Ok(Response::Got(Got { child, spec })) = world.ask(client, get(id(run))) else {
        panic!("another answer")
    };
    assert_eq!((&child.command, child.shortened), (&asked.command, Fields::default()));
    assert_eq!(spec.unwrap().params.command, asked.command);

    let reported: Vec<_> = world
        .orders()
        .iter()
        .filter_map(|effect| match effect {
            Effect::Report(Report::Started { child }) => Some(child.shortened),
            _ => None,
        })
        .collect();
    assert_eq!(reported, [command]);
    world.take();
    world.subscribe(client, Some(1));
    let events = world.told(client);
    let created = events.iter().find(|event| event.kind == EventKind::Created).unwrap();
    assert_eq!(created.child.as_ref().unwrap().shortened, command);
}

/// A broker as root in which three children with long commands fill one user's part, and seven that of all but the
/// administrators.
fn tight() -> World {
    let child = bytes_of(&of_bytes(LONG));
    World::with(|config| {
        config.broker_uid = 0;
        config.allow_users.push(CAROL);
        config.bounds.max_kept_bytes_per_user = (child + 1024) * 8;
        config.bounds.max_kept_bytes = (8 * child).div_ceil(3) * 8 + 8;
    })
}

const LONG: usize = 10 << 10;
const CAROL: u32 = 1003;

fn kinds_of_creates(world: &mut World, client: ConnectionId, count: usize) -> Vec<Option<ErrorKind>> {
    let create = |_| {
        let call = world.create(client, of_bytes(LONG));
        world.is_answered(call).then(|| world.refused(call))
    };
    (0..count).map(create).collect()
}

#[test]
fn a_user_whose_children_have_too_many_bytes_gets_no_more_until_one_ends() {
    let mut world = tight();
    let (alice, bob) = (world.connect(ALICE), world.connect(BOB));
    let runs = [(); 3].map(|()| world.start(alice, of_bytes(LONG)));
    let call = world.create(alice, of_bytes(LONG));
    assert_eq!(world.refused(call), ErrorKind::LimitExceeded);
    assert_eq!(world.intents(), [], "nothing is done of what is refused");
    world.start(bob, of_bytes(LONG));
    world.ends(runs[0]);
    world.start(alice, of_bytes(LONG));
}

#[test]
fn a_tenth_of_all_bytes_is_left_to_root() {
    let mut world = tight();
    let clients = [ALICE, BOB, CAROL].map(|uid| world.connect(uid));
    for (client, expected) in clients.into_iter().zip([3, 3, 1]) {
        let refused = kinds_of_creates(&mut world, client, 3);
        let taken = refused.iter().filter(|kind| kind.is_none()).count();
        assert_eq!(taken, expected, "{refused:?}");
    }
    let root = world.connect(0);
    world.start(root, of_bytes(LONG));
}

#[test]
fn ended_children_make_room_oldest_first_and_only_those_of_who_needs_it() {
    let mut world = tight();
    let (alice, bob) = (world.connect(ALICE), world.connect(BOB));
    let bobs = world.start(bob, of_bytes(LONG));
    world.ends(bobs);
    let mut runs = Vec::new();
    for _ in 0..5 {
        let run = world.start(alice, of_bytes(LONG));
        world.ends(run);
        runs.push(run);
    }
    let call = world.call(alice, list(true));
    let visible: Vec<_> = world.children(call).iter().map(|child| child.id).collect();
    assert_eq!(visible, [runs[2].child, runs[3].child, runs[4].child]);
    world.start(alice, of_bytes(LONG));
    let call = world.call(alice, list(true));
    assert_eq!(world.children(call).len(), 3, "a live one takes the place of an ended one");
    let call = world.call(bob, list(true));
    assert_eq!(world.children(call).len(), 1);
}

#[test]
fn creates_that_wait_are_refused_when_they_have_too_many_bytes_and_nothing_is_done() {
    let mut world = tight();
    let (alice, bob) = (world.connect(ALICE), world.connect(BOB));
    let holder = CreateParams { ready: Ready::Notify, no_wait: true, ..named("n") };
    let run = world.start(alice, holder);
    let parked = CreateParams { name: named("n").name, if_exists: IfExists::Reuse, ..of_bytes(LONG) };
    let first = world.create(alice, parked.clone());
    assert!(!world.is_answered(first), "there is room for one of them");
    let second = world.create(alice, parked.clone());
    assert_eq!(world.refused(second), ErrorKind::Overloaded);
    let replacing = CreateParams { if_exists: IfExists::Replace, ..parked.clone() };
    let call = world.create(alice, replacing);
    assert_eq!(world.refused(call), ErrorKind::Overloaded);
    assert_eq!(world.sent(), [], "the holder is not stopped for a create that is refused");
    let bobs = world.start(bob, unnamed());
    let waits = world.call(bob, wait(id(bobs), Until::Ended, None));
    assert!(!world.is_answered(waits), "others wait as before");
    world.ends(run);
    let call = world.create(alice, CreateParams { name: named("m").name, ..parked });
    assert!(!world.is_answered(call), "the bytes are given back");
}

#[test]
fn requests_that_wait_have_no_more_bytes_than_their_users_part_and_give_them_back() {
    let mut world = tight();
    let alice = world.connect(ALICE);
    let run = world.start(alice, unnamed());
    let mut refused = 0;
    let calls: Vec<_> = (0..200).map(|_| world.call(alice, wait(id(run), Until::Ended, None))).collect();
    for call in calls {
        if world.is_answered(call) {
            assert_eq!(world.refused(call), ErrorKind::Overloaded);
            refused += 1;
        }
    }
    assert!((1..200).contains(&refused), "{refused}");
    assert!(world.counts().kept.requests > 0);
    world.ends(run);
    assert_eq!(world.counts().kept.requests, 0);
}

/// A create that waits for a word of its child, and what the same request looks like when it comes again.
fn unready(bytes: usize) -> (CreateParams, CreateParams) {
    let first = CreateParams { ready: Ready::Notify, name: named("n").name, ..of_bytes(bytes) };
    (requested(first, 1), requested(unnamed(), 1))
}

/// Whether others than a user who has its part still destroy, signal and wait, root and another one.
fn others_go_on(world: &mut World, others: [(ConnectionId, Run); 2]) {
    for (client, run) in others {
        let waits = world.call(client, wait(id(run), Until::Ended, None));
        let signals = world.call(client, signal(id(run), Signal::HUP));
        let destroys = world.call(client, destroy(id(run)));
        assert!(![waits, signals, destroys].into_iter().any(|call| world.is_answered(call)));
    }
}

#[test]
fn retries_of_a_create_wait_within_the_bytes_of_their_user() {
    let mut world = tight();
    let others = [BOB, 0].map(|uid| {
        let client = world.connect(uid);
        (client, world.start(client, unnamed()))
    });
    let alice = world.connect(ALICE);
    world.take();
    let (first, again) = unready(0);
    let first = world.create(alice, first);
    let run = world.run(first);
    let mut refused = 0;
    for _ in 0..200 {
        let call = world.create(alice, again.clone());
        if world.is_answered(call) {
            assert_eq!(world.refused(call), ErrorKind::Overloaded);
            refused += 1;
        }
    }
    assert!((1..200).contains(&refused), "{refused}");
    let kept = world.counts().kept.requests;
    assert!(kept <= (bytes_of(&of_bytes(LONG)) + 1024), "{kept}");
    others_go_on(&mut world, others);
    let call = world.create(alice, unnamed());
    assert_eq!(world.refused(call), ErrorKind::Overloaded, "its create would have to wait as well");
    assert_eq!(world.intents().len(), 1, "nothing is done of what is refused");
    world.recorded(run);
    world.spawned(run);
    world.give(Input::Notified { run, notices: vec![Notice::Ready] });
    assert_eq!(world.created(first).child.id, run.child);
    world.start(alice, unnamed());
}

#[test]
fn what_a_replaced_create_asks_for_is_counted_once_with_all_its_retries() {
    let child = bytes_of(&of_bytes(LONG));
    let mut world = World::with(|config| {
        config.broker_uid = 0;
        config.bounds.max_kept_bytes_per_user = (child + 2048) * 16;
        config.bounds.max_kept_bytes = child * 64;
    });
    let others = [BOB, 0].map(|uid| {
        let client = world.connect(uid);
        (client, world.start(client, unnamed()))
    });
    let alice = world.connect(ALICE);
    let (first, again) = unready(LONG);
    let text = bytes_of(&first);
    let first = world.create(alice, first);
    let run = world.run(first);
    world.recorded(run);
    world.spawned(run);
    let retries = [(); 5].map(|()| world.create(alice, again.clone()));
    let before = world.counts().kept.requests;
    let replacing = world.create(alice, replace("n"));
    assert!(!world.is_answered(replacing));
    let more = world.counts().kept.requests - before;
    assert!(more < text + 2048, "{more} of {text}");
    let late = world.create(alice, again);
    assert!(world.counts().kept.requests < before + more + 1024);
    others_go_on(&mut world, others);
    world.ends(run);
    let next = world.run(replacing);
    assert!(world.counts().kept.requests > text, "they wait for what takes the place of theirs");
    world.recorded(next);
    world.spawned(next);
    for call in retries.into_iter().chain([first, late]) {
        assert_eq!(world.created(call).child.id, next.child);
    }
    assert!(world.counts().kept.requests < 4096, "only the others wait");
}

#[test]
fn events_are_kept_within_their_bytes() {
    let mut world = tight();
    let alice = world.connect(ALICE);
    for _ in 0..200 {
        let run = world.start(alice, of_bytes(LONG));
        world.ends(run);
    }
    let kept = world.counts().kept;
    assert!(kept.events <= kept.children.max(20 << 10) && kept.events > 10 << 10, "{kept:?}");
}

#[test]
fn subscribers_take_room_by_their_labels_until_their_connection_is_closed() {
    let mut world = tight();
    let (alice, bob) = (world.connect(ALICE), world.connect(BOB));
    let labels = [("pool".to_owned(), "x".repeat(LONG))].into();
    let watch = Request::Events(EventsParams { since: None, labels });
    let first = world.call(alice, watch.clone());
    world.subscribed(first);
    let second = world.call(alice, watch.clone());
    assert_eq!(world.refused(second), ErrorKind::Overloaded);
    let others = world.call(bob, watch.clone());
    world.subscribed(others);
    world.give(Input::Disconnected { connection: bob });
    assert!(world.counts().kept.requests < 2 * LONG as u64);
    world.give(Input::Disconnected { connection: alice });
    assert_eq!(world.counts().kept.requests, 0);
    let alice = world.connect(ALICE);
    let again = world.call(alice, watch);
    world.subscribed(again);
}
