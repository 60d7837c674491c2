//! list, get, wait, signal and status: what clients see of children, and when they hear of a change.

use std::time::Duration;

use procbroker_core::{Bounds, ConnectionId, Input, Members, Run, SignalOutcome};
use procbroker_protocol::create::{
    Account, Ready, ReadyTimeout, RestartPolicy, StandardError, StandardOutput,
};
use procbroker_protocol::request::{ListParams, Scope, SignalParams, Until};
use procbroker_protocol::status::ChildCounts;
use procbroker_protocol::{
    ChildState, CreateParams, ErrorKind, ExitStatus, Field, Got, Name, Request, Response, Signal, Spec,
    Target, version::PROTOCOL,
};

use crate::world::*;

fn ids(world: &mut World, client: procbroker_core::ConnectionId, request: Request) -> Vec<u128> {
    let call = world.call(client, request);
    world.children(call).iter().map(|child| child.id.as_uuid().as_u128()).collect()
}

fn numbers(runs: &[procbroker_core::Run]) -> Vec<u128> {
    runs.iter().map(|run| run.child.as_uuid().as_u128()).collect()
}

#[test]
fn list_shows_live_children_oldest_first_and_ended_ones_on_demand() {
    let (mut world, client) = World::with_client();
    let runs = [(); 4].map(|()| world.start(client, unnamed()));
    let starting = world.create(client, unnamed());
    let starting = world.run(starting);
    world.ends(runs[1]);
    world.exited(runs[3], ExitStatus::Code(0), Members::Group);
    let live = [runs[0], runs[2], runs[3], starting];
    assert_eq!(ids(&mut world, client, list(false)), numbers(&live));
    let all = [runs[0], runs[1], runs[2], runs[3], starting];
    assert_eq!(ids(&mut world, client, list(true)), numbers(&all));
}

#[test]
fn list_selects_by_all_of_the_labels() {
    let (mut world, client) = World::with_client();
    let mut both = labelled("pool", "a");
    both.labels.insert("tier".to_owned(), "1".to_owned());
    let both = world.start(client, both);
    let one = world.start(client, labelled("pool", "a"));
    world.start(client, labelled("pool", "b"));
    let list = |labels: &[(&str, &str)]| {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Request::List(ListParams { labels, all: true, fields: None })
    };
    assert_eq!(ids(&mut world, client, list(&[("pool", "a")])), numbers(&[both, one]));
    assert_eq!(ids(&mut world, client, list(&[("pool", "a"), ("tier", "1")])), numbers(&[both]));
    assert_eq!(ids(&mut world, client, list(&[("tier", "2")])), numbers(&[]));
}

#[test]
fn list_shows_only_the_members_that_are_asked_for() {
    let (mut world, client) = World::with_client();
    let run = world.start(client, named("a"));
    let list = |fields: &[Field]| {
        Request::List(ListParams { fields: Some(fields.iter().copied().collect()), ..ListParams::default() })
    };
    let Ok(Response::PartialChildren(children)) = world.ask(client, list(&[Field::Name, Field::State]))
    else {
        panic!("another answer")
    };
    let child = children.iter().next().unwrap();
    assert_eq!((children.len(), child.id()), (1, run.child));
    assert_eq!(child.name().unwrap().as_ref().map(Name::as_str), Some("a"));
    assert_eq!((child.state(), child.pid()), (Some(&ChildState::Running), None));
    let Ok(Response::PartialChildren(ids)) = world.ask(client, list(&[])) else { panic!("another answer") };
    assert_eq!(ids.iter().map(|child| (child.id(), child.name())).collect::<Vec<_>>(), [(run.child, None)]);
}

/// The specification that somebody is told of a child.
fn spec_for(world: &mut World, client: ConnectionId, run: Run) -> Option<Spec> {
    match world.ask(client, get(id(run))) {
        Ok(Response::Got(Got { spec, .. })) => spec.map(|spec| *spec),
        Ok(_) | Err(_) => None,
    }
}

#[test]
fn get_tells_what_a_child_was_created_with_and_what_that_has_become() {
    let mut world = World::with(|config| config.broker_uid = 0);
    let (alice, root) = (world.connect(ALICE), world.connect(0));
    let asked = CreateParams { env: [("A".to_owned(), "1".to_owned())].into(), ..named("a") };
    let run = world.start(alice, asked.clone());
    let expected = Spec {
        params: CreateParams {
            user: Some(Account::Id(ALICE)),
            groups: Some(vec![Account::Id(ALICE)]),
            cwd: Some("/".to_owned()),
            ..asked
        },
        group: Some(ALICE),
        log: Some(format!("/logs/{}.out", run.child)),
    };
    for client in [alice, root] {
        assert_eq!(spec_for(&mut world, client, run).as_ref(), Some(&expected));
    }
    world.ends(run);
    assert_eq!(spec_for(&mut world, alice, run), Some(expected));
}

