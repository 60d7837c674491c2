//! What keys and news make of what is shown, and how that looks at two sizes.

use std::sync::Arc;
use std::time::Duration;

use procbroker_protocol::request::LogStream;
use procbroker_protocol::usage::Usage;
use procbroker_protocol::{Child, ChildId, Event, EventKind, PartialChildren, Signal, Timestamp};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use serde_json::{Value, json};

use super::draw::draw;
use super::keys::KeyPress;
use super::model::{LogPane, Model, TopQuery, UserAction};
use super::rows;

const START: u64 = 1_795_445_537_000_000;

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_micros(START + 1_000_000 * seconds)
}

fn id(number: u32) -> ChildId {
    ChildId::from_uuid(format!("01900000-0000-7000-8000-{number:012}").parse().unwrap())
}

fn child(number: u32, more: &Value) -> Child {
    let mut child = json!({
        "id": id(number), "name": format!("render-{number}"), "labels": {"pool": "render"},
        "command": ["python3", "render.py", number.to_string()], "pid": 1000 + number,
        "owner": {"uid": 33, "gid": 33}, "state": "running", "created_at": at(0), "started_at": at(0),
        "restarts": 0, "lifetime": "broker", "stop_order": 0, "exit": null, "cleanup": null,
        "containment": "cgroup", "status_text": null,
    });
    for (key, value) in more.as_object().unwrap() {
        child[key] = value.clone();
    }
    serde_json::from_value(child).unwrap()
}

fn using(number: u32, cpu_millis: u64, memory: u64) -> Child {
    let usage = Usage {
        cpu: Some(Duration::from_millis(cpu_millis)),
        memory: Some(memory),
        memory_peak: None,
        processes: None,
    };
    Child { usage: Some(Box::new(usage)), ..child(number, &json!({})) }
}

fn list(children: Vec<Child>) -> PartialChildren {
    PartialChildren::new(rows::wanted(), children.into_iter().map(Arc::new).collect())
}

fn event(seconds: u64, kind: EventKind, child: Child) -> Event {
    Event { seq: 1, at: at(seconds), kind, child: Some(Arc::new(child)) }
}

fn ended(number: u32) -> Child {
    let exit = json!({"code": 3, "reason": "exited", "forced": false, "steps": [], "at": at(1)});
    child(number, &json!({"state": "ended", "pid": null, "exit": exit}))
}

/// Three children.
fn three() -> Model {
    let mut model = Model::new(at(0));
    model.listed(&list((1..=3).map(|number| child(number, &json!({}))).collect()), at(1));
    model
}

fn titles(model: &Model) -> Vec<String> {
    model.visible().iter().map(|row| row.title.clone()).collect()
}

fn typed(model: &mut Model, text: &str) {
    for character in text.chars() {
        assert_eq!(model.pressed(KeyPress::Character(character)), None);
    }
}

fn output(number: u32, text: &str) -> LogPane {
    LogPane { child: id(number), stream: LogStream::Stdout, text: text.to_owned(), has_two: false }
}

fn drawn(model: &Model, columns: u16, lines: u16) -> Vec<String> {
    let area = Rect::new(0, 0, columns, lines);
    let mut buffer = Buffer::empty(area);
    draw(model, false, area, &mut buffer);
    let line = |y| (0..columns).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..lines).map(line).collect()
}

#[test]
fn children_come_and_go_by_events() {
    let mut model = three();
    model.happened(&event(1, EventKind::Created, child(4, &json!({"state": "starting", "pid": null}))));
    assert_eq!(titles(&model), ["render-1", "render-2", "render-3", "render-4"]);
    model.happened(&event(2, EventKind::Ended, ended(2)));
    assert_eq!(model.visible()[1].exit.as_deref(), Some("3 (exited)"));
    // It is shown for a while, and no answer that was on its way brings it back.
    model.listed(&list((1..=4).map(|number| child(number, &json!({}))).collect()), at(3));
    assert_eq!(model.visible()[1].state.as_str(), "ended");
    model.passed(at(8));
    assert_eq!(titles(&model), ["render-1", "render-3", "render-4"]);
}

