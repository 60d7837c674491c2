//! Promise 1: a name is held by at most one live child, however many clients race for it.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{JsonClient, TestBroker};

const RACERS: u64 = 8;
const ROUNDS: usize = 125;

/// A child that complains when another one is there: the lock goes with the process, however it ends.
fn jealous_child(broker: &TestBroker) -> Vec<String> {
    // 99 alone means that another holds the lock: flock(1) is in the child's process group, and the signal that
    // stops the child can end it too.
    let script = "exec 9>>\"$1/lock\"; flock --nonblock --conflict-exit-code 99 9; \
                  [ $? -ne 99 ] || echo $$ >>\"$1/overlaps\"; exec sleep infinity";
    ["sh", "-c", script, "jealous", &folder_of(broker)].map(str::to_owned).into()
}

fn folder_of(broker: &TestBroker) -> String {
    broker.folder().to_str().expect("a path in UTF-8").to_owned()
}

fn racer(broker: &TestBroker, seed: u64, child: &[String]) -> Child {
    Command::new("python3")
        .args(["-c", include_str!("one_owner/racer.py")])
        .arg(broker.socket())
        .args([seed.to_string(), ROUNDS.to_string()])
        .args(child)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3")
}

/// What a racer was answered, all of it.
fn answers(mut racer: Child) -> Vec<(String, Value)> {
    let lines = BufReader::new(racer.stdout.take().unwrap()).lines();
    let answers = lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
    assert!(racer.wait().unwrap().success(), "a client failed");
    answers
}

#[test]
fn eight_processes_that_race_for_a_name_never_have_two_children() {
    let broker = TestBroker::start();
    let child = jealous_child(&broker);
    let mut racers: Vec<Child> = (0..RACERS).map(|seed| racer(&broker, seed, &child)).collect();
    for racer in &mut racers {
        racer.stdin.take().unwrap().write_all(b"go\n").unwrap();
    }
    let readers: Vec<_> = racers.into_iter().map(|racer| std::thread::spawn(|| answers(racer))).collect();
    let answers: Vec<(String, Value)> =
        readers.into_iter().flat_map(|reader| reader.join().expect("a racer")).collect();
    assert_eq!(answers.len(), ROUNDS * usize::try_from(RACERS).unwrap());
    assert!(!broker.path("overlaps").exists(), "two children at once: {:?}", broker.path("overlaps"));

    let (mut started, mut found) = (BTreeSet::new(), BTreeSet::new());
    for (action, answer) in &answers {
        let id = answer["result"]["child"]["id"].as_str().map(str::to_owned);
        match (
            action.as_str(),
            answer["result"]["outcome"].as_str(),
            answer["error"]["data"]["kind"].as_str(),
        ) {
            ("fail" | "reuse" | "replace", Some("created"), None) | ("replace", Some("replaced"), None) => {
                assert!(
                    started.insert(id.unwrap()),
                    "two creates were answered with one new child: {answer}"
                );
            }
            // A child that was replaced before it was ready: its create gets the one in its place.
            ("fail" | "reuse" | "replace", Some("existing"), None) => {
                assert_eq!(answer["result"]["same_spec"], true);
                found.insert(id.unwrap());
            }
            // Another client was faster: it has destroyed a child that had not even begun, or what had replaced that one.
            (_, None, Some("start_failed")) => {
                let reason = answer["error"]["data"]["exit"]["reason"].as_str();
                assert!(matches!(reason, Some("destroyed" | "replaced")), "{answer}");
            }
            ("fail", None, Some("name_taken")) | ("destroy", None, Some("not_found") | None) => {}
            _ => panic!("{action} was answered with {answer}"),
        }
    }
    assert!(found.is_subset(&started), "a child that nobody created: {found:?}");
    assert!(started.len() > 10 && found.len() > 10, "hardly a race: {} and {}", started.len(), found.len());
    lives_follow_each_other(&mut broker.json(), &started);
}

/// What the broker says about its children: those that were answered and no others, and one at a time.
fn lives_follow_each_other(client: &mut JsonClient, started: &BTreeSet<String>) {
    let list = client.ok("list", json!({"all": true}));
    let mut children = list["children"].as_array().unwrap().clone();
    children.retain(|child| child["started_at"].is_string());
    let id = |child: &Value| child["id"].as_str().unwrap().to_owned();
    let ids: BTreeSet<String> = children.iter().map(id).collect();
    assert!(ids.is_superset(started), "{:?} are not there", started.difference(&ids));
    // Nobody was answered with one that was replaced or destroyed before it was ready.
    let untold = children.iter().filter(|child| !started.contains(&id(child)));
    let reasons: BTreeSet<&str> = untold.filter_map(|child| child["exit"]["reason"].as_str()).collect();
    assert!(reasons.is_subset(&BTreeSet::from(["replaced", "destroyed"])), "{reasons:?}");
    // Times of one form and zone compare as texts do.
    children.sort_by_key(|child| child["started_at"].as_str().unwrap().to_owned());
    for pair in children.windows(2) {
        let (ended, began) = (pair[0]["exit"]["at"].as_str(), pair[1]["started_at"].as_str());
        assert!(ended.unwrap() <= began.unwrap(), "two at a time: {pair:?}");
    }
}

