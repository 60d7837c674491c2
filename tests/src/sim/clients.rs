//! The model clients: who they are, when they come and go, and what they send.

use std::time::Duration;

use procbroker_core::{Call, ConnectionId, Fresh, Input, Peer};
use procbroker_protocol::request::{DestroyParams, NoParams, ShutdownParams};
use procbroker_protocol::{ChildId, CreateParams, Request, Target};
use uuid::Uuid;

use crate::sim::dice::Dice;
use crate::sim::requests::{self, Circumstances};
use crate::sim::setting::{ALLOWED_GROUP, BROKER_USER, GROUP_USER, STRANGER, Setting, USERS};

/// One client.
#[derive(Debug)]
pub struct Client {
    peer: Peer,
    connection: Option<ConnectionId>,
    sent: Vec<CreateParams>,
    /// How often it still does something.
    acts: u64,
    /// Whether the broker has died on it: it does not know what became of its requests.
    unsure: bool,
}

/// All clients of a run.
#[derive(Debug)]
pub struct Clients {
    all: Vec<Client>,
    connections: u64,
    calls: u64,
    ids: u128,
    /// All children that were asked for.
    children: Vec<ChildId>,
    /// The last connection of the one who ends a run.
    caretaker: Option<ConnectionId>,
}

impl Clients {
    /// The clients of a run.
    pub fn roll(dice: &mut Dice, setting: &Setting) -> Self {
        let clients = (0..setting.clients)
            .map(|_| {
                let uid = match dice.below(20) {
                    0 => STRANGER,
                    1 => GROUP_USER,
                    2..6 => 0,
                    6..9 => BROKER_USER,
                    9..15 => USERS[0],
                    _ => USERS[1],
                };
                Client {
                    peer: peer(uid),
                    connection: None,
                    sent: Vec::new(),
                    acts: setting.acts,
                    unsure: false,
                }
            })
            .collect();
        Self { all: clients, connections: 0, calls: 0, ids: 0, children: Vec::new(), caretaker: None }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// A client does something: what the broker is told, and whether it will do more.
    pub fn act(&mut self, index: usize, dice: &mut Dice, setting: &Setting) -> (Vec<Input>, bool) {
        let Some(client) = self.all.get_mut(index) else { return (Vec::new(), false) };
        if client.acts == 0 {
            return (Vec::new(), false);
        }
        client.acts -= 1;
        let Some(connection) = client.connection else {
            self.connections += 1;
            let connection = ConnectionId(self.connections);
            client.connection = Some(connection);
            let peer = client.peer.clone();
            return (vec![Input::Connected { connection, peer }], true);
        };
        if dice.chance(9) {
            client.connection = None;
            return (vec![Input::Disconnected { connection }], true);
        }
        let count = dice.choose([1, 1, 1, 1, 2, 2, 4]);
        let mut inputs: Vec<Input> = Vec::new();
        for _ in 0..count {
            inputs.push(self.request(index, connection, dice, setting));
        }
        // The same request comes twice at once when a client gives up on an answer and asks again.
        if dice.chance(5)
            && let Some(Input::Called { request, .. }) = inputs.last()
        {
            let request = request.clone();
            inputs.push(self.call(connection, request));
        }
        (inputs, true)
    }

    /// The broker is gone, and all connections with it.
    pub fn cut_off(&mut self) {
        self.caretaker = None;
        for client in &mut self.all {
            client.unsure |= client.connection.take().is_some();
        }
    }

    /// The broker has refused a connection.
    pub fn refused(&mut self, connection: ConnectionId) {
        for client in &mut self.all {
            if client.connection == Some(connection) {
                client.connection = None;
            }
        }
    }

    fn request(
        &mut self,
        index: usize,
        connection: ConnectionId,
        dice: &mut Dice,
        setting: &Setting,
    ) -> Input {
        let sent = self.all.get(index).map_or(&[][..], |client| &client.sent);
        let unsure = self.all.get(index).is_some_and(|client| client.unsure);
        let mut from = Circumstances { dice, setting, children: &self.children, sent, unsure };
        let request = requests::roll(&mut from);
        if let (Request::Create(params), Some(client)) = (&request, self.all.get_mut(index)) {
            client.sent.push(CreateParams::clone(params));
        }
        self.call(connection, request)
    }

    /// A request on a connection, with an id that was never used.
    fn call(&mut self, connection: ConnectionId, request: Request) -> Input {
        self.calls += 1;
        self.ids += 1;
        let child = ChildId::from_uuid(Uuid::from_u128((7 << 76) | (2 << 62) | (self.ids << 80)));
        self.children.push(child);
        let fresh = Fresh {
            child,
            accounts: requests::accounts(&request),
            caller: requests::caller(&request, self.ids),
            anchor: None,
        };
        Input::Called { call: Call { connection, number: self.calls }, request, fresh }
    }

    /// Root comes and asks for a shutdown.
    pub fn shut_down(&mut self, timeout: Option<Duration>) -> Vec<Input> {
        let (connection, connected) = self.root();
        let request = Request::Shutdown(ShutdownParams { timeout });
        vec![connected, self.call(connection, request)]
    }

    /// Everybody leaves; root comes and has every child ended.
    pub fn leave(&mut self) -> Vec<Input> {
        let mut inputs = Vec::new();
        for client in &mut self.all {
            client.acts = 0;
            if let Some(connection) = client.connection.take() {
                inputs.push(Input::Disconnected { connection });
            }
        }
        let (connection, connected) = self.root();
        inputs.push(connected);
        let request =
            Request::Destroy(DestroyParams { target: Target::All, stop: Some(vec![]), no_wait: true });
        inputs.push(self.call(connection, request));
        inputs.push(self.call(connection, Request::Status(NoParams {})));
        self.caretaker = Some(connection);
        inputs
    }

    /// Root leaves too.
    pub fn leave_wholly(&mut self) -> Option<Input> {
        self.caretaker.take().map(|connection| Input::Disconnected { connection })
    }

    fn root(&mut self) -> (ConnectionId, Input) {
        self.connections += 1;
        let connection = ConnectionId(self.connections);
        (connection, Input::Connected { connection, peer: peer(0) })
    }
}

fn peer(uid: u32) -> Peer {
    let groups = match uid {
        GROUP_USER => vec![GROUP_USER, ALLOWED_GROUP],
        STRANGER => vec![STRANGER],
        uid => vec![uid, 88],
    };
    Peer { uid, gid: uid, groups, pid: None }
}