#[test]
fn the_specification_of_a_child_with_the_brokers_own_rights_names_its_user_and_where_its_errors_are() {
    let (mut world, client) = World::with_client();
    let cases = [
        (StandardOutput::Log, StandardError::Log, Some("out")),
        (StandardOutput::Null, StandardError::Log, Some("err")),
        (StandardOutput::Null, StandardError::Stdout, None),
    ];
    for (stdout, stderr, ending) in cases {
        let run = world.start(client, CreateParams { stdout, stderr, ..unnamed() });
        let spec = spec_for(&mut world, client, run).unwrap();
        assert_eq!(spec.log, ending.map(|ending| format!("/logs/{}.{ending}", run.child)));
        assert_eq!(
            (spec.params.user, spec.params.groups, spec.group),
            (Some(Account::Id(BROKER_UID)), None, None)
        );
    }
}

#[test]
fn get_finds_by_id_and_name_and_prefers_the_live_holder() {
    let (mut world, client) = World::with_client();
    let first = world.start(client, named("a"));
    world.ends(first);
    let call = world.call(client, get(name("a")));
    assert_eq!(world.child(call).id, first.child);
    let second = world.start(client, named("a"));
    let call = world.call(client, get(name("a")));
    assert_eq!(world.child(call).id, second.child);
    world.ends(second);
    let call = world.call(client, get(name("a")));
    assert_eq!(world.child(call).id, second.child);
    assert_eq!(world.shown(client, first).state, ChildState::Ended);
    let error = world.ask(client, get(name("b"))).unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
    assert!(error.message.contains(" b "), "{}", error.message);
}

#[test]
fn ended_children_are_kept_by_their_number() {
    let bounds = Bounds { ended_kept: 2, ..Bounds::default() };
    let mut world = World::with(|config| config.bounds = bounds);
    let client = world.connect(BROKER_UID);
    let runs = [(); 3].map(|()| world.start(client, unnamed()));
    for run in [runs[2], runs[0]] {
        world.ends(run);
    }
    world.take();
    world.ends(runs[1]);
    assert!(world.take().contains(&procbroker_core::Effect::Forget { child: runs[2].child }));
    assert_eq!(ids(&mut world, client, list(true)), numbers(&[runs[0], runs[1]]));
}

#[test]
fn a_crowd_of_one_users_ended_children_hides_no_others() {
    let bounds = Bounds { ended_kept: 4, ..Bounds::default() };
    let mut world = World::with(|config| config.bounds = bounds);
    let (alice, bob) = (world.connect(ALICE), world.connect(BOB));
    let end = |world: &mut World, client| {
        let run = world.start(client, unnamed());
        world.ends(run);
        run
    };
    let of_alice = [(); 2].map(|()| end(&mut world, alice));
    let mut of_bob: Vec<Run> = (0..10).map(|_| end(&mut world, bob)).collect();
    assert_eq!(ids(&mut world, alice, list(true)), numbers(&of_alice));
    assert_eq!(ids(&mut world, bob, list(true)), numbers(&of_bob[8..]));
    // Each has a half by then, and who has one more loses the first of his own.
    let third = end(&mut world, alice);
    assert_eq!(ids(&mut world, alice, list(true)), numbers(&[of_alice[1], third]));
    of_bob.push(end(&mut world, bob));
    assert_eq!(ids(&mut world, bob, list(true)), numbers(&of_bob[9..]));
    assert_eq!(ids(&mut world, alice, list(true)), numbers(&[of_alice[1], third]));
}

#[test]
fn of_two_who_have_as_many_ended_children_the_one_that_ended_first_makes_place() {
    let bounds = Bounds { ended_kept: 3, ..Bounds::default() };
    let mut world = World::with(|config| config.bounds = bounds);
    let clients = [world.connect(BOB), world.connect(ALICE)];
    let mut runs = Vec::new();
    for client in [clients[0], clients[1], clients[1], clients[0]] {
        runs.push(world.start(client, unnamed()));
        world.ends(runs[runs.len() - 1]);
    }
    assert_eq!(ids(&mut world, clients[0], list(true)), numbers(&runs[3..]));
    assert_eq!(ids(&mut world, clients[1], list(true)), numbers(&runs[1..3]));
}

