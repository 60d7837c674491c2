//! Columns that stand in a list where there is something to tell in them: what children use, and whose they are.

use super::*;

/// Children of which one tells what it uses, and one cannot.
fn measured() -> Response {
    let usage = Usage {
        cpu: Some(Duration::from_millis(75_500)),
        memory: Some(1_855_488),
        memory_peak: None,
        processes: Some(2),
    };
    let web = Child { usage: Some(Box::new(usage)), ..running(1, Some("web"), &["./web"]) };
    let children = [web, running(2, Some("job"), &["./job"])].map(Arc::new).to_vec();
    Response::PartialChildren(PartialChildren::new(Field::ALL.iter().copied().collect(), children))
}

/// What the verb of this command line shows of what it chooses from an answer.
fn chosen(arguments: &[&str], answer: Response, style: Style) -> String {
    match CommandLine::try_parse_from([&["procbroker"], arguments].concat()).unwrap().verb {
        Verb::Ask(question) => {
            let question = question.ask();
            ask::show(question, &question.choose(answer), style).unwrap().result
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_list_with_usage_has_columns_for_it() {
    let usage = &["list", "--usage"];
    let expected = concat!(
        "NAME  STATE    PID   UPTIME  CPU     MEMORY   COMMAND\n",
        "web   running  4001  12m 5s  1m 15s  1.7 MiB  ./web\n",
        "job   running  4002  12m 5s  -       -        ./job\n",
    );
    assert_eq!(chosen(usage, measured(), terminal(80)), expected);
    let lines = chosen(usage, measured(), Style::Plain);
    let last: Vec<Vec<&str>> = lines.lines().map(|line| line.split('\t').skip(7).collect()).collect();
    assert_eq!(last, [["./web", "-", "75.5", "1855488"], ["./job", "-", "-", "-"]]);
    let json: serde_json::Value = serde_json::from_str(&chosen(usage, measured(), Style::Json)).unwrap();
    let used = serde_json::json!({"cpu": 75.5, "memory": 1_855_488, "processes": 2});
    assert_eq!((&json["children"][0]["usage"], &json["children"][0]["name"]), (&used, &"web".into()));
    assert_eq!(json["children"][1].get("usage"), None);
    let named = chosen(&["list", "--usage", "--name", "j*"], measured(), Style::Plain);
    assert_eq!((named.lines().count(), named.contains("job")), (1, true), "{named}");
    let narrow = chosen(usage, measured(), terminal(30));
    assert!(narrow.contains("cpu 1m 15s") && narrow.contains("1.7 MiB"), "{narrow}");
}

#[test]
fn a_list_says_whose_children_are_where_they_are_of_several_users() {
    let of = |child: Child, uid| Child { owner: Owner { uid, gid: 1 }, ..child };
    let children = |second| {
        let jobs = [
            of(running(1, Some("render-001"), &["python3", "render.py"]), 0),
            of(running(2, Some("render-002"), &["python3", "render.py"]), second),
            of(
                ended(
                    running(3, Some("render-003"), &["python3", "render.py"]),
                    ExitStatus::Signal(Signal::KILL),
                    ExitReason::Destroyed,
                    true,
                ),
                0,
            ),
        ];
        Response::Children(jobs.map(Arc::new).to_vec())
    };
    let expected = concat!(
        "NAME        STATE    PID   USER        UPTIME  COMMAND\n",
        "render-001  running  4001  root        12m 5s  python3 render.py\n",
        "render-002  running  4002  4000000033  12m 5s  python3 render.py\n",
        "render-003  ended    -     root        -       python3 render.py\n",
    );
    // No machine has an account of that number.
    let two = children(4_000_000_033);
    assert_eq!(shown(LIST, &two, terminal(80)), expected);
    assert!(!shown(LIST, &children(0), terminal(80)).contains("USER"));
    assert!(!shown(LIST, &two, Style::Plain).contains("root"));
    for width in [30, 60, 80, 100] {
        let text = shown(LIST_ALL, &two, terminal(width));
        assert!(text.lines().all(|line| line.width() <= usize::from(width)), "{width}:\n{text}");
        assert!(text.contains("4000000033"), "{text}");
    }
    let at_80 = shown(LIST_ALL, &two, terminal(80));
    assert!(at_80.starts_with("NAME "), "{at_80}");
}

#[test]
fn children_of_which_less_is_told_than_was_asked_for_are_no_answer() {
    let children = vec![Arc::new(running(1, Some("web"), &["./web"]))];
    let partial =
        Response::PartialChildren(PartialChildren::new([Field::Name].into_iter().collect(), children));
    let Verb::Ask(question) = CommandLine::try_parse_from(["procbroker", "list", "--usage"]).unwrap().verb
    else {
        panic!("no request")
    };
    let question = question.ask();
    for style in [terminal(80), Style::Plain] {
        let failure = ask::show(question, &question.choose(partial.clone()), style).unwrap_err();
        assert!(matches!(failure, Failure::Answer), "{failure:?}");
    }
}
