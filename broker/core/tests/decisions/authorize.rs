//! Who may call, see and act on what, and whose rights a child gets.

use std::sync::Arc;

use procbroker_core::{
    Accounts, AccountsFailure, Asker, Caller, CallerUnknown, Confinement, Effect, HardLimit, Input, Launch,
    Login, Peer, RunAs, Shortage, SignalOutcome, SpawnOrder, UserAccount,
};
use procbroker_protocol::create::{Account, StandardError, StandardOutput};
use procbroker_protocol::request::{ManyParams, NoParams, Until};
use procbroker_protocol::{CreateParams, Error, ErrorKind, Outcome, Request, Response, Signal, Target};

use crate::world::*;

/// A user with two groups beside its first.
fn caller(uid: u32) -> Peer {
    Peer { uid, gid: 60, groups: vec![70, 71], pid: None }
}

fn login(name: &str) -> Login {
    Login { name: name.to_owned(), home: format!("/home/{name}"), shell: "/bin/bash".to_owned() }
}

fn account(uid: u32) -> UserAccount {
    let login = Arc::new(login(&format!("user-{uid}")));
    UserAccount { uid, gid: uid + 1, groups: vec![uid + 1, 80], login }
}

/// What a broker that runs as `broker` decides about the rights of a child that `peer` asks for.
fn rights(broker: u32, peer: Peer, user: Option<u32>, groups: Option<&[u32]>) -> Result<RunAs, Error> {
    let mut world = World::with(|config| config.broker_uid = broker);
    let client = world.try_connect(peer)?;
    let params = CreateParams {
        user: user.map(Account::Id),
        groups: groups.map(|groups| groups.iter().copied().map(Account::Id).collect()),
        ..unnamed()
    };
    let accounts = Accounts { user: user.map(account), groups: groups.map(<[u32]>::to_vec) };
    let call = world.call_as(client, Request::Create(Box::new(params)), Ok(accounts));
    if world.is_answered(call) {
        return Err(world.answer(call).unwrap_err());
    }
    let run = world.run(call);
    world.recorded(run);
    let order = world.take().into_iter().find_map(|effect| match effect {
        Effect::Spawn { order, .. } => Some(order),
        _ => None,
    });
    let SpawnOrder { run_as, .. } = &*order.unwrap();
    Ok(run_as.clone())
}

fn user(uid: u32, gid: u32, groups: &[u32]) -> RunAs {
    RunAs::User { uid, gid, groups: groups.to_vec() }
}

#[test]
fn a_broker_as_root_runs_a_child_as_its_caller() {
    let own = user(ALICE, 60, &[70, 71]);
    assert_eq!(rights(0, caller(ALICE), None, None), Ok(own.clone()));
    assert_eq!(rights(0, caller(ALICE), Some(ALICE), None), Ok(own));
    assert_eq!(rights(0, caller(0), None, None), Ok(RunAs::Broker));
    assert_eq!(rights(0, caller(0), Some(0), None), Ok(RunAs::Broker), "naming oneself changes nothing");
    assert_eq!(rights(0, caller(0), Some(0), Some(&[5])), Ok(user(0, 1, &[5])));
}

#[test]
fn a_caller_can_name_exactly_the_groups_that_it_has() {
    for groups in [&[70_u32, 71][..], &[71, 70], &[60, 70, 71]] {
        assert_eq!(rights(0, caller(ALICE), None, Some(groups)), Ok(user(ALICE, 60, &[70, 71])));
    }
    for groups in [&[0_u32, 70, 71][..], &[70, 71, 72], &[70], &[60, 71], &[60], &[]] {
        let error = rights(0, caller(ALICE), None, Some(groups)).unwrap_err();
        assert_eq!(error.kind, ErrorKind::PermissionDenied, "{groups:?}");
    }
    let own = rights(0, caller(ALICE), Some(ALICE), Some(&[80]));
    assert_eq!(own.unwrap_err().kind, ErrorKind::PermissionDenied);
}

#[test]
fn only_root_may_name_another_user() {
    for other in [0, BOB] {
        let error = rights(0, caller(ALICE), Some(other), None).unwrap_err();
        assert_eq!(error.kind, ErrorKind::PermissionDenied);
        assert!(error.message.contains(&other.to_string()), "{}", error.message);
    }
    assert_eq!(rights(0, caller(0), Some(BOB), None), Ok(user(BOB, BOB + 1, &[BOB + 1, 80])));
    assert_eq!(rights(0, caller(0), Some(BOB), Some(&[5])), Ok(user(BOB, BOB + 1, &[5])));
    assert_eq!(rights(0, caller(0), None, Some(&[5])), Ok(user(0, 60, &[5])));
}

