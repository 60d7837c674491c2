//! `create`: starts a child, with a flag for every parameter.

mod bounds;
mod error;
mod life;
mod surroundings;

use std::path::Path;

use clap::Args;
use procbroker_protocol::create::{
    CreateParams, IfExists, Lifetime, Ready, ReadyTimeout, StandardInput, default_stop,
};
use procbroker_protocol::response::{Created, Outcome};
use procbroker_protocol::{Name, Request, Response, Target};
use uuid::Uuid;

use crate::cli::ask::Ask;
use crate::cli::failure::Failure;
use crate::cli::print::PrintArguments;
use crate::cli::print::words::{condition, title};
use crate::cli::print::{CommandOutput, Screen};
use crate::cli::progress::{Awaited, End, Start};
use crate::cli::values::{Choice, map, one_of, pair, request_id};
use bounds::BoundsArguments;
use error::CreateError;
use life::LifeArguments;
use surroundings::SurroundingsArguments;

/// What stands below the flags in help and manual page.
pub(super) const EXAMPLES: &str = durations!(
    "

Examples:
  One child of a name, however many workers ask for it at the same time:
    procbroker create --name render-42 --if-exists reuse -- \\
        python3 render.py 42
  A graceful stop first, then a firm one:
    procbroker create --stop SIGHUP:10s,SIGTERM:5s -- ./server
  Keep the id in a script, and clean up after it however it ends:
    id=$(procbroker create --cleanup rm --cleanup -rf --cleanup \"$dir\" \\
        -- ./job \"$dir\")
  Whether it is new, for a script:
    procbroker create --name render-42 --if-exists reuse --json \\
        -- ./render | jq -r .outcome    # created, existing or replaced
  At most four at a time:
    procbroker create --limit render=4 --label pool=render -- ./render
  With the environment of this shell, and not with the broker's:
    procbroker create --inherit-env --env PORT=8080 -- ./server
  With a shell, where one is wanted:
    procbroker create -- sh -c 'exec ./job >>job.log 2>&1'"
);

/// The words of `--if-exists`.
const IF_EXISTS: &[Choice<IfExists>] = &[
    Choice { word: "fail", value: IfExists::Fail, help: "Fail, with exit status 4" },
    Choice {
        word: "reuse",
        value: IfExists::Reuse,
        help: "Answer with the live child; one that is stopping is waited for, then created anew",
    },
    Choice { word: "replace", value: IfExists::Replace, help: "Destroy it, then create" },
];

/// The arguments of `create`.
#[derive(Debug, Args)]
pub(in crate::cli) struct CreateArguments {
    /// The program and its arguments, after `--`; the program is looked up in the child's PATH, with no shell
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
    /// The name that the child holds while it lives; one live child at most holds a name
    #[arg(long)]
    name: Option<Name>,
    /// What to do when a live child holds the name already
    #[arg(long, value_name = "WHAT", default_value = "fail", value_parser = one_of(IF_EXISTS))]
    if_exists: IfExists,
    /// Makes it safe to run this again: the same id gets the first answer, and nothing is started twice
    ///
    /// [default: a new one for each run]
    #[arg(long, value_name = "UUID", value_parser = request_id)]
    request_id: Option<Uuid>,
    /// A label to select children by; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    label: Vec<(String, String)>,
    /// Answer as soon as it is spawned, without waiting for it to be ready
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    print: PrintArguments,
    #[command(flatten)]
    surroundings: SurroundingsArguments,
    #[command(flatten)]
    life: LifeArguments,
    #[command(flatten)]
    bounds: BoundsArguments,
}

impl CreateArguments {
    /// The parameters that these arguments ask for. They always have a request id, so that they can be sent again.
    fn params(&self) -> Result<CreateParams, CreateError> {
        let Self { surroundings, life, bounds, .. } = self;
        let cwd = surroundings.working_directory()?;
        life.check_commands(Path::new(&cwd))?;
        Ok(CreateParams {
            command: self.command.clone(),
            name: self.name.clone(),
            if_exists: self.if_exists,
            request_id: Some(self.request_id.unwrap_or_else(Uuid::new_v4)),
            labels: map("--label", &self.label)?,
            cwd: Some(cwd),
            env: surroundings.environment(std::env::vars_os())?,
            // Nothing of the broker's own.
            env_clear: surroundings.env_clear || surroundings.inherit_env,
            umask: surroundings.umask,
            user: surroundings.user.clone(),
            groups: if surroundings.group.is_empty() { None } else { Some(surroundings.group.clone()) },
            stdin: StandardInput::Null,
            stdout: surroundings.stdout,
            stderr: surroundings.stderr,
            stop: if life.stop.is_empty() { default_stop() } else { life.stop.clone() },
            stop_order: life.stop_order,
            ready: life.ready(),
            ready_timeout: ReadyTimeout(life.ready_timeout),
            no_wait: self.no_wait,
            restart: life.restart(),
            lifetime: life.lifetime,
            linger: life.linger,
            cleanup: life.cleanup(),
            limit: bounds.limit(),
            rlimits: map("--rlimit", &bounds.rlimit)?,
            resources: bounds.resources()?,
            watchdog: life.watchdog,
        })
    }
}

impl Ask for CreateArguments {
    fn print(&self) -> PrintArguments {
        self.print
    }

    fn requests(&self) -> Result<Vec<Request>, Failure> {
        let params = self.params().map_err(|error| Failure::usage(&error))?;
        Ok(vec![Request::Create(Box::new(params))])
    }

    fn awaited(&self) -> Option<Awaited> {
        let waits_until_ready = !self.no_wait && self.life.ready() != Ready::Spawn;
        let start = Start {
            place_within: self.bounds.limit_wait,
            ready_within: waits_until_ready.then_some(self.life.ready_timeout),
            is_bound_to_connection: self.life.lifetime == Lifetime::Connection,
        };
        let waits_for_a_name = match self.if_exists {
            IfExists::Reuse | IfExists::Replace => true,
            IfExists::Fail => false,
        };
        let can_take_long = waits_for_a_name || start.place_within.is_some() || waits_until_ready;
        let targets = self.name.clone().map(Target::Name).into_iter().collect();
        // What goes on is asked for then.
        can_take_long.then_some(Awaited { targets, end: End::Started(start), goes_on: "" })
    }

    fn plain(&self, answer: &Response) -> Result<String, Failure> {
        Ok(format!("{}\n", created_of(answer)?.child.id))
    }

    fn human(&self, answer: &Response, _: Screen) -> Result<CommandOutput, Failure> {
        created_of(answer).map(|created| CommandOutput::done(sentence(created)))
    }

    fn remark(&self, answer: &Response) -> Option<&'static str> {
        let LifeArguments { lifetime, linger, .. } = &self.life;
        match created_of(answer).ok()?.outcome {
            Outcome::Created | Outcome::Replaced => {
                let ends_at_once = *lifetime == Lifetime::Connection && linger.is_zero();
                ends_at_once.then_some(
                    "it ends with this command's connection; --linger, or --lifetime pid:$$, keeps it",
                )
            }
            Outcome::Existing { same_spec } => (!same_spec).then_some(
                "the child that was found was created from another specification, and stays as it is; \
                 --if-exists replace puts this one in its place",
            ),
        }
    }
}

fn created_of(answer: &Response) -> Result<&Created, Failure> {
    if let Response::Created(created) = answer { Ok(created) } else { Err(Failure::Answer) }
}

/// What was done, in one line.
fn sentence(created: &Created) -> String {
    let child = &created.child;
    let verb = match created.outcome {
        Outcome::Created => "created",
        Outcome::Replaced => "replaced",
        Outcome::Existing { .. } => "found",
    };
    let id = child.name.as_ref().map_or_else(String::new, |_| format!(" ({})", child.id));
    format!("{verb} {}{id}: {}\n", title(child), condition(child))
}
