//! Starts jobs through a broker, looks at them, waits for one and ends the others.
//!
//! With a broker there (`procbroker serve`): `cargo run --example jobs`.

use std::time::Duration;

use procbroker_client::{Broker, ChildInfo, Error, IfExists, Outcome, Select};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let broker = Broker::connect().await?;
    let status = broker.status().await?;
    println!("broker {} (pid {}) at {}", status.version, status.pid, broker.socket().display());

    // However many programs run this at a time, there is one job of each name.
    for number in 1..=3 {
        let job = broker
            .command("sleep")
            .arg("600")
            .name(format!("job-{number}"))
            .label("pool", "jobs")
            .if_exists(IfExists::Reuse)
            .stop([("SIGHUP", Duration::from_secs(2)), ("SIGTERM", Duration::from_secs(5))])
            .spawn()
            .await?;
        match job.outcome {
            Outcome::Created | Outcome::Replaced => println!("started job-{number} as pid {:?}", job.pid()),
            Outcome::Existing { same_spec } => println!("job-{number} runs already (as asked: {same_spec})"),
        }
    }

    let short = broker.command("sh").args(["-c", "exit 3"]).label("pool", "jobs").spawn().await?;
    let ended = short.wait().await?;
    println!("a short one ended: {}", how(&ended));

    let jobs = Select::live().label("pool", "jobs");
    for job in broker.list(&jobs).await? {
        println!("alive: {} {}", job.id(), job.info().command.join(" "));
    }

    // A second name for the same promise: only one of two holds it.
    let rival = broker.command("sleep").arg("600").name("job-1").spawn().await;
    match rival {
        Err(error) if error.is_name_taken() => println!("as it should be: {error}"),
        Err(error) => return Err(error),
        Ok(job) => println!("nobody held job-1 any more; pid {:?} does now", job.pid()),
    }

    for ended in broker.destroy(&jobs).await? {
        println!("ended: {} {}", ended.id, how(&ended));
    }
    Ok(())
}

/// How a child ended, in words.
fn how(child: &ChildInfo) -> String {
    match &child.exit {
        Some(exit) => format!("{} ({})", exit.status, exit.reason.as_str()),
        None => format!("not yet, it is {}", child.state.as_str()),
    }
}
