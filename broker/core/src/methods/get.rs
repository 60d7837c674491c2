//! `get`: one child, live or ended, with its whole specification.

use procbroker_protocol::create::{Account, StandardError, StandardOutput};
use procbroker_protocol::request::OneParams;
use procbroker_protocol::{CreateParams, Got, Response, Spec};

use crate::authorize::RunAs;
use crate::broker::Broker;
use crate::child::Child;
use crate::config::Config;
use crate::ids::Call;
use crate::shown;
use crate::turn::Turn;

impl Broker {
    /// `get`: one child, live or ended. Whoever may see it may see how it was specified: its owner, root and the broker's
    /// user.
    pub(crate) fn get(&mut self, call: Call, params: &OneParams, turn: &mut Turn<'_>) {
        let found = self.find(call.connection, &params.target).map(|child| {
            let spec = Some(Box::new(spec(&self.config, child)));
            let child_shown = shown::whole(child.view(), child.params());
            (Response::Got(Got { child: child_shown, spec }), child.measured_run())
        });
        match found {
            Ok((got, run)) => self.answer_with_usage(call, got, run.into_iter().collect(), turn),
            Err(error) => self.answer(call, Err(error), turn),
        }
    }
}

/// What a child was created with, and what that has become.
fn spec(config: &Config, child: &Child) -> Spec {
    let params = CreateParams::clone(child.params());
    let (user, group, groups) = match child.run_as() {
        RunAs::Broker => (config.broker_uid, None, params.groups),
        RunAs::User { uid, gid, groups } => {
            let groups = groups.iter().copied().map(Account::Id).collect();
            (*uid, Some(*gid), Some(groups))
        }
    };
    let log = log(config, child);
    let cwd = Some(params.cwd.unwrap_or_else(|| "/".to_owned()));
    let params = CreateParams { user: Some(Account::Id(user)), groups, cwd, ..params };
    Spec { params, group, log }
}

/// Where a child's output is kept, or its errors where those alone are.
fn log(config: &Config, child: &Child) -> Option<String> {
    let CreateParams { stdout, stderr, .. } = child.params();
    let ending = match (stdout, stderr) {
        (StandardOutput::Log, _) => "out",
        (StandardOutput::Null | StandardOutput::Inherit, StandardError::Log) => "err",
        (
            StandardOutput::Null | StandardOutput::Inherit,
            StandardError::Stdout | StandardError::Null | StandardError::Inherit,
        ) => return None,
    };
    Some(format!("{}/{}.{ending}", config.log_folder, child.id()))
}