#[test]
fn ended_children_are_kept_for_their_time() {
    let bounds = Bounds { ended_kept_for: secs(60), ..Bounds::default() };
    let mut world = World::with(|config| config.bounds = bounds);
    let client = world.connect(BROKER_UID);
    let runs = [world.start(client, named("a")), world.start(client, unnamed())];
    world.ends(runs[0]);
    world.advance(secs(20));
    world.ends(runs[1]);
    world.advance(Duration::from_millis(39_999));
    assert_eq!(ids(&mut world, client, list(true)), numbers(&runs));
    world.advance(Duration::from_millis(1));
    assert_eq!(ids(&mut world, client, list(true)), numbers(&runs[1..]));
    assert_eq!(world.ask(client, get(name("a"))).unwrap_err().kind, ErrorKind::NotFound);
    world.advance(secs(20));
    assert_eq!(ids(&mut world, client, list(true)), numbers(&[]));
    assert_eq!(world.due_in(), None);
}

#[test]
fn who_waits_hears_of_the_end_even_when_nothing_is_kept() {
    let bounds = Bounds { ended_kept: 0, ..Bounds::default() };
    let mut world = World::with(|config| config.bounds = bounds);
    let client = world.connect(BROKER_UID);
    let runs = [world.start(client, labelled("a", "b")), world.start(client, labelled("a", "b"))];
    let waiting = world.call(client, wait(id(runs[0]), Until::Ended, None));
    let destroying = world.call(client, destroy(labels("a", "b")));
    world.ends(runs[0]);
    world.ends(runs[1]);
    assert_eq!(world.child(waiting).state, ChildState::Ended);
    assert_eq!(world.children(destroying).len(), 2);
    assert_eq!(ids(&mut world, client, list(true)), numbers(&[]));
}

#[test]
fn wait_answers_when_its_state_has_come_or_at_once() {
    let (mut world, client) = World::with_client();
    let create = world.create(client, named("a"));
    let run = world.run(create);
    let ready = world.call(client, wait(name("a"), Until::Ready, None));
    let ended = world.call(client, wait(name("a"), Until::Ended, None));
    world.recorded(run);
    assert!(!world.is_answered(ready));
    world.spawned(run);
    assert_eq!(world.child(ready).state, ChildState::Running);
    let ready = world.call(client, wait(id(run), Until::Ready, None));
    assert_eq!(world.child(ready).state, ChildState::Running);
    world.exited(run, ExitStatus::Code(0), Members::Group);
    assert!(!world.is_answered(ended));
    world.left(run, Members::Nothing);
    assert_eq!(world.child(ended).state, ChildState::Ended);
    for until in [Until::Ready, Until::Ended] {
        let call = world.call(client, wait(name("a"), until, None));
        assert_eq!(world.child(call).state, ChildState::Ended);
    }
}

#[test]
fn wait_gives_up_after_its_timeout_and_leaves_the_child_as_it_is() {
    let (mut world, client) = World::with_client();
    let run = world.start(client, unnamed());
    let call = world.call(client, wait(id(run), Until::Ended, Some(secs(5))));
    let at_once = world.call(client, wait(id(run), Until::Ended, Some(Duration::ZERO)));
    assert_eq!(world.refused(at_once), ErrorKind::Timeout(None));
    world.advance(Duration::from_millis(4_999));
    assert!(!world.is_answered(call));
    world.advance(Duration::from_millis(1));
    assert_eq!(world.refused(call), ErrorKind::Timeout(None));
    assert_eq!(world.shown(client, run).state, ChildState::Running);
    world.ends(run);
}

#[test]
fn a_wait_that_is_answered_or_dropped_leaves_no_timer() {
    let (mut world, client) = World::with_client();
    let other = world.connect(BROKER_UID);
    let run = world.start(client, unnamed());
    world.call(other, wait(id(run), Until::Ended, Some(secs(5))));
    world.give(Input::Disconnected { connection: other });
    assert_eq!(world.due_in(), None);
    world.call(client, wait(id(run), Until::Ended, Some(secs(5))));
    world.ends(run);
    assert_eq!(world.due_in(), Some(procbroker_core::ENDED_KEPT_FOR));
}