#[test]
fn a_broker_that_is_not_root_gives_its_own_rights_and_no_others() {
    for uid in [BROKER_UID, ALICE, 0] {
        assert_eq!(rights(BROKER_UID, caller(uid), None, None), Ok(RunAs::Broker));
        assert_eq!(rights(BROKER_UID, caller(uid), Some(BROKER_UID), None), Ok(RunAs::Broker));
        for (user, groups) in [(Some(BOB), None), (Some(0), None), (None, Some(&[70_u32][..]))] {
            let error = rights(BROKER_UID, caller(uid), user, groups).unwrap_err();
            assert_eq!(error.kind, ErrorKind::PermissionDenied, "{uid} {user:?} {groups:?}");
        }
    }
}

#[test]
fn an_unknown_account_is_a_failed_spawn_that_names_it() {
    let (mut world, client) = World::with_client();
    let failure = procbroker_protocol::error::SpawnFailure { step: "user".to_owned(), ..no_such_file() };
    let account = Account::Name("nobody-there".to_owned());
    let unknown = AccountsFailure { account, failure: failure.clone() };
    let call = world.call_as(client, Request::Create(Box::new(unnamed())), Err(unknown));
    let error = world.answer(call).unwrap_err();
    assert_eq!(error.kind, ErrorKind::SpawnFailed(failure));
    assert!(error.message.contains("user nobody-there"), "{}", error.message);
    assert_eq!(world.take(), []);
}

#[test]
fn shutdown_and_upgrade_are_for_root_and_the_brokers_user() {
    for (uid, may) in [(0, true), (BROKER_UID, true), (ALICE, false)] {
        let mut world = World::new();
        let client = world.connect(uid);
        for request in [Request::Upgrade(NoParams {}), shutdown(None)] {
            let call = world.call(client, request);
            assert_eq!(world.is_answered(call), !may, "{uid}");
            assert_eq!(world.take().is_empty(), !may, "{uid}");
            if !may {
                assert_eq!(world.refused(call), ErrorKind::PermissionDenied);
            }
        }
    }
}

#[test]
fn others_see_and_touch_only_their_own_children() {
    let mut world = World::new();
    let (alice, bob) = (world.connect(ALICE), world.connect(BOB));
    let run = world.start(alice, named("a"));
    for target in [id(run), name("a")] {
        for request in [
            get(target.clone()),
            wait(target.clone(), Until::Ended, None),
            destroy(target.clone()),
            signal(target.clone(), Signal::HUP),
        ] {
            let error = world.ask(bob, request.clone()).unwrap_err();
            assert_eq!(error.kind, ErrorKind::NotFound, "{request:?}");
            // The same as for a child that does not exist: only the target differs.
            assert!(!error.message.contains(&ALICE.to_string()), "{}", error.message);
        }
    }
    for request in [list(true), destroy(Target::All), signal(Target::All, Signal::HUP)] {
        assert_eq!(world.ask(bob, request), Ok(Response::Children(Vec::new())));
    }
    assert_eq!(world.sent(), []);
}

#[test]
fn a_missing_child_and_somebody_elses_are_answered_alike() {
    let mut world = World::new();
    let (alice, bob) = (world.connect(ALICE), world.connect(BOB));
    world.start(alice, named("a"));
    let theirs = world.ask(bob, get(name("a"))).unwrap_err();
    let none = world.ask(bob, get(name("b"))).unwrap_err();
    assert_eq!(theirs.kind, none.kind);
    assert_eq!(theirs.message.replace(" a ", " b "), none.message);
}

#[test]
fn root_and_the_brokers_user_act_on_all() {
    for uid in [0, BROKER_UID] {
        let mut world = World::new();
        let (alice, admin) = (world.connect(ALICE), world.connect(uid));
        let run = world.start(alice, named("a"));
        assert_eq!(world.shown(admin, run).owner.uid, ALICE);
        let call = world.create(admin, reuse("a"));
        assert!(matches!(world.created(call).outcome, Outcome::Existing { .. }));
        world.call(admin, destroy(Target::All));
        assert_eq!(world.sent().len(), 1);
    }
}

/// What is told of a name that somebody else's child holds.
const OF_SOMEBODY_ELSE: &str = "the name a is taken by a child of another user; choose another name";

