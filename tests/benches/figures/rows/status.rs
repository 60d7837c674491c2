//! The round trip of `status`, beside an echo.

use std::time::Instant;

use crate::broker::Broker;
use crate::failure::Failure;
use crate::figure::{Figure, Goal, Pair, Spread, Unit, median, percentile_99};
use crate::in_turn::in_turn;
use crate::peer::{Answers, ECHO_BYTES, Peer, echo};
use crate::scene::Scene;
use crate::table::quantity;

const RATIO_MAX: f64 = 1.5;
/// Round trips are short: so many times more of them make a round.
const MORE: usize = 10;

pub(super) fn measure(scene: &Scene) -> Result<Vec<Figure>, Failure> {
    let broker = Broker::start(scene)?;
    let mut connection = broker.connect()?;
    let client_failed = |source| Failure::Client {
        attempt: "call status by the Rust client".into(),
        source: Box::new(source),
    };
    let runtime = super::list::runtime()?;
    let client = runtime.block_on(procbroker_client::Broker::at(broker.socket())).map_err(client_failed)?;
    let peer = Peer::start(scene, &Answers::Echo)?;
    let mut stream = peer.connect()?;
    let samples = scene.effort.samples() * MORE;

    let [mut rounds, mut by_client] = [Vec::new(), Vec::new()];
    let [mut tails, mut echo_tails] = [Vec::new(), Vec::new()];
    for _ in 0..scene.effort.rounds() {
        let [ours, clients, echoes] = in_turn(
            samples,
            [
                &mut || {
                    let begin = Instant::now();
                    connection.status().map(|()| begin.elapsed())
                },
                &mut || {
                    let begin = Instant::now();
                    runtime.block_on(client.status()).map_err(client_failed)?;
                    Ok(begin.elapsed())
                },
                &mut || echo(&mut stream),
            ],
        )?;
        let beside = median(&echoes);
        rounds.push(Pair { ours: median(&ours), beside });
        by_client.push(Pair { ours: median(&clients), beside });
        tails.push(percentile_99(&ours));
        echo_tails.push(percentile_99(&echoes));
    }
    drop((connection, client));
    broker.stop()?;

    let [tail, echo_tail] =
        [tails, echo_tails].map(|values| quantity(Unit::Time, Spread::of(&values).median));
    let bare = format!("bare echo of {ECHO_BYTES} bytes");
    let goal = Goal::RatioAtMost(RATIO_MAX);
    Ok(vec![
        Figure::beside("status, binary, blocking client", Unit::Time, bare.clone(), &rounds)
            .goal(goal)
            .note(format!("99th percentile: ours {tail}, echo {echo_tail}; both clients block")),
        Figure::beside("status, binary, Rust client on tokio", Unit::Time, bare, &by_client).goal(goal),
    ])
}