#[test]
fn a_cleanup_that_failed_is_shown_with_the_end() {
    let mut model = three();
    let cleanup = json!({"ok": false, "exit": {"code": 1}, "attempts": 1});
    let exit =
        json!({"code": 3, "reason": "exited", "forced": false, "steps": [], "at": at(1), "gave_up": true});
    let ended = child(2, &json!({"state": "ended", "pid": null, "exit": exit, "cleanup": cleanup}));
    model.happened(&event(2, EventKind::Ended, ended));
    assert_eq!(model.visible()[1].exit.as_deref(), Some("3 (gave up), cleanup failed"));
    let line = &drawn(&model, 80, 24)[3];
    assert!(line.ends_with("  cleanup failed (3)"), "{line}");
}

#[test]
fn a_child_whose_end_was_missed_goes_when_two_answers_lack_it() {
    let mut model = three();
    let two = || list(vec![child(1, &json!({})), child(3, &json!({}))]);
    model.listed(&two(), at(2));
    assert_eq!(titles(&model).len(), 3);
    model.listed(&two(), at(3));
    assert_eq!(titles(&model), ["render-1", "render-3"]);
}

#[test]
fn processor_time_is_told_as_the_share_of_the_last_second() {
    let mut model = Model::new(at(0));
    model.listed(&list(vec![using(1, 500, 1 << 20)]), at(1));
    assert_eq!(model.visible()[0].cpu, None);
    model.listed(&list(vec![using(1, 750, 2 << 20)]), at(2));
    assert_eq!((model.visible()[0].cpu, model.visible()[0].memory), (Some(0.25), Some(2 << 20)));
    // One that was started anew begins at nothing.
    model.listed(&list(vec![using(1, 10, 1 << 20)]), at(3));
    assert_eq!(model.visible()[0].cpu, None);
}

#[test]
fn a_child_that_has_ended_uses_nothing() {
    let mut model = Model::new(at(0));
    model.listed(&list(vec![using(1, 500, 1 << 20)]), at(1));
    model.listed(&list(vec![using(1, 750, 2 << 20)]), at(2));
    model.happened(&event(3, EventKind::Ended, ended(1)));
    assert_eq!((model.visible()[0].cpu, model.visible()[0].memory), (None, None));
}

#[test]
fn keys_select_and_a_stop_is_done_only_when_it_is_confirmed() {
    let mut model = three();
    model.pressed(KeyPress::Down);
    model.pressed(KeyPress::Character('j'));
    model.pressed(KeyPress::Down);
    assert_eq!(model.selected().unwrap().title, "render-3");
    model.pressed(KeyPress::Character('k'));
    for (key, wish) in [('s', UserAction::Stop(id(2))), ('r', UserAction::Restart(id(2)))] {
        assert_eq!(model.pressed(KeyPress::Character(key)), None);
        assert_eq!(model.pressed(KeyPress::Character('n')), None);
        assert_eq!(model.pressed(KeyPress::Character(key)), None);
        assert_eq!(model.pressed(KeyPress::Character('y')), Some(wish));
    }
    assert_eq!(model.pressed(KeyPress::Character('q')), Some(UserAction::Quit));
}

#[test]
fn a_question_is_about_the_child_that_was_selected_when_it_was_asked() {
    let mut model = three();
    for _ in 0..5 {
        model.pressed(KeyPress::Character('o'));
    }
    assert_eq!(model.order.word(), "restarts");
    model.pressed(KeyPress::Character('s'));
    // Another one comes to the top meanwhile.
    model.listed(
        &list(vec![child(1, &json!({})), child(2, &json!({})), child(3, &json!({"restarts": 9}))]),
        at(2),
    );
    assert_eq!(model.pressed(KeyPress::Character('y')), Some(UserAction::Stop(id(1))));
}