#[test]
fn creates_of_one_name_that_arrive_together_start_one_child() {
    let broker = TestBroker::start();
    let mut clients: Vec<JsonClient> = (0..8).map(|_| broker.json()).collect();
    let create = json!({"command": ["sleep", "infinity"], "name": "one", "if_exists": "reuse"});
    let ids: Vec<Vec<u64>> = clients
        .iter_mut()
        .map(|client| (0..25).map(|_| client.send("create", create.clone())).collect())
        .collect();
    let mut outcomes = Vec::new();
    let mut children = BTreeSet::new();
    for (client, ids) in clients.iter_mut().zip(ids) {
        for id in ids {
            let created = client.answer(id).expect("a child");
            outcomes.push(created["outcome"].as_str().unwrap().to_owned());
            children.insert(created["child"]["pid"].as_i64().unwrap());
        }
    }
    assert_eq!(outcomes.iter().filter(|outcome| *outcome == "created").count(), 1);
    assert_eq!(outcomes.iter().filter(|outcome| *outcome == "existing").count(), 199);
    assert_eq!(children.len(), 1);
}

#[test]
fn reuse_tells_whether_the_live_child_has_the_same_specification() {
    let broker = TestBroker::start();
    let mut client = broker.json();
    let create = |seconds: &str, labels: Value| json!({"command": ["sleep", seconds], "name": "one", "if_exists": "reuse", "labels": labels});
    assert_eq!(client.ok("create", create("1000", json!({})))["outcome"], "created");
    assert_eq!(client.ok("create", create("1000", json!({})))["same_spec"], true);
    assert_eq!(client.ok("create", create("1001", json!({})))["same_spec"], false);
    assert_eq!(client.ok("create", create("1000", json!({"tier": "1"})))["same_spec"], false);
}

#[test]
fn a_create_that_is_sent_again_gets_the_first_answer_and_starts_nothing() {
    let broker = TestBroker::start();
    let create = json!({"command": ["sleep", "infinity"], "request_id": Uuid::new_v4()});
    // Twice in flight at once, and again over another connection.
    let mut client = broker.json();
    let (first, second) = (client.send("create", create.clone()), client.send("create", create.clone()));
    let first = client.answer(first).unwrap();
    assert_eq!(client.answer(second).unwrap(), first);
    assert_eq!(broker.json().ok("create", create.clone()), first);
    assert_eq!(client.ok("list", json!({}))["children"].as_array().unwrap().len(), 1);
    client.ok("destroy", json!({"target": first["child"]["id"]}));
    let again = client.ok("create", create);
    assert_eq!(again["child"]["id"], first["child"]["id"]);
    assert_eq!(client.ok("list", json!({}))["children"], json!([]));
}

#[test]
fn a_limit_holds_however_many_creates_arrive_together() {
    let broker = TestBroker::start();
    let mut client = broker.json();
    let create = json!({"command": ["sleep", "infinity"], "limit": {"key": "render", "max": 4}});
    let ids: Vec<u64> = (0..20).map(|_| client.send("create", create.clone())).collect();
    let answers: Vec<_> = ids.into_iter().map(|id| client.answer(id)).collect();
    let children: Vec<&Value> = answers.iter().flatten().collect();
    assert_eq!(children.len(), 4);
    for refused in answers.iter().filter_map(|answer| answer.as_ref().err()) {
        assert_eq!((refused.kind.as_str(), refused.code), ("limit_exceeded", 4), "{refused:?}");
        assert!(refused.message.contains("render"), "{refused:?}");
    }
    // A place is free again when a child has ended, and not before.
    client.ok("destroy", json!({"target": children[0]["child"]["id"]}));
    assert_eq!(client.ok("create", create.clone())["outcome"], "created");
    assert_eq!(client.refused("create", create).kind, "limit_exceeded");
}

#[test]
fn a_name_is_free_again_only_when_nothing_of_its_child_is_left() {
    let broker = TestBroker::start();
    let mut hello = broker.fifo("hello");
    let mut client = broker.json();
    // The leader ends at SIGTERM; a member of its group holds the lock, and has to be killed.
    let script = "exec 9>>\"$1/lock\"; flock 9; \
                  (trap '' TERM; echo there >\"$1/hello\"; exec sleep infinity) & exec sleep infinity 9>&-";
    let folder = folder_of(&broker);
    let command = json!(["sh", "-c", script, "leader", folder]);
    let stop = json!([{"signal": "SIGTERM", "grace": 0.05}]);
    client.create(json!({"command": command, "name": "one", "stop": stop}));
    assert_eq!(hello.line(), "there");
    let script = "exec 9>>\"$1/lock\"; if flock --nonblock 9; then echo alone; else echo overlap; fi >\"$1/hello\"; \
                  exec sleep infinity";
    let next = json!(["sh", "-c", script, "next", folder]);
    let replaced = client.ok("create", json!({"command": next, "name": "one", "if_exists": "replace"}));
    assert_eq!(replaced["outcome"], "replaced");
    assert_eq!(hello.line(), "alone");
    let ended = client.ok("list", json!({"all": true}))["children"][0].clone();
    assert_eq!(ended["exit"]["reason"], "replaced", "{ended}");
    assert_eq!(ended["exit"]["forced"], true, "{ended}");
}
