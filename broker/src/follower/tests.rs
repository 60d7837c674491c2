//! Followers of output that is written meanwhile, through real pipes.

use std::fs::{self, File};
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use procbroker_core::{ConnectionId, SubscriptionId};
use procbroker_protocol::CreateParams;
use uuid::Uuid;

use super::*;
use crate::limits::{LOG_PIECE_BYTES, PACED_WAITING};
use crate::os::logs::pipes::Pipes;
use crate::os::logs::{LogBounds, LogSettings};

const SUBSCRIPTION: u64 = 7;
const USER: u32 = 0;

/// What takes so long does not come.
const LATE: Duration = Duration::from_secs(60);

const FOLLOW: Follow = Follow::UntilItEnds(SubscriptionId(SUBSCRIPTION));

struct Scene {
    folder: tempfile::TempDir,
    logs: LogHandle,
    facts: inbox::Receiver<Fact>,
    followers: Followers,
    transit: Transit,
    has_ended: bool,
}

impl Scene {
    fn new() -> Self {
        Self::with_bound(16 << 20)
    }

    fn with_bound(per_child: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = LogSettings {
            folder: folder.path().join("logs"),
            pipes: Pipes::open(folder.path().join("output")).unwrap(),
            bounds: LogBounds { per_child, in_all: 1 << 30 },
            forward: None,
            children: Vec::new(),
            inherited: Vec::new(),
        };
        let logs = LogHandle::start(settings).unwrap();
        let (tell, facts) = inbox::inbox(8, 0);
        let transit = Transit::within(&procbroker_core::Bounds::default());
        let followers = Followers::new(&logs, BlockingPool::start().unwrap(), transit.clone(), tell);
        Self { folder, logs, facts, followers, transit, has_ended: false }
    }

    fn child() -> ChildId {
        ChildId::from_uuid(Uuid::from_u128(1))
    }

    /// What the child writes to.
    fn pipe(&self) -> File {
        let id = StreamId { child: Self::child(), stream: LogStream::Stdout };
        self.logs.open(id, 0, &Arc::new(CreateParams::new(Vec::new()))).unwrap();
        let path = self.folder.path().join("output").join(format!("{}.out", id.child));
        File::options().read(true).write(true).open(path).unwrap()
    }

    fn write(&self, text: impl AsRef<[u8]>) {
        self.pipe().write_all(text.as_ref()).unwrap();
    }

    fn ask(&mut self, tail: Option<u32>, follow: Follow) -> Client {
        let (to, messages) = mpsc::channel(PACED_WAITING);
        self.serve(3, tail, follow, to);
        Client { messages }
    }

    /// Goes on from a position; of a child that has ended, with the rest.
    fn ask_from(&mut self, position: u64) -> Client {
        let (to, messages) = mpsc::channel(PACED_WAITING);
        let follow = if self.has_ended { Follow::Rest(SubscriptionId(SUBSCRIPTION)) } else { FOLLOW };
        self.order(3, LogExcerpt { position: Some(position), ..excerpt(None, follow) }, to);
        Client { messages }
    }

    fn serve(&mut self, number: u64, tail: Option<u32>, follow: Follow, to: mpsc::Sender<Paced>) {
        self.order(number, excerpt(tail, follow), to);
    }

    fn order(&mut self, number: u64, excerpt: LogExcerpt, to: mpsc::Sender<Paced>) {
        let call = Call { connection: ConnectionId(1), number };

        self.followers.serve(LogQuery { call, child: Self::child(), excerpt, user: USER, to });
    }

    /// The next request that the core is told of, and its outcome.
    async fn told(&mut self) -> (u64, LogOutcome) {
        match self.facts.recv().await {
            Fact::Input(Input::LogRead { call, outcome }) => (call.number, outcome),
            other => panic!("{other:?}"),
        }
    }

    fn follow(&mut self) -> Client {
        self.ask(None, FOLLOW)
    }

    fn end(&mut self) {
        self.has_ended = true;
        self.logs.end(Self::child());
        self.logs.wake();
        self.followers.child_ended(Self::child());
    }
}

fn excerpt(tail: Option<u32>, follow: Follow) -> LogExcerpt {
    LogExcerpt {
        stream: LogStream::Stdout,
        kept_in: LogStream::Stdout,
        tail,
        since: None,
        timestamps: false,
        position: None,
        follow,
    }
}

struct Client {
    messages: mpsc::Receiver<Paced>,
}

impl Client {
    async fn answer(&mut self) -> Logs {
        match self.messages.recv().await.unwrap() {
            Paced::Answer { number: 3, result: Ok(Response::Logs(answer)), load: _ } => answer,
            other => panic!("{other:?}"),
        }
    }

    /// The next piece, and whether it is the last.
    async fn piece(&mut self) -> (String, bool) {
        match self.messages.recv().await.unwrap() {
            Paced::Notification {
                notification: Notification::Log { subscription, stream, text, ended, position: _ },
                ..
            } => {
                assert_eq!((subscription, stream), (SUBSCRIPTION, LogStream::Stdout));
                (text, ended)
            }
            other => panic!("{other:?}"),
        }
    }

