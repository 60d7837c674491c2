//! What to start and how, built up step by step.

use std::ffi::OsStr;
use std::future::Future;
use std::path::Path;
use std::time::Duration;

use procbroker_protocol::create::{
    Account, Cleanup, Limit, Ready, ReadyTimeout, Resources, Restart, Rlimit, StandardError, StandardOutput,
    Umask,
};
use procbroker_protocol::create::{IfExists, Lifetime};
use procbroker_protocol::{CreateParams, Request, duration};
use uuid::Uuid;

use crate::broker::Broker;
use crate::child::Created;
use crate::convert::{ToStopStep, utf8};
use crate::error::{Error, Invalid};

/// A child to be started, in the manner of [`std::process::Command`].
///
/// Made by [`Broker::command`]. Setters take what they are given; the first thing that is out of form is
/// reported by [`spawn`](Self::spawn). One command may be spawned several times, each of them a create of
/// its own.
#[derive(Clone, Debug)]
#[must_use = "a command does nothing until it is spawned"]
pub struct Command<B = Broker> {
    pub(crate) broker: B,
    params: CreateParams,
    first_error: Option<Invalid>,
}

impl<B> Command<B> {
    pub(crate) fn new(broker: B, program: &OsStr) -> Self {
        let mut command = Self { broker, params: CreateParams::new(Vec::new()), first_error: None };
        command.arg(program);
        command
    }

    /// Applies a value, or keeps the error if it is the first one.
    fn take<T>(&mut self, value: Result<T, Invalid>, apply: impl FnOnce(&mut CreateParams, T)) -> &mut Self {
        match value {
            Ok(value) => apply(&mut self.params, value),
            Err(error) => {
                self.first_error.get_or_insert(error);
            }
        }
        self
    }

    fn take_duration(
        &mut self,
        time: Duration,
        apply: impl FnOnce(&mut CreateParams, Duration),
    ) -> &mut Self {
        self.take(duration::in_range(time).map_err(Invalid::from), apply)
    }

    /// Adds an argument.
    pub fn arg(&mut self, argument: impl AsRef<OsStr>) -> &mut Self {
        let argument = utf8("an argument", argument.as_ref());
        self.take(argument, |params, argument| params.command.push(argument))
    }

    /// Adds arguments.
    pub fn args<I: IntoIterator<Item: AsRef<OsStr>>>(&mut self, arguments: I) -> &mut Self {
        for argument in arguments {
            self.arg(argument);
        }
        self
    }

    /// The name that it holds while it lives.
    pub fn name(&mut self, name: impl AsRef<str>) -> &mut Self {
        let name = name.as_ref().parse().map_err(Invalid::Name);
        self.take(name, |params, name| params.name = Some(name))
    }

    /// Adds a label.
    pub fn label(&mut self, key: impl Into<String>, value: impl Into<String>) -> &mut Self {
        self.params.labels.insert(key.into(), value.into());
        self
    }