#[test]
fn somebody_elses_name_is_taken_whatever_is_asked_and_that_is_all_that_is_told() {
    for broker_uid in [0, BROKER_UID] {
        let mut world = World::with(|config| config.broker_uid = broker_uid);
        let (alice, bob) = (world.connect(ALICE), world.connect(BOB));
        let run = world.start(alice, named("a"));
        for params in [named("a"), reuse("a"), replace("a")] {
            let call = world.create(bob, params);
            let error = world.answer(call).unwrap_err();
            assert_eq!(error.kind, ErrorKind::NameTaken(None));
            assert_eq!(error.message, OF_SOMEBODY_ELSE);
        }
        assert_eq!(world.take(), []);
        world.call(alice, destroy(id(run)));
        let call = world.create(bob, reuse("a"));
        assert_eq!(world.answer(call).unwrap_err().message, OF_SOMEBODY_ELSE);
        world.ends(run);
        world.start(bob, named("a"));
    }
}

#[test]
fn limit_keys_are_global() {
    let mut world = World::new();
    let (alice, bob) = (world.connect(ALICE), world.connect(BOB));
    world.start(alice, under_limit("k", 1));
    let call = world.create(bob, under_limit("k", 1));
    assert_eq!(world.refused(call), ErrorKind::LimitExceeded);
}

#[test]
fn a_child_belongs_to_the_user_that_created_it_whoever_it_runs_as() {
    let mut world = World::with(|config| config.broker_uid = 0);
    let (root, bob) = (world.connect(0), world.connect(BOB));
    let accounts = Accounts { user: Some(account(BOB)), groups: None };
    let params = CreateParams { user: Some(Account::Id(BOB)), ..named("a") };
    let call = world.call_as(root, Request::Create(Box::new(params)), Ok(accounts));
    let run = world.run(call);
    assert_eq!(world.ask(bob, get(id(run))).unwrap_err().kind, ErrorKind::NotFound);
    assert_eq!(world.shown(root, run).owner.uid, 0);
}

#[test]
fn a_child_of_another_user_with_equal_parameters_is_not_of_the_same_spec() {
    let mut world = World::with(|config| config.broker_uid = 0);
    let (alice, root) = (world.connect(ALICE), world.connect(0));
    world.start(alice, named("a"));
    let call = world.create(root, reuse("a"));
    assert_eq!(world.created(call).outcome, Outcome::Existing { same_spec: false });
}

#[test]
fn destroy_of_all_leaves_the_children_of_others() {
    let mut world = World::new();
    let (alice, bob) = (world.connect(ALICE), world.connect(BOB));
    let (own, other) = (world.start(alice, unnamed()), world.start(bob, unnamed()));
    let call = world.call(alice, destroy(Target::All));
    world.ends(own);
    assert_eq!(world.children(call).len(), 1);
    assert!(world.shown(bob, other).exit.is_none());
    let restart = Request::Restart(ManyParams { target: id(other) });
    assert!(world.ask(alice, restart).is_err());
}

/// How a broker as root starts the child of this peer.
fn launch(peer: Peer, caller: Result<Caller, CallerUnknown>, user: Option<u32>) -> Result<Launch, Error> {
    let mut world = World::with(|config| config.broker_uid = 0);
    world.caller = caller;
    let client = world.try_connect(peer)?;
    let params = CreateParams { user: user.map(Account::Id), ..unnamed() };
    let accounts = Accounts { user: user.map(account), groups: None };
    let call = world.call_as(client, Request::Create(Box::new(params)), Ok(accounts));
    if world.is_answered(call) {
        return Err(world.answer(call).unwrap_err());
    }
    let run = world.run(call);
    world.recorded(run);
    let orders = world.take();
    let order = orders.iter().find_map(|effect| match effect {
        Effect::Spawn { order, .. } => Some(order),
        _ => None,
    });
    Ok(order.unwrap().launch.clone())
}

fn known(login: Option<Login>, confinement: Option<Confinement>) -> Caller {
    Caller { login: login.map(Arc::new), confinement: confinement.map(Arc::new) }
}

fn confined() -> Confinement {
    let hard_limits = vec![HardLimit { resource: 6, value: 50 }];
    Confinement { no_new_privs: true, capabilities: Some(0x400), hard_limits }
}

#[test]
fn a_child_is_confined_as_its_creator_was_whoever_it_runs_as() {
    for (uid, named) in [(ALICE, None), (0, None), (0, Some(BOB))] {
        let launch = launch(caller(uid), Ok(known(None, Some(confined()))), named).unwrap();
        assert_eq!(launch.confinement, Some(Arc::new(confined())));
    }
    assert!(launch(caller(0), Ok(known(None, None)), None).unwrap().is_plain());
}