#[test]
fn a_signal_is_typed_by_its_name() {
    let mut model = three();
    model.pressed(KeyPress::Character('x'));
    typed(&mut model, "hupp");
    model.pressed(KeyPress::Backspace);
    assert_eq!(model.pressed(KeyPress::Enter), Some(UserAction::Signal(id(1), Signal::HUP)));
    model.pressed(KeyPress::Character('x'));
    typed(&mut model, "nope");
    assert_eq!(model.pressed(KeyPress::Enter), None);
    assert!(model.notice.as_ref().is_some_and(|notice| notice.contains("not a signal")));
    model.pressed(KeyPress::Character('x'));
    typed(&mut model, "q");
    assert_eq!(model.pressed(KeyPress::Interrupt), Some(UserAction::Quit));
}

#[test]
fn a_filter_is_a_part_of_a_name_or_a_label() {
    let mut model = three();
    model.happened(&event(1, EventKind::Ready, child(4, &json!({"labels": {"pool": "mail"}}))));
    model.pressed(KeyPress::Character('/'));
    typed(&mut model, "pool=mail");
    assert_eq!(titles(&model), ["render-4"]);
    model.pressed(KeyPress::Escape);
    assert_eq!(titles(&model).len(), 4);
    model.pressed(KeyPress::Character('/'));
    typed(&mut model, "r-2");
    model.pressed(KeyPress::Enter);
    assert_eq!(titles(&model), ["render-2"]);
    model.pressed(KeyPress::Escape);
    assert_eq!(titles(&model).len(), 4);
}

#[test]
fn output_is_asked_for_in_turn_with_the_list_while_it_is_shown() {
    let mut model = three();
    assert_eq!([model.question(), model.question()], [TopQuery::List, TopQuery::List]);
    model.pressed(KeyPress::Enter);
    assert_eq!(
        [model.question(), model.question()],
        [TopQuery::Log(id(1), LogStream::Stdout), TopQuery::List]
    );
    model.pressed(KeyPress::Down);
    assert_eq!(model.question(), TopQuery::Log(id(2), LogStream::Stdout));
    model.logged(&output(1, "of another\n"));
    assert_eq!(model.log(), None);
    model.logged(&output(2, "one\n\x1b[31mtwo\n"));
    assert_eq!(model.log().unwrap(), ["one", "\\x1b[31mtwo"]);
    model.pressed(KeyPress::Enter);
    assert_eq!([model.question(), model.question()], [TopQuery::List, TopQuery::List]);
}

#[test]
fn an_output_is_asked_for_at_the_key_that_shows_it() {
    let mut model = three();
    assert!(!model.lacks_output());
    model.pressed(KeyPress::Enter);
    assert!(model.lacks_output());
    assert_eq!(model.question(), TopQuery::Log(id(1), LogStream::Stdout));
    // It is on its way, and then there.
    assert!(!model.lacks_output());
    model.logged(&output(1, "one\n"));
    assert_eq!(model.question(), TopQuery::List);
    assert!(!model.lacks_output());
    for key in [KeyPress::Down, KeyPress::Character('e')] {
        model.pressed(key);
        assert!(model.lacks_output(), "{key:?}");
        model.question();
    }
    model.pressed(KeyPress::Enter);
    assert!(!model.lacks_output());
}

#[test]
fn nothing_is_asked_about_a_child_that_has_ended() {
    let mut model = three();
    model.happened(&event(2, EventKind::Ended, ended(1)));
    for key in ['s', 'r', 'x'] {
        assert_eq!(model.pressed(KeyPress::Character(key)), None);
        assert_eq!(model.notice.as_deref(), Some("render-1 has ended"), "{key}");
        assert_eq!(model.pressed(KeyPress::Character('y')), None);
        assert_eq!(model.notice, None);
    }
}

#[test]
fn a_filter_begins_anew() {
    let mut model = three();
    for filter in ["r-2", "r-3"] {
        model.pressed(KeyPress::Character('/'));
        assert_eq!(titles(&model).len(), 3);
        typed(&mut model, filter);
        model.pressed(KeyPress::Enter);
        assert_eq!(titles(&model), [filter.replace("r-", "render-")]);
    }
}