    /// All that comes, up to the end, and how often something was missed.
    async fn rest(mut self) -> (String, u64) {
        let (mut all, mut missed) = (String::new(), 0);
        loop {
            match self.messages.recv().await.unwrap() {
                Paced::Notification { notification: Notification::Log { text, ended, .. }, .. } => {
                    assert!(text.len() <= 3 * LOG_PIECE_BYTES);
                    all.push_str(&text);
                    if ended {
                        assert!(self.messages.recv().await.is_none(), "something came after the end");
                        return (all, missed);
                    }
                }
                Paced::Notification {
                    notification: Notification::Lagged { subscription, missed: count },
                    ..
                } => {
                    assert_eq!(subscription, SUBSCRIPTION);
                    missed += count;
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_request_is_answered_once_and_nothing_follows() {
    let mut scene = Scene::new();
    scene.write("one\ntwo\n");
    let mut client = scene.ask(Some(1), Follow::No);
    let expected = Logs {
        text: "two\n".to_owned(),
        truncated: false,
        subscription: None,
        dropped: 0,
        position: 8,
        id: Scene::child(),
    };
    assert_eq!(client.answer().await, expected);
    assert_eq!(scene.told().await, (3, LogOutcome::Text));
    assert!(client.messages.recv().await.is_none());
}

#[tokio::test]
async fn a_follower_gets_what_comes_next_then_the_rest_then_the_end() {
    let mut scene = Scene::new();
    scene.write("one\n");
    let mut client = scene.follow();
    let answer = client.answer().await;
    assert_eq!((answer.text.as_str(), answer.subscription), ("one\n", Some(SUBSCRIPTION)));
    for text in ["two\n", "three\n"] {
        scene.write(text);
        assert_eq!(client.piece().await, (text.to_owned(), false));
    }
    scene.write("last, caf\u{e9}");
    scene.end();
    assert_eq!(client.rest().await, ("last, caf\u{e9}".to_owned(), 0));
}

#[tokio::test]
async fn a_child_that_has_ended_is_followed_to_its_end_at_once() {
    let mut scene = Scene::new();
    scene.write(b"one\n\xe2\x82");
    let mut client = scene.ask(None, Follow::Rest(SubscriptionId(SUBSCRIPTION)));
    assert_eq!(client.answer().await.text, "one\n");
    assert_eq!(client.rest().await, ("\u{fffd}".to_owned(), 0));
}

#[tokio::test]
async fn a_child_without_a_pipe_is_followed_from_when_there_is_one_or_to_its_end() {
    let mut scene = Scene::new();
    let mut client = scene.follow();
    assert_eq!(client.answer().await.text, "");
    scene.write("first\n");
    assert_eq!(client.piece().await, ("first\n".to_owned(), false));
    let mut scene = Scene::new();
    let mut client = scene.follow();
    assert_eq!(client.answer().await.text, "");
    scene.end();
    assert_eq!(client.rest().await, (String::new(), 0));
}

#[tokio::test]
async fn everything_that_a_child_writes_arrives_in_order_at_every_follower() {
    let mut scene = Scene::new();
    scene.write("");
    let mut clients = [scene.follow(), scene.follow(), scene.follow()];
    for client in &mut clients {
        assert_eq!(client.answer().await.text, "");
    }
    let mut command = Command::new("seq");
    command.args(["1", "200000"]).stdout(Stdio::from(scene.pipe()));
    let [first, second, third] = clients.map(|client| tokio::spawn(client.rest()));
    let writer = tokio::task::spawn_blocking(move || command.status().unwrap());
    assert!(writer.await.unwrap().success());
    scene.end();
    let expected = (1..=200_000).map(|number| number.to_string() + "\n").collect::<String>();
    for client in [first, second, third] {
        let (text, missed) = client.await.unwrap();
        assert!(text == expected && missed == 0, "{} of {} bytes", text.len(), expected.len());
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_up_nobody_else() {
    let mut scene = Scene::new();
    scene.write(vec![b'x'; 20 * LOG_PIECE_BYTES]);
    let mut stuck = scene.ask(Some(0), FOLLOW);
    let mut reader = scene.ask(Some(0), FOLLOW);
    assert_eq!((stuck.answer().await.text, reader.answer().await.text), (String::new(), String::new()));
    scene.write(vec![b'y'; 20 * LOG_PIECE_BYTES]);
    scene.end();
    assert_eq!(reader.rest().await.0.len(), 20 * LOG_PIECE_BYTES);
    // It has been sent what there was room for, and gets the rest when it reads.
    assert_eq!(stuck.messages.len(), PACED_WAITING);
    assert_eq!(stuck.rest().await.0.len(), 20 * LOG_PIECE_BYTES);
}

#[tokio::test]
async fn a_client_that_reads_gets_everything_while_all_the_room_of_its_user_is_taken_by_others() {
    let mut scene = Scene::new();
    scene.write("");
    let bytes = u64::MAX / 2;
    let taken = scene.transit.add(USER, bytes);
    let [mut reader, mut stuck] = [scene.follow(), scene.follow()];
    assert_eq!((reader.answer().await.text, stuck.answer().await.text), (String::new(), String::new()));
    let line = "caf\u{e9}, and tea\n";
    scene.write(line.repeat(LOG_PIECE_BYTES / line.len()));
    scene.end();
    let (text, missed) = timeout(LATE, reader.rest()).await.expect("it waits for the others");
    assert!(text == line.repeat(LOG_PIECE_BYTES / line.len()) && missed == 0, "{} bytes", text.len());
    assert_eq!(stuck.messages.len(), PACED_WAITING);
    // A character that was cut comes whole, with the next piece.
    let most = bytes + 3 * PACED_WAITING as u64;
    assert!(scene.transit.bytes() <= most, "who does not read takes no room beside its shares");
    drop(taken);
}

#[tokio::test]
async fn a_follower_that_is_overtaken_is_told_and_goes_on_with_what_is_kept() {
    let mut scene = Scene::with_bound(4 * LOG_PIECE_BYTES as u64);
    scene.write("");
    let mut client = scene.follow();
    assert_eq!(client.answer().await.text, "");
    let lines = 32 * LOG_PIECE_BYTES / 4;
    let mut pipe = scene.pipe();
    let all = "abc\n".repeat(lines);
    let writer = tokio::task::spawn_blocking(move || pipe.write_all(all.as_bytes()).unwrap());
    // What is in the channel fills it, so that the rest is read only after most of it has gone.
    writer.await.unwrap();
    scene.end();
    let (text, missed) = client.rest().await;
    assert!(missed >= 1);
    assert!(text.ends_with("abc\nabc\n") && !text.contains('\0'), "{} bytes", text.len());
}

#[tokio::test]
async fn whoever_goes_on_from_a_position_gets_what_comes_behind_it_and_nothing_twice() {
    let mut scene = Scene::new();
    // The last character is not whole: what is told ends before it.
    scene.write(b"one\ntwo\n\xe2\x82");
    let mut client = scene.follow();
    let answer = client.answer().await;
    assert_eq!((answer.text.as_str(), answer.position, answer.id), ("one\ntwo\n", 8, Scene::child()));
    for (position, expected) in
        [(8, "\u{20ac}\nend"), (4, "two\n\u{20ac}\nend"), (0, "one\ntwo\n\u{20ac}\nend")]
    {
        let mut again = scene.ask_from(position);
        let answer = again.answer().await;
        assert_eq!((answer.text.as_str(), answer.position), ("", position));
        if position == 8 {
            scene.write(b"\xac\nend");
            scene.end();
        }
        assert_eq!(again.rest().await, (expected.to_owned(), 0), "{position}");
    }
    let mut beyond = scene.ask_from(99);
    beyond.answer().await;
    assert_eq!(beyond.rest().await, (String::new(), 1));
}

#[tokio::test]
async fn a_follower_whose_client_has_gone_ends() {
    let mut scene = Scene::new();
    scene.write("");
    let mut client = scene.follow();
    client.answer().await;
    drop(client);
    let [waiting] = scene.followers.waiting.remove(&Scene::child()).unwrap().try_into().unwrap();
    let mut waiting: oneshot::Sender<Ended> = waiting;
    waiting.closed().await;
}

#[tokio::test]
async fn nothing_is_read_for_a_client_that_has_no_room() {
    let mut scene = Scene::new();
    let (to, mut messages) = mpsc::channel(1);
    to.send(Paced::Answer { number: 1, result: Ok(Response::Upgraded), load: None }).await.unwrap();
    scene.serve(2, None, Follow::No, to);
    tokio::task::yield_now().await;
    // It is read after the first was taken, and so has what was written before that.
    scene.write("later");
    assert!(matches!(messages.recv().await, Some(Paced::Answer { number: 1, .. })));
    match messages.recv().await {
        Some(Paced::Answer { number: 2, result: Ok(Response::Logs(answer)), load: _ }) => {
            assert_eq!(answer.text, "later");
        }
        other => panic!("{other:?}"),
    }
    assert!(messages.recv().await.is_none());
}

#[tokio::test]
async fn what_cannot_be_read_is_an_error_that_names_the_file() {
    let mut scene = Scene::new();
    scene.write("one");
    // Not before it is there.
    scene.logs.kept(StreamId { child: Scene::child(), stream: LogStream::Stdout }).await.unwrap();
    let path = scene.folder.path().join("logs").join(format!("{}.out", Scene::child()));
    fs::hard_link(&path, scene.folder.path().join("second")).unwrap();
    let mut client = scene.follow();
    match client.messages.recv().await {
        Some(Paced::Answer { result: Err(error), .. }) => {
            assert!(error.message.contains("cannot open") && error.message.contains(".out"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    assert!(client.messages.recv().await.is_none());
    assert_eq!(scene.told().await, (3, LogOutcome::Error));
}
