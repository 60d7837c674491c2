//! An upgrade: another program takes the broker's place, and the connection is made anew to it.

use std::time::Duration;

use procbroker_protocol::request::{Method, NoParams};
use procbroker_protocol::status::FailedUpgrade;
use procbroker_protocol::{Error as BrokerError, ErrorKind, Request, Response, Status};
use tokio::time::timeout;

use super::Broker;
use super::carry_out::excuse;
use crate::error::Error;
use crate::link::Unanswered;
use crate::retry::{Call, unexpected};

/// How long a broker that has agreed to be replaced may take to be gone.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(15);

/// How often a broker is asked that has agreed to be replaced, and has not closed the connection.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What an upgrade has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrade {
    /// The broker before it.
    pub before: Status,
    /// The broker after it, as soon as it served.
    pub after: Status,
}

impl Broker {
    /// Puts another program into the place of the broker's: the one that is found where the broker's was by now. Children
    /// do not notice, and this broker stays usable. Answers when the other program serves.
    ///
    /// # Errors
    /// [`Error::Broker`] with the reason when the broker stays as it is, goes on again because the other program has
    /// failed, or was lost and started again; [`Error::Timeout`] when it was about to give up its place and still has not, 15 seconds later: its log
    /// tells why.
    pub async fn upgrade(&self) -> Result<Upgrade, Error> {
        let before = self.status().await?;
        let link = self.link().await?;
        match self.ask(&link, &Request::Upgrade(NoParams {})).await {
            Ok(answer) => match answer? {
                Response::Upgraded => {}
                other => return Err(unexpected(Method::Upgrade, &other)),
            },
            // It has ended with the program that had it.
            Err(Unanswered::Lost) => {}
            Err(unanswered) => excuse(unanswered, &mut Call::new(Request::Upgrade(NoParams {})))?,
        }
        let taking_over = async {
            let mut link = link;
            loop {
                // A program that cannot be executed ends no connection: there it is asked.
                let _is_still_there = timeout(LOOK_EVERY, link.ended()).await;
                // The end that is waited for next is that of the connection that is asked here: by the time of the
                // answer, another one may lead to the other program already, and end only with it.
                link = self.link().await?;
                match self.ask(&link, &Request::Status(NoParams {})).await {
                    Ok(answer) => match answer? {
                        Response::Status(now) if now.instance != before.instance => {
                            return if now.pid == before.pid { Ok(*now) } else { Err(lost(&before, &now)) };
                        }
                        Response::Status(now) if now.failed_upgrade != before.failed_upgrade => {
                            return Err(not_upgraded(now.failed_upgrade));
                        }
                        // It has not come to that, or the connection was lost for another reason.
                        Response::Status(_) => {}
                        other => return Err(unexpected(Method::Status, &other)),
                    },
                    Err(Unanswered::NotSent | Unanswered::Lost) => {}
                    Err(unanswered) => excuse(unanswered, &mut Call::new(Request::Status(NoParams {})))?,
                }
            }
        };
        let in_time = timeout(
            UPGRADE_TIMEOUT.saturating_add(self.shared.connection.route().connect_timeout),
            taking_over,
        )
        .await;
        let after = in_time.unwrap_or_else(|_| {
            let waiting_for =
                "the other program, which was to take over (the broker's log tells why it did not),";
            Err(Error::Timeout { waiting_for: waiting_for.to_owned(), after: UPGRADE_TIMEOUT })
        })?;
        Ok(Upgrade { before, after })
    }
}

/// The other program has failed, and the broker goes on.
fn not_upgraded(failed: Option<FailedUpgrade>) -> Error {
    let message = failed.map_or_else(String::new, |failed| failed.message);
    let message = format!("not upgraded, and nothing has changed: {message}");
    BrokerError::new(ErrorKind::Internal, message).into()
}

/// The broker has crashed, and whatever starts it then has done so. An upgrade keeps the process.
fn lost(before: &Status, now: &Status) -> Error {
    let message = format!(
        "not upgraded: the broker was lost and started again, as process {} instead of {}; its children are taken up as \
         after every crash, and its log may tell why it was lost",
        now.pid, before.pid
    );
    BrokerError::new(ErrorKind::Internal, message).into()
}