    /// Adds a variable to its environment.
    pub fn env(&mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> &mut Self {
        let pair = utf8("a variable's name", key.as_ref())
            .and_then(|key| Ok((key, utf8("a variable's value", value.as_ref())?)));
        self.take(pair, |params, (key, value)| {
            params.env.insert(key, value);
        })
    }

    /// Adds variables to its environment.
    pub fn envs<K: AsRef<OsStr>, V: AsRef<OsStr>>(
        &mut self,
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> &mut Self {
        for (key, value) in variables {
            self.env(key, value);
        }
        self
    }

    /// Gives it the variables of [`env`](Self::env) alone, without the broker's own.
    pub fn env_clear(&mut self) -> &mut Self {
        self.params.env_clear = true;
        self
    }

    /// Its working directory; `/` unless set. A relative one is taken from this program's.
    pub fn current_dir(&mut self, directory: impl AsRef<Path>) -> &mut Self {
        let path = directory.as_ref();
        let refusal =
            |error: std::io::Error| Invalid::Directory { path: path.to_owned(), reason: error.to_string() };
        let directory = std::path::absolute(path)
            .map_err(refusal)
            .and_then(|path| utf8("the working directory", path.as_os_str()));
        self.take(directory, |params, directory| params.cwd = Some(directory))
    }

    /// Its mask of file permissions; `022` unless set.
    pub fn umask(&mut self, bits: u16) -> &mut Self {
        self.params.umask = Umask::from_bits(bits);
        self
    }

    /// Who it runs as, by name or number; the caller unless set. Only root may name another.
    pub fn user(&mut self, user: impl AsRef<str>) -> &mut Self {
        self.params.user = Some(Account::from_text(user.as_ref()));
        self
    }

    /// Its supplementary groups, by name or number; the user's own unless set.
    pub fn groups<I: IntoIterator<Item: AsRef<str>>>(&mut self, groups: I) -> &mut Self {
        let groups = groups.into_iter().map(|group| Account::from_text(group.as_ref()));
        self.params.groups = Some(groups.collect());
        self
    }

    /// Where its output goes; to its log unless set.
    pub fn stdout(&mut self, output: StandardOutput) -> &mut Self {
        self.params.stdout = output;
        self
    }

    /// Where its errors go; to where its output goes unless set.
    pub fn stderr(&mut self, errors: StandardError) -> &mut Self {
        self.params.stderr = errors;
        self
    }

    /// What to do when a live child holds the name; to fail unless set.
    pub fn if_exists(&mut self, choice: IfExists) -> &mut Self {
        self.params.if_exists = choice;
        self
    }

    /// The id of the request. The same one from the same user gets the first answer again, and nothing is
    /// started twice; set it to make a create safe across a restart of this program. Unless set, each
    /// spawn makes its own.
    pub fn request_id(&mut self, id: Uuid) -> &mut Self {
        self.params.request_id = Some(id);
        self
    }

    /// The signals that ask it to end, tried in turn, and how long each may take; SIGTERM and 10 seconds
    /// unless set. SIGKILL to all that is left always ends it.
    pub fn stop<I: IntoIterator<Item: ToStopStep>>(&mut self, steps: I) -> &mut Self {
        let steps: Result<Vec<_>, _> = steps.into_iter().map(|step| step.to_stop_step()).collect();
        self.take(steps, |params, steps| params.stop = steps)
    }

    /// Its place in a shutdown: lower orders of the same user are stopped first.
    pub fn stop_order(&mut self, order: i32) -> &mut Self {
        self.params.stop_order = order;
        self
    }

    /// When it counts as running; once its program is executed unless set.
    ///
    /// [`Ready::tcp`], [`Ready::unix`], [`Ready::log`] and [`Ready::command`] make what the broker tries itself.
    pub fn ready(&mut self, ready: impl Into<Ready>) -> &mut Self {
        self.params.ready = ready.into();
        self
    }

    /// How long it may take to become ready; 30 seconds unless set.
    pub fn ready_timeout(&mut self, timeout: Duration) -> &mut Self {
        self.take_duration(timeout, |params, timeout| params.ready_timeout = ReadyTimeout(timeout))
    }

    /// Has the broker answer as soon as it is spawned, without waiting for it to be ready.
    pub fn no_wait(&mut self) -> &mut Self {
        self.params.no_wait = true;
        self
    }

    /// Whether and how it is started again when it ends by itself; never unless set.
    pub fn restart(&mut self, restart: Restart) -> &mut Self {
        self.params.restart = restart;
        self
    }

    /// What its life is bound to; to the broker's unless set. A child that is reused keeps what it was created with.
    ///
    /// With [`Lifetime::Connection`] it lives as long as the connection of this [`Broker`], which includes the times when that
    /// is made anew because the broker was restarted or upgraded.
    ///
    /// [`Lifetime::Pid`] of [`std::process::id`] binds it to the calling process, whatever becomes of the connection.
    pub fn lifetime(&mut self, lifetime: Lifetime) -> &mut Self {
        self.params.lifetime = lifetime;
        self
    }

    /// With [`Lifetime::Connection`]: how long it lives on after the last connection closes; no time at all unless set, and
    /// ten seconds at the least after the broker has crashed or was upgraded.
    pub fn linger(&mut self, linger: Duration) -> &mut Self {
        self.take_duration(linger, |params, linger| params.linger = linger)
    }

    /// The command that releases what it leaves behind, run after it and all its descendants are gone,
    /// however it ended; and how long that may take.
    pub fn cleanup<I: IntoIterator<Item: AsRef<OsStr>>>(
        &mut self,
        command: I,
        timeout: Duration,
    ) -> &mut Self {
        let words: Result<Vec<_>, _> =
            command.into_iter().map(|word| utf8("a word of the cleanup", word.as_ref())).collect();
        let cleanup =
            words.and_then(|command| Ok(Cleanup { command, timeout: duration::in_range(timeout)? }));
        self.take(cleanup, |params, cleanup| params.cleanup = Some(cleanup))
    }

    /// At most so many live children under this key; it is refused when there are.
    pub fn limit(&mut self, key: impl Into<String>, max: u32) -> &mut Self {
        self.params.limit = Some(Limit { key: key.into(), max, wait: None });
        self
    }

    /// At most so many live children under this key; a create waits so long for a place, in the order of arrival.
    pub fn limit_and_wait(&mut self, key: impl Into<String>, max: u32, wait: Duration) -> &mut Self {
        let key = key.into();
        self.take_duration(wait, |params, wait| params.limit = Some(Limit { key, max, wait: Some(wait) }))
    }

    /// With [`Ready::Notify`]: the time within which it has to send `WATCHDOG=1`, again and again, or it is stopped.
    pub fn watchdog(&mut self, within: Duration) -> &mut Self {
        self.take_duration(within, |params, within| params.watchdog = Some(within))
    }

    /// A resource limit (setrlimit(2)), soft and hard, by lower-case name such as `nofile`.
    pub fn rlimit(&mut self, name: impl Into<String>, value: Rlimit) -> &mut Self {
        self.params.rlimits.insert(name.into(), value);
        self
    }

    /// Bounds what the child and its descendants use together, through control groups. Where the broker has none, the create
    /// fails with [`ErrorKind::Unsupported`](procbroker_protocol::ErrorKind::Unsupported), and says what is missing.
    pub fn resources(&mut self, resources: Resources) -> &mut Self {
        self.params.resources = Some(resources);
        self
    }

    /// The parameters as they will be sent, without a request's id unless one was set.
    ///
    /// # Errors
    /// The first setter's whose value was out of form.
    pub fn params(&self) -> Result<CreateParams, Error> {
        match &self.first_error {
            Some(error) => Err(error.clone().into()),
            None => Ok(self.params.clone()),
        }
    }
}

impl Command<Broker> {
    /// Has the broker start it, and answers when it runs and is ready.
    ///
    /// The future holds all that it needs, so it may be spawned as a task. It is safe to repeat: when the
    /// connection is lost before the answer, the same request is sent again under the same id. Dropping
    /// the future does not take the request back.
    ///
    /// # Errors
    /// The first setter's whose value was out of form; [`Error::Broker`] with the kinds
    /// `name_taken`, `limit_exceeded`, `spawn_failed`, `start_failed`, `shutting_down` and so on; and
    /// when there is no broker.
    pub fn spawn(&self) -> impl Future<Output = Result<Created, Error>> + Send + use<> {
        let broker = self.broker.clone();
        let params = self.params();
        async move {
            let request = Request::Create(Box::new(params?));
            Created::from_response(&broker, broker.call(request).await?)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use procbroker_protocol::Signal;
    use procbroker_protocol::create::{Check, RestartPolicy};
    use procbroker_protocol::name::NameError;

    use super::*;

    fn command() -> Command<()> {
        Command::new((), OsStr::new("python3"))
    }

    #[test]
    fn every_setter_reaches_its_parameter() {
        let second = Duration::from_secs(1);
        let params = command()
            .args(["render.py", "42"])
            .name("render-42")
            .label("pool", "render")
            .envs([("A", "1"), ("B", "2")])
            .current_dir("/srv")
            .if_exists(IfExists::Reuse)
            .stop([("SIGHUP", second), ("TERM", second)])
            .cleanup(["rm", "x"], second)
            .limit_and_wait("render", 4, second)
            .watchdog(second)
            .ready(Ready::log("up"))
            .restart(Restart::on_failure().at_most(3, second))
            .linger(second)
            .params()
            .unwrap();
        assert_eq!(params.command, ["python3", "render.py", "42"]);
        assert_eq!(params.name.unwrap().as_str(), "render-42");
        assert_eq!(params.labels["pool"], "render");
        assert_eq!(params.env.len(), 2);
        assert_eq!(params.cwd.as_deref(), Some("/srv"));
        assert_eq!(params.if_exists, IfExists::Reuse);
        assert_eq!(
            params.stop.iter().map(|step| step.signal).collect::<Vec<_>>(),
            [Signal::HUP, Signal::TERM]
        );
        assert_eq!(params.cleanup.unwrap().command, ["rm", "x"]);
        assert_eq!(params.limit, Some(Limit { key: "render".to_owned(), max: 4, wait: Some(second) }));
        assert_eq!(params.watchdog, Some(second));
        assert_eq!((params.restart.policy, params.restart.max), (RestartPolicy::OnFailure, 3));
        assert_eq!(params.ready, Check::Log("up".to_owned()).into());
        assert_eq!(params.linger, Duration::from_secs(1));
        assert_eq!(params.request_id, None);
    }

    #[test]
    fn a_relative_directory_is_this_programs() {
        let params = command().current_dir("sub").params().unwrap();
        let expected = std::env::current_dir().unwrap().join("sub");
        assert_eq!(params.cwd.as_deref(), expected.to_str());
    }

    #[test]
    fn the_first_value_out_of_form_is_reported_each_time() {
        let mut command = command();
        command.name("a b").arg(OsStr::from_bytes(b"\xff")).name("fine");
        for _ in 0..2 {
            let error = command.params().unwrap_err();
            assert!(matches!(&error, Error::Invalid(Invalid::Name(NameError::Character { .. }))), "{error}");
        }
    }

    #[test]
    fn text_in_another_encoding_is_refused() {
        let error = command().arg(OsStr::from_bytes(b"\xff")).params().unwrap_err();
        assert_eq!(error.to_string(), r#"an argument is not UTF-8: "\xFF""#);
    }
}