#[test]
fn signal_is_answered_with_the_word_of_the_kernel() {
    let (mut world, client) = World::with_client();
    let run = world.start(client, unnamed());
    for scope in [Scope::Main, Scope::Group, Scope::All] {
        let params = SignalParams { target: id(run), signal: Signal::HUP, scope };
        let call = world.call(client, Request::Signal(params));
        assert_eq!(world.sent(), [Sent::Signal(run, Signal::HUP, scope)]);
        assert!(!world.is_answered(call));
        world.signalled(run, call, SignalOutcome::Delivered);
        assert_eq!(world.children(call)[0].state, ChildState::Running);
    }
    for (outcome, kind) in
        [(SignalOutcome::Gone, ErrorKind::NotFound), (SignalOutcome::Refused, ErrorKind::PermissionDenied)]
    {
        let call = world.call(client, signal(id(run), Signal::HUP));
        world.signalled(run, call, outcome);
        assert_eq!(world.refused(call), kind);
    }
}

#[test]
fn signal_to_many_waits_for_each_and_succeeds_if_one_got_it() {
    let (mut world, client) = World::with_client();
    let runs = [world.start(client, unnamed()), world.start(client, unnamed())];
    world.take();
    let call = world.call(client, signal(Target::All, Signal::HUP));
    assert_eq!(world.sent().len(), 2);
    world.signalled(runs[1], call, SignalOutcome::Gone);
    world.signalled(runs[1], call, SignalOutcome::Delivered);
    assert!(!world.is_answered(call));
    world.signalled(runs[0], call, SignalOutcome::Delivered);
    assert_eq!(world.children(call).len(), 2);
}

#[test]
fn signal_to_many_means_those_that_have_a_process_and_signal_to_one_waits_for_it() {
    let (mut world, client) = World::with_client();
    let run = world.start(client, unnamed());
    let hanging = world.create(client, unnamed());
    let hanging = world.run(hanging);
    world.recorded(hanging);
    world.take();
    let all = world.call(client, signal(Target::All, Signal::HUP));
    let one = world.call(client, signal(id(hanging), Signal::USR1));
    assert_eq!(world.sent(), [Sent::Signal(run, Signal::HUP, Scope::Main)]);
    world.signalled(run, all, SignalOutcome::Delivered);
    let told: Vec<_> = world.children(all).iter().map(|child| child.id).collect();
    assert_eq!(told, [run.child]);
    world.spawned(hanging);
    assert_eq!(world.sent(), [Sent::Signal(hanging, Signal::USR1, Scope::Main)]);
    world.signalled(hanging, one, SignalOutcome::Delivered);
    assert_eq!(world.children(one).len(), 1);
}

#[test]
fn the_kernel_speaks_once_about_each_signal() {
    let (mut world, client) = World::with_client();
    let runs = [world.start(client, unnamed()), world.start(client, unnamed())];
    let call = world.call(client, signal(Target::All, Signal::HUP));
    world.signalled(runs[0], call, SignalOutcome::Gone);
    world.signalled(runs[0], call, SignalOutcome::Delivered);
    world.signalled(runs[1], call, SignalOutcome::Gone);
    assert_eq!(world.refused(call), ErrorKind::NotFound);
}

#[test]
fn a_name_means_the_last_ended_child_that_the_caller_may_act_on_where_another_holds_it() {
    let mut world = World::new();
    let (alice, bob, root) = (world.connect(ALICE), world.connect(BOB), world.connect(0));
    let meant = |world: &mut World, client| {
        let call = world.call(client, get(name("x")));
        world.child(call).id
    };
    let runs = [alice, alice, bob].map(|client| {
        let run = world.start(client, named("x"));
        world.ends(run);
        run
    });
    let [first, second, of_bob] = runs.map(|run| run.child);
    assert_eq!([alice, bob, root].map(|client| meant(&mut world, client)), [second, of_bob, of_bob]);
    let holder = world.start(bob, named("x"));
    let is_bobs = [alice, bob, root].map(|client| meant(&mut world, client));
    assert_eq!(is_bobs, [second, holder.child, holder.child]);
    let call = world.call(alice, destroy(name("x")));
    assert_eq!(world.children(call)[0].id, second);
    assert_eq!(world.sent(), [], "the holder is left alone");
    let call = world.call(alice, wait(name("x"), Until::Ended, None));
    assert_eq!(world.child(call).id, second);
    assert_ne!(first, second);
}