#[test]
fn everything_has_its_place_at_80_by_24() {
    let mut model = Model::new(at(0));
    model.listed(&list(vec![using(1, 0, 5 << 20), using(2, 0, 5 << 30)]), at(64));
    model.listed(&list(vec![using(1, 500, 5 << 20), using(2, 0, 5 << 30)]), at(65));
    model.happened(&event(65, EventKind::Stopping, child(3, &json!({"state": "stopping"}))));
    let lines = drawn(&model, 80, 24);
    assert_eq!(lines[0], "3 children: 2 running, 1 stopping   cpu 50%   memory 5.0G   ordered by age");
    assert_eq!(
        lines[1..5],
        [
            "NAME               STATE        PID     AGE  CPU%   MEM RST  COMMAND",
            "render-1           running     1001   1m 5s  50.0  5.0M   0  python3 render.py 1",
            "render-2           running     1002   1m 5s   0.0  5.0G   0  python3 render.py 2",
            "render-3           stopping    1003   1m 5s     -     -   0  python3 render.py 3",
        ]
    );
    assert!(lines[23].contains("q quit"), "{}", lines[23]);
    model.pressed(KeyPress::Character('/'));
    typed(&mut model, "render-1");
    let filtered = &drawn(&model, 80, 24)[0];
    assert!(filtered.starts_with("filter \"render-1\"   3 children: 2 running"), "{filtered}");
    model.pressed(KeyPress::Escape);
    model.pressed(KeyPress::Enter);
    model.logged(&output(1, "hello\nworld\n"));
    let lines = drawn(&model, 80, 24);
    assert_eq!(lines[13], "── output of render-1  pool=render  ──");
    assert_eq!(lines[14..16], ["hello", "world"]);
}

#[test]
fn a_wide_screen_has_graphs_and_a_tiny_one_does_not_break() {
    let mut model = Model::new(at(0));
    for second in 0..6 {
        model.listed(&list(vec![using(1, 200 * second * second, 1 << 20)]), at(second));
    }
    let lines = drawn(&model, 200, 60);
    assert!(lines[1].contains("RST  CPU TREND   COMMAND"), "{}", lines[1]);
    assert!(lines[2].contains("▂▅███"), "{}", lines[2]);
    for (columns, lines) in [(1, 1), (20, 3), (80, 2), (300, 5)] {
        for _ in 0..2 {
            assert_eq!(drawn(&model, columns, lines).len(), usize::from(lines));
            model.pressed(KeyPress::Enter);
        }
    }
}

#[test]
fn the_selected_child_is_on_the_page_that_is_shown() {
    let mut model = Model::new(at(0));
    model.listed(&list((1..=100).map(|number| child(number, &json!({}))).collect()), at(1));
    model.pressed(KeyPress::End);
    assert!(drawn(&model, 80, 24).iter().any(|line| line.starts_with("render-100 ")));
    model.pressed(KeyPress::PageUp);
    assert!(drawn(&model, 80, 24).iter().any(|line| line.starts_with("render-90 ")));
    model.pressed(KeyPress::Home);
    assert!(drawn(&model, 80, 24)[2].starts_with("render-1 "));
}

#[test]
fn a_standard_error_of_its_own_is_a_key_away() {
    let mut model = three();
    model.pressed(KeyPress::Enter);
    assert_eq!(model.question(), TopQuery::Log(id(1), LogStream::Stdout));
    model.logged(&LogPane { has_two: true, ..output(1, "out\n") });
    let title = |model: &Model| drawn(model, 80, 24)[13].clone();
    assert_eq!(title(&model), "── output of render-1  e: standard error  pool=render  ──");
    model.pressed(KeyPress::Character('e'));
    // What came before is of the other one.
    assert_eq!(model.log(), None);
    assert_eq!(model.question(), TopQuery::Log(id(1), LogStream::Stderr));
    model.logged(&LogPane { stream: LogStream::Stderr, has_two: true, ..output(1, "err\n") });
    assert_eq!(model.log().unwrap(), ["err"]);
    assert_eq!(title(&model), "── standard error of render-1  e: output  pool=render  ──");
    model.pressed(KeyPress::Character('e'));
    assert_eq!(model.question(), TopQuery::Log(id(1), LogStream::Stdout));
}

