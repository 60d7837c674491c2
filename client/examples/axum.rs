//! Jobs of an axum application: started, listed, awaited and stopped by requests, and outliving all of them.
//!
//! ```sh
//! procbroker run --main-stop SIGTERM:20s -- target/release/examples/axum 127.0.0.1:3000 /tmp/jobs
//! curl -X PUT localhost:3000/jobs/a; curl localhost:3000/jobs; curl -X DELETE localhost:3000/jobs/a
//! ```
//!
//! One `Broker` serves all handlers: its clones share one connection. One job for a key needs no lock, though there may
//! be many such servers.

use std::error::Error as StdError;
use std::path::PathBuf;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use procbroker_client::{Broker, ChildInfo, Created, Error, ErrorKind, IfExists, Outcome, Select};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// What a job does is not the matter here: it makes its folder, and works there until it is told to stop.
const WORK: &str = r#"mkdir -p "$0" && cd "$0" && echo "at work in $PWD" && exec sleep 1000"#;

/// What all handlers share.
#[derive(Clone, Debug)]
struct Jobs {
    broker: Broker,
    folder: PathBuf,
}

/// Why a request failed, as its user is told.
struct Failure(Error);

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = match (&self.0, self.0.kind()) {
            (_, Some(ErrorKind::NotFound)) => StatusCode::NOT_FOUND,
            (_, Some(ErrorKind::InvalidParams)) | (Error::Invalid(_), _) => StatusCode::BAD_REQUEST,
            // Later it may be possible: the broker shuts down, is being started again, or has no room.
            (_, Some(ErrorKind::ShuttingDown | ErrorKind::LimitExceeded | ErrorKind::Overloaded))
            | (Error::NotThere { .. } | Error::ConnectionLost { .. } | Error::Timeout { .. }, _) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, Json(json!({ "error": self.0.to_string() }))).into_response()
    }
}

impl Jobs {
    /// Starts the job of a key, unless it runs.
    async fn start(&self, key: &str) -> Result<Created, Error> {
        let folder = self.folder.join(key);
        self.broker
            .command("sh")
            .args(["-c", WORK])
            .arg(&folder)
            .name(format!("job-{key}"))
            .if_exists(IfExists::Reuse)
            .label("app", "jobs")
            .label("key", key)
            .stop([("SIGHUP", Duration::from_secs(10)), ("SIGTERM", Duration::from_secs(5))])
            // Runs when the job and all that it has started are gone: by itself, by a crash, or with the broker.
            .cleanup(["rm".as_ref(), "-rf".as_ref(), folder.as_os_str()], Duration::from_secs(10))
            .spawn()
            .await
    }
}

/// `PUT /jobs/{key}`: however many requests ask at once, there is one job of a key.
async fn start(State(jobs): State<Jobs>, Path(key): Path<String>) -> Result<Response, Failure> {
    let job = jobs.start(&key).await?;
    let status = match job.outcome {
        Outcome::Created | Outcome::Replaced => StatusCode::CREATED,
        Outcome::Existing { .. } => StatusCode::OK,
    };
    Ok((status, Json(shown(job.info()))).into_response())
}

/// `POST /jobs/{key}/run`: starts the job unless it runs, and answers when it has ended and is cleaned up.
async fn run(State(jobs): State<Jobs>, Path(key): Path<String>) -> Result<Json<Value>, Failure> {
    let job = jobs.start(&key).await?;
    Ok(Json(shown(&*job.wait().await?)))
}

/// `GET /jobs`: the jobs that run.
async fn list(State(jobs): State<Jobs>) -> Result<Json<Value>, Failure> {
    let running = jobs.broker.list(&Select::live().label("app", "jobs")).await?;
    let running: Vec<Value> = running.iter().map(|job| shown(job.info())).collect();
    Ok(Json(json!({ "jobs": running })))
}

/// `DELETE /jobs/{key}`: its resource is released when this answers.
async fn stop(State(jobs): State<Jobs>, Path(key): Path<String>) -> Result<Json<Value>, Failure> {
    let job = jobs.broker.get(format!("job-{key}").as_str()).await?;
    Ok(Json(shown(&*job.destroy().await?)))
}

/// What a user of this application is told of a job.
fn shown(job: &ChildInfo) -> Value {
    json!({
        "key": job.labels.get("key"),
        "state": job.state.as_str(),
        "pid": job.pid,
        "exit": job.exit.as_ref().map(|exit| exit.reason.as_str()),
        "cleaned_up": job.cleanup.as_ref().map(|cleaned| cleaned.ok),
    })
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn StdError>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:3000".to_owned());
    let folder = arguments.next().unwrap_or_else(|| "/tmp/jobs".to_owned()).into();

    // Listening for the signal begins before the first request is taken.
    let mut terminated = signal(SignalKind::terminate())?;
    let jobs = Jobs { broker: Broker::builder().lazy(), folder };
    let routes = Router::new()
        .route("/jobs", get(list))
        .route("/jobs/{key}", put(start).delete(stop))
        .route("/jobs/{key}/run", post(run))
        .with_state(jobs);
    let listener =
        TcpListener::bind(&address).await.map_err(|error| format!("cannot listen at {address}: {error}"))?;
    eprintln!("listening at {}", listener.local_addr()?);

    // No request is taken any more, and those in flight are finished: what hangs is ended by the failsafe of the broker.
    let told = async move {
        terminated.recv().await;
        eprintln!("stopping gracefully");
    };
    axum::serve(listener, routes).with_graceful_shutdown(told).await?;
    Ok(())
}