#[test]
fn a_name_means_nobody_when_the_last_child_of_it_is_not_visible_any_more() {
    let bounds = Bounds { ended_kept: 2, ..Bounds::default() };
    let mut world = World::with(|config| config.bounds = bounds);
    let client = world.connect(ALICE);
    let runs = ["x", "x", "y"].map(|name| {
        let run = world.start(client, named(name));
        world.ends(run);
        run
    });
    let call = world.call(client, get(name("x")));
    assert_eq!(world.child(call).id, runs[1].child);
    let last = world.start(client, unnamed());
    world.ends(last);
    assert_eq!(world.ask(client, get(name("x"))).unwrap_err().kind, ErrorKind::NotFound);
    let call = world.call(client, get(name("y")));
    assert_eq!(world.child(call).id, runs[2].child);
}

#[test]
fn a_message_calls_a_child_by_its_name_and_its_id() {
    let (mut world, client) = World::with_client();
    let run = world.start(client, named("a"));
    let call = world.call(client, wait(id(run), Until::Ended, Some(secs(1))));
    world.advance(secs(1));
    let title = format!("the child a ({})", run.child);
    let message = world.answer(call).unwrap_err().message;
    assert!(message.starts_with(&format!("{title} is still running")), "{message}");
    world.ends(run);
    let message = world.ask(client, signal(id(run), Signal::HUP)).unwrap_err().message;
    assert!(message.starts_with(&format!("{title} has ended")), "{message}");
    let params = CreateParams { ready: Ready::Notify, ready_timeout: ReadyTimeout(secs(1)), ..named("b") };
    let call = world.create(client, params);
    let run = world.run(call);
    world.recorded(run);
    world.spawned(run);
    world.advance(secs(1));
    let message = world.answer(call).unwrap_err().message;
    assert!(
        message.starts_with(&format!("the child b ({}) was not ready within 1s", run.child)),
        "{message}"
    );
}

#[test]
fn what_cannot_be_signalled_is_said_as_it_is() {
    let (mut world, client) = World::with_client();
    let said = |world: &mut World, run: Run| world.ask(client, signal(id(run), Signal::HUP)).unwrap_err();
    let params = restarted(RestartPolicy::Always, named("a"));
    let run = world.start(client, params);
    world.exited(run, ExitStatus::Code(1), Members::Nothing);
    assert_eq!(world.shown(client, run).state, ChildState::Backoff);
    let error = said(&mut world, run);
    assert_eq!(error.kind, ErrorKind::NotFound);
    assert!(error.message.contains("between two runs"), "{}", error.message);

    let left = world.start(client, named("b"));
    world.exited(left, ExitStatus::Code(0), Members::Group);
    let call = world.call(client, signal(id(left), Signal::HUP));
    world.signalled(left, call, SignalOutcome::Gone);
    let error = world.answer(call).unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
    assert!(
        error.message.contains("main process") && error.message.contains("scope group"),
        "{}",
        error.message
    );

    world.left(left, Members::Nothing);
    let error = said(&mut world, left);
    assert!(error.message.contains("has ended; there is nothing to signal"), "{}", error.message);
}

#[test]
fn signal_to_an_ended_child_is_not_found_and_to_none_of_many_is_no_error() {
    let (mut world, client) = World::with_client();
    let run = world.start(client, named("a"));
    world.ends(run);
    world.take();
    for target in [id(run), name("a")] {
        let error = world.ask(client, signal(target, Signal::HUP)).unwrap_err();
        assert_eq!(error.kind, ErrorKind::NotFound);
    }
    for target in [Target::All, labels("a", "b")] {
        assert_eq!(world.ask(client, signal(target, Signal::HUP)), Ok(Response::Children(Vec::new())));
    }
    assert_eq!(world.sent(), []);
}

#[test]
fn status_counts_children_by_state_and_connections() {
    let mut world = World::new();
    let (client, other) = (world.connect(BROKER_UID), world.connect(ALICE));
    world.connect(BOB);
    let runs = [(); 5].map(|()| world.start(client, unnamed()));
    world.ends(runs[0]);
    world.exited(runs[1], ExitStatus::Code(0), Members::Group);
    world.create(client, unnamed());
    let Ok(Response::Status(status)) = world.ask(other, status()) else { panic!("no status") };
    let counts = ChildCounts { starting: 1, running: 3, stopping: 1, ended: 1, ..ChildCounts::default() };
    assert_eq!((status.children, status.connections), (counts, 3));
    assert_eq!((status.version.as_str(), status.pid, status.protocol), ("1.2.3", 77, PROTOCOL));
    assert_eq!((status.shutting_down, status.limits.shutdown_timeout), (false, secs(30)));
    assert_eq!(status.limits.max_children, Bounds::default().max_children);
}
