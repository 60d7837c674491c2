//! Whether the parts of a `restart` fit each other.

use procbroker_protocol::create::{Restart, RestartPolicy};
use procbroker_protocol::{Error, duration};

use super::invalid;

/// Checks `restart`.
pub(super) fn check(restart: &Restart) -> Result<(), Error> {
    match restart.policy {
        RestartPolicy::Never => unused(restart),
        RestartPolicy::OnFailure | RestartPolicy::Always => pauses(restart),
    }
}

/// Refuses what would bound restarts that there are none of: somebody has forgotten the policy.
fn unused(restart: &Restart) -> Result<(), Error> {
    let Restart { policy: _, max, window, backoff, backoff_max } = *restart;
    let usual = Restart::default();
    let unused = |field: &str, value: &dyn std::fmt::Display| {
        let reason = format!(
            "it is {value}, and the policy (restart.policy) never restarts nothing; give on-failure or always"
        );
        Err(invalid(field, &reason))
    };
    if max != usual.max {
        return unused("restart.max", &max);
    }
    let times = [
        ("restart.window", window, usual.window),
        ("restart.backoff", backoff, usual.backoff),
        ("restart.backoff_max", backoff_max, usual.backoff_max),
    ];
    match times.into_iter().find(|(_, time, usual)| time != usual) {
        Some((field, time, _)) => unused(field, &duration::display(time)),
        None => Ok(()),
    }
}

/// Refuses a first pause that is longer than the longest.
fn pauses(restart: &Restart) -> Result<(), Error> {
    if restart.backoff <= restart.backoff_max {
        return Ok(());
    }
    let (first, longest) = (duration::display(restart.backoff), duration::display(restart.backoff_max));
    let reason = format!(
        "the first pause is {first}, and the longest (restart.backoff_max) {longest}; give one that is no shorter"
    );
    Err(invalid("restart.backoff", &reason))
}