#[test]
fn the_output_is_scrolled_by_pages_and_stands_still_meanwhile() {
    let mut model = three();
    model.pressed(KeyPress::Enter);
    let lines: Vec<String> = (0..100).map(|number| format!("line {number}")).collect();
    model.logged(&output(1, &lines.join("\n")));
    let shown = |model: &Model| (drawn(model, 80, 24)[14].clone(), drawn(model, 80, 24)[22].clone());
    assert_eq!(shown(&model), ("line 91".to_owned(), "line 99".to_owned()));
    model.pressed(KeyPress::PageUp);
    assert_eq!(shown(&model), ("line 83".to_owned(), "line 91".to_owned()));
    let title = &drawn(&model, 80, 24)[13];
    assert_eq!(title, "── output of render-1  8 lines more below (PgDn)  pool=render  ──");
    // What is written meanwhile, and what was asked for before, moves nothing.
    model.logged(&output(1, "new\n"));
    assert_eq!([model.question(), model.question()], [TopQuery::List, TopQuery::List]);
    for _ in 0..20 {
        model.pressed(KeyPress::PageUp);
    }
    assert_eq!(shown(&model), ("line 0".to_owned(), "line 8".to_owned()));
    for _ in 0..20 {
        model.pressed(KeyPress::PageDown);
    }
    assert_eq!(shown(&model), ("line 91".to_owned(), "line 99".to_owned()));
    assert_eq!(model.question(), TopQuery::Log(id(1), LogStream::Stdout));
    model.pressed(KeyPress::PageUp);
    model.pressed(KeyPress::Down);
    assert_eq!((model.selected().unwrap().title.as_str(), model.below), ("render-2", 0));
}

#[test]
fn ctrl_u_takes_back_what_was_typed_and_ctrl_z_leaves_it() {
    let mut model = three();
    model.pressed(KeyPress::Character('/'));
    typed(&mut model, "none");
    assert_eq!(titles(&model).len(), 0);
    assert_eq!(model.pressed(KeyPress::Suspend), Some(UserAction::Suspend));
    typed(&mut model, "x");
    assert_eq!(model.filter, "nonex");
    model.pressed(KeyPress::Clear);
    assert_eq!((model.filter.as_str(), titles(&model).len()), ("", 3));
    typed(&mut model, "r-2");
    assert_eq!(titles(&model), ["render-2"]);
}

#[test]
fn a_name_has_the_room_that_commands_leave() {
    let long = "a-name-that-is-a-bit-too-long-for-it";
    let line = |columns, command: &str| {
        let mut model = Model::new(at(0));
        let more = json!({"name": long, "command": command.split(' ').collect::<Vec<_>>()});
        model.listed(&list(vec![child(1, &more)]), at(1));
        drawn(&model, columns, 24)[2].clone()
    };
    assert!(
        line(80, "sleep 9").starts_with("a-name-that-is-a-bit-too-long… running "),
        "{}",
        line(80, "sleep 9")
    );
    assert!(line(80, "sleep 9").ends_with("  sleep 9"));
    let crowded = line(80, "python3 render.py --scene a.blend");
    assert!(crowded.starts_with("a-name-that-is-a-bit-too-l… running "), "{crowded}");
    assert!(crowded.ends_with("  python3 r…"), "{crowded}");
    assert!(line(100, "python3 render.py").starts_with(&format!("{long} running ")));
}

#[test]
fn the_help_fits_a_small_terminal() {
    let mut model = three();
    model.pressed(KeyPress::Character('?'));
    let lines = drawn(&model, 80, 24);
    assert!(lines.iter().any(|line| line == "any key goes back"), "{lines:?}");
    assert!(!lines.iter().any(|line| line.contains('…')), "{lines:?}");
}
