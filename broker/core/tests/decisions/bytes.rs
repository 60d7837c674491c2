//! Bounds in bytes: what is shown of long texts.

use procbroker_core::{Effect, Report};
use procbroker_protocol::{CreateParams, EventKind, Field, Fields, Got, Response};

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
