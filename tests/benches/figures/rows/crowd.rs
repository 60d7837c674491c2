//! Create beside a crowd of children that are alive, against create with none.

use std::collections::BTreeMap;

use procbroker_protocol::{CreateParams, Target};

use super::create::{bare_create, one_create};
use super::thousands;
use super::throughput::rate;
use crate::bare;
use crate::broker::Broker;
use crate::failure::Failure;
use crate::figure::{Figure, Goal, Pair, Spread, Unit, median};
use crate::hello::Hello;
use crate::in_turn::in_turn;
use crate::population::{CLIENTS, create_many};
use crate::scene::Scene;
use crate::table::quantity;

const RATIO_MAX: f64 = 1.2;
/// Children of one look at the rate.
const CHILDREN: usize = 800;

/// What create costs at one moment, in seconds.
struct Cost {
    one: f64,
    /// For each child, with 8 clients.
    many: f64,
    /// The bare spawn on the same machine, whose parent has no other children.
    bare: f64,
}

pub(super) fn measure(scene: &Scene) -> Result<Vec<Figure>, Failure> {
    let look = Look::new(scene)?;
    let [mut one, mut many] = [Vec::new(), Vec::new()];
    let [mut bare_alone, mut bare_crowded] = [Vec::new(), Vec::new()];
    for _ in 0..scene.effort.long_rounds() {
        let broker = Broker::start(scene)?;
        let alone = look.cost(scene, &broker)?;
        create_many(&broker, &CreateParams::new(scene.child_command(None)), scene.crowd)?;
        let crowded = look.cost(scene, &broker)?;
        broker.stop()?;
        one.push(Pair { ours: crowded.one, beside: alone.one });
        many.push(Pair { ours: crowded.many, beside: alone.many });
        bare_alone.push(alone.bare);
        bare_crowded.push(crowded.bare);
    }
    let crowd = thousands(scene.crowd);
    let [alone, crowded] =
        [bare_alone, bare_crowded].map(|values| quantity(Unit::Time, Spread::of(&values).median));
    let goal = Goal::RatioAtMost(RATIO_MAX);
    let beside = "the same, none alive";
    Ok(vec![
        Figure::beside(format!("create, one client, {crowd} alive"), Unit::Time, beside, &one)
            .goal(goal)
            .note(format!("bare spawn until hello meanwhile: {crowded}; with none alive: {alone}")),
        Figure::beside(format!("create, {CLIENTS} clients, {crowd} alive: each"), Unit::Time, beside, &many)
            .goal(goal),
    ])
}

/// What is used for every look.
struct Look {
    hello: Hello,
    params: CreateParams,
    /// Without a hello, and with a label by which they are destroyed without the crowd.
    silent: CreateParams,
    plan: bare::Plan,
}

impl Look {
    fn new(scene: &Scene) -> Result<Self, Failure> {
        let hello = Hello::new(scene, "crowd")?;
        let command = scene.child_command(Some(hello.path()));
        let silent = CreateParams { labels: label(), ..CreateParams::new(scene.child_command(None)) };
        let plan = bare::Plan { command: command.clone(), log: None };
        Ok(Self { hello, params: CreateParams::new(command), silent, plan })
    }

    fn cost(&self, scene: &Scene, broker: &Broker) -> Result<Cost, Failure> {
        let mut connection = broker.connect()?;
        let mut spawner = bare::spawner(scene)?;
        let [ours, bare] = in_turn(
            scene.effort.samples(),
            [&mut || one_create(&mut connection, &self.params, &self.hello), &mut || {
                bare_create(&mut spawner, &self.plan, &self.hello)
            }],
        )?;
        let took = create_many(broker, &self.silent, CHILDREN)?;
        connection.destroy(Target::Labels(label()))?;
        let many = 1.0 / rate(CHILDREN, took.as_secs_f64());
        Ok(Cost { one: median(&ours), many, bare: median(&bare) })
    }
}

fn label() -> BTreeMap<String, String> {
    [("look".to_owned(), "1".to_owned())].into()
}