#[test]
fn a_child_is_told_whose_it_is_unless_it_is_the_brokers_own_users() {
    let told = |uid, caller_login, named| {
        let launch = launch(caller(uid), Ok(known(caller_login, None)), named).unwrap();
        launch.login.map(|login| Login::clone(&login))
    };
    assert_eq!(told(ALICE, Some(login("alice")), None), Some(login("alice")));
    assert_eq!(told(0, None, Some(BOB)), Some(account(BOB).login.as_ref().clone()));
    // Root's own children, and those that name it.
    assert_eq!(told(0, None, None), None);
    assert_eq!(told(0, None, Some(0)), None);
    let number = Login { name: ALICE.to_string(), home: "/".to_owned(), shell: "/bin/sh".to_owned() };
    assert_eq!(told(ALICE, None, None), Some(number));
}

#[test]
fn who_cannot_be_looked_into_creates_nothing() {
    for unknown in [CallerUnknown::Gone, CallerUnknown::Closed] {
        for uid in [ALICE, 0] {
            let error = launch(caller(uid), Err(unknown), None).unwrap_err();
            assert_eq!(error.kind, ErrorKind::PermissionDenied, "{unknown:?}");
        }
    }
}

#[test]
fn a_user_who_is_none_here_is_refused() {
    let mut world = World::new();
    let connection = world.connect(ALICE);
    world.give(Input::ConnectedUnmapped { connection });
    let refused = world.take().into_iter().find_map(|effect| match effect {
        Effect::Refuse { connection: refused, error } if refused == connection => Some(error.kind),
        _ => None,
    });
    assert_eq!(refused, Some(ErrorKind::PermissionDenied));
}

#[test]
fn a_shortage_is_told_as_one_and_not_as_a_want_of_right() {
    let short = Err(CallerUnknown::Short(Shortage::Descriptors));
    let error = launch(caller(ALICE), short, None).unwrap_err();
    let ErrorKind::SpawnFailed(failure) = error.kind else { panic!("{error:?}") };
    assert_eq!((failure.errno, &*failure.errno_name, &*failure.step), (24, "EMFILE", "caller"));
}

/// By whose right a signal is sent for this client of a broker that runs as `broker`.
fn asker(broker: u32, uid: u32) -> Option<Asker> {
    let mut world = World::with(|config| config.broker_uid = broker);
    let client = world.try_connect(Peer { pid: Some(77), ..caller(uid) }).unwrap();
    let run = world.start(client, unnamed());
    world.take();
    world.call(client, signal(id(run), Signal::HUP));
    let sent = world.take().into_iter().find_map(|effect| match effect {
        Effect::Signal { call: Some(asked), .. } => Some(asked.by),
        _ => None,
    });
    sent.unwrap()
}

#[test]
fn a_signal_is_sent_by_the_right_of_who_asks_for_it() {
    assert_eq!(asker(0, ALICE), Some(Asker { uid: ALICE, pid: Some(77) }));
    // Root may signal everybody, and a broker that is not root has no right to lend.
    assert_eq!(asker(0, 0), None);
    assert_eq!(asker(BROKER_UID, ALICE), None);
    assert_eq!(asker(BROKER_UID, 0), None);
}

#[test]
fn a_signal_is_done_if_one_child_could_be_signalled_and_denied_if_none_could() {
    for (second, denied) in [(SignalOutcome::Delivered, false), (SignalOutcome::Refused, true)] {
        let mut world = World::with(|config| config.broker_uid = 0);
        let alice = world.connect(ALICE);
        let runs = [world.start(alice, unnamed()), world.start(alice, unnamed())];
        let call = world.call(alice, signal(Target::All, Signal::HUP));
        for (run, outcome) in runs.into_iter().zip([SignalOutcome::Refused, second]) {
            world.give(Input::Signalled { run, call: Some(call), outcome });
        }
        let refused = world.answer(call).err().map(|error| error.kind);
        assert_eq!(refused, denied.then_some(ErrorKind::PermissionDenied));
    }
}

#[test]
fn the_brokers_own_output_is_for_root_and_its_user() {
    for (broker, uid, allowed) in [
        (0, 0, true),
        (0, ALICE, false),
        (BROKER_UID, BROKER_UID, true),
        (BROKER_UID, 0, true),
        (BROKER_UID, ALICE, false),
    ] {
        let own = CreateParams { stdout: StandardOutput::Inherit, ..unnamed() };
        let errors = CreateParams { stderr: StandardError::Inherit, ..unnamed() };
        for params in [own, errors] {
            let mut world = World::with(|config| config.broker_uid = broker);
            let client = world.try_connect(caller(uid)).unwrap();
            let call = world.create(client, params);
            if allowed {
                world.run(call);
            } else {
                assert_eq!(world.refused(call), ErrorKind::PermissionDenied);
            }
        }
    }
}
