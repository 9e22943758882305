//! An agent's spool and link, a process server's receiver, and everything between them that can fail.
//!
//! The guest writes versions into a few blocks. Each sealed batch carries some of them, and the oracle keeps
//! the source's image at that batch. Whatever the receiver accepts must turn the image of the batch before
//! into exactly the image of the batch: a lost, doubled or reordered batch, or a jump that is no resync,
//! cannot.
//!
//! Oracles, checked at each step
//! - O-1 An accepted batch is one that was pushed, and gives the source's image.
//! - O-2 A position in `Ack` or `Welcome` is durable in the stage or in the vault.
//! - O-3 The spool forgets only what was durable in the stage or in the vault.
//! - O-4 Memory, spill and stage stay within their bounds; a push is answered at once.
//! - O-5 An older generation than one welcomed is never welcomed.
//! - O-6 A restart finds every batch that was synced to the spill and is held.
//! - O-7 Without faults everything ends in the vault, equal to the source.

mod agent;
mod disk;
mod server;

use agent::Agent;
use disk::MACHINE;
use proptest::prelude::*;
use redoubt_core::link::{ConnectionId, LinkEvent};
use redoubt_core::message::{Hello, Message, PROTOCOL_VERSIONS, RefusedReason};
use redoubt_core::receiver::{ReceiverEvent, SessionId};
use redoubt_core::{BatchPosition, Chain, Generation, Instant};
use server::Server;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// Blocks of the source.
pub(crate) const BLOCKS: u8 = 6;
/// Version of each block's content.
pub(crate) type Image = BTreeMap<u8, u64>;

/// What was sealed: what it changes, and the source's image with it.
pub(crate) struct Sealed {
    pub(crate) content: Image,
    pub(crate) image: Image,
}

/// What the oracles remember; no process knows it.
#[derive(Default)]
pub(crate) struct Truth {
    pub(crate) sealed: BTreeMap<Chain, Sealed>,
    pub(crate) ever_durable: BTreeSet<Chain>,
    pub(crate) welcomed: Generation,
    pub(crate) source: Image,
    pub(crate) versions: u64,
}

/// One connection; what is in flight is lost when it breaks.
struct Connection {
    id: ConnectionId,
    session: SessionId,
    to_server: VecDeque<Message>,
    to_agent: VecDeque<Message>,
}

/// What happens.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Op {
    Write { block: u8, records: u64, extra: usize },
    SpillWork(usize),
    StageWork(usize),
    Deliver(usize),
    Break { noticed: bool },
    Time(u64),
    CommitEnds { ok: bool },
    SpillFails,
    ReadFails,
    StageFails,
    AgentCrash { torn: Option<usize> },
    ServerCrash { torn: Option<usize>, committed: bool },
    StageRots,
    OldAgentReturns,
}

pub(crate) fn op() -> impl Strategy<Value = Op> {
    let torn = || prop_oneof![Just(None), (0usize..400).prop_map(Some)];
    prop_oneof![
        24 => (0..BLOCKS, 1u64..4, 0usize..200)
            .prop_map(|(block, records, extra)| Op::Write { block, records, extra }),
        8 => (1usize..8).prop_map(Op::SpillWork),
        8 => (1usize..8).prop_map(Op::StageWork),
        16 => (1usize..8).prop_map(Op::Deliver),
        3 => any::<bool>().prop_map(|noticed| Op::Break { noticed }),
        4 => (1u64..40).prop_map(Op::Time),
        4 => any::<bool>().prop_map(|ok| Op::CommitEnds { ok }),
        1 => Just(Op::SpillFails),
        1 => Just(Op::ReadFails),
        1 => Just(Op::StageFails),
        2 => torn().prop_map(|torn| Op::AgentCrash { torn }),
        2 => (torn(), any::<bool>()).prop_map(|(torn, committed)| Op::ServerCrash { torn, committed }),
        1 => Just(Op::StageRots),
        1 => Just(Op::OldAgentReturns),
    ]
}

/// Bounds of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) memory: u64,
    pub(crate) spill: u64,
    pub(crate) stage: u64,
}

pub(crate) fn bounds() -> impl Strategy<Value = Bounds> {
    let spill = prop_oneof![Just(0u64), Just(900), Just(1 << 20)];
    (prop_oneof![Just(300u64), Just(1500)], spill, prop_oneof![Just(1200u64), Just(1 << 20)])
        .prop_map(|(memory, spill, stage)| Bounds { memory, spill, stage })
}

/// Both sides and what lies between.
pub(crate) struct World {
    now: Instant,
    truth: Truth,
    agent: Agent,
    server: Server,
    connection: Option<Connection>,
    sessions: u64,
}

impl World {
    pub(crate) fn new(bounds: Bounds) -> World {
        let mut world = World {
            now: Instant(0),
            truth: Truth::default(),
            agent: Agent::new(bounds),
            server: Server::new(bounds),
            connection: None,
            sessions: 0,
        };
        world.agent.start(world.now, &mut world.truth);
        world
    }

    pub(crate) fn step(&mut self, op: Op) {
        let (now, truth) = (self.now, &mut self.truth);
        match op {
            Op::Write { block, records, extra } => self.agent.write(now, block, records, extra, truth),
            Op::SpillWork(count) => (0..count).for_each(|_| self.agent.spill_work(now, truth)),
            Op::StageWork(count) => (0..count).for_each(|_| self.server.stage_work(now, truth)),
            Op::Deliver(count) => (0..count).for_each(|_| self.deliver()),
            Op::Break { noticed } => self.cut(noticed),
            Op::Time(seconds) => self.pass(seconds),
            Op::CommitEnds { ok } => self.server.commit_ends(now, ok, truth),
            Op::SpillFails => self.agent.spill_fails = true,
            Op::ReadFails => self.agent.read_fails = true,
            Op::StageFails => self.server.stage_fails = true,
            Op::AgentCrash { torn } => {
                self.cut(false);
                self.agent.crash(self.now, torn, &mut self.truth);
            }
            Op::ServerCrash { torn, committed } => {
                self.cut(true);
                self.server.crash(self.now, torn, committed, &mut self.truth);
            }
            Op::StageRots => {
                self.cut(true);
                self.server.rot(self.now, &mut self.truth);
            }
            Op::OldAgentReturns => self.old_agent_returns(),
        }
        self.exchange();
        self.agent.check(&self.truth);
        self.server.check();
    }

    /// Moves what both sides want to send into the connection, and follows their wishes to connect or close.
    fn exchange(&mut self) {
        if self.server.restart_wanted() {
            self.cut(true);
            self.server.crash(self.now, None, false, &mut self.truth);
        }
        let closed = std::mem::take(&mut self.agent.closed);
        if let Some(connection) = self.connection.take_if(|connection| closed.contains(&connection.id)) {
            self.server.step(self.now, ReceiverEvent::Gone(connection.session), &mut self.truth);
        }
        if let Some(id) = self.agent.connect.take() {
            self.sessions += 1;
            let session = SessionId(self.sessions);
            let challenge = VecDeque::from([Message::Challenge([1; 32])]);
            let connection = Connection { id, session, to_server: VecDeque::new(), to_agent: challenge };
            self.connection = Some(connection);
        }
        let to_server: Vec<(ConnectionId, Message)> = self.agent.outgoing.drain(..).collect();
        let to_agent: Vec<(SessionId, Message)> = self.server.outgoing.drain(..).collect();
        if let Some(connection) = &mut self.connection {
            let ours = to_server.into_iter().filter(|(id, _)| *id == connection.id);
            connection.to_server.extend(ours.map(|(_, message)| message));
            let ours = to_agent.into_iter().filter(|(id, _)| *id == connection.session);
            connection.to_agent.extend(ours.map(|(_, message)| message));
        }
        let closed = std::mem::take(&mut self.server.closed);
        let is_closed = |connection: &Connection| closed.contains(&connection.session);
        if self.connection.as_ref().is_some_and(is_closed) {
            // What was said before the close arrives first.
            while let Some(message) = self.connection.as_mut().and_then(|c| c.to_agent.pop_front()) {
                let Some(id) = self.connection.as_ref().map(|c| c.id) else { break };
                self.agent.link(self.now, LinkEvent::Received(id, message), &mut self.truth);
            }
            if let Some(connection) = self.connection.take() {
                self.agent.link(self.now, LinkEvent::Broken(connection.id), &mut self.truth);
            }
        }
    }

    fn deliver(&mut self) {
        self.exchange();
        let Some(connection) = &mut self.connection else { return };
        let (id, session) = (connection.id, connection.session);
        self.agent.link(self.now, LinkEvent::Connected(id), &mut self.truth);
        let (up, down) = (connection.to_server.pop_front(), connection.to_agent.pop_front());
        match up {
            Some(Message::Hello(hello)) => {
                self.server.step(
                    self.now,
                    ReceiverEvent::Hello { session, hello, proven: true },
                    &mut self.truth,
                );
            }
            Some(message) => {
                self.server.step(self.now, ReceiverEvent::Received(session, message), &mut self.truth);
            }
            None => {}
        }
        if let Some(message) = down {
            self.agent.link(self.now, LinkEvent::Received(id, message), &mut self.truth);
        }
        self.exchange();
    }

    fn cut(&mut self, noticed: bool) {
        self.exchange();
        let Some(connection) = self.connection.take() else { return };
        self.agent.link(self.now, LinkEvent::Broken(connection.id), &mut self.truth);
        if noticed {
            self.server.step(self.now, ReceiverEvent::Gone(connection.session), &mut self.truth);
        }
    }

    fn pass(&mut self, seconds: u64) {
        self.now = self.now.after(Duration::from_secs(seconds));
        self.agent.link(self.now, LinkEvent::Tick, &mut self.truth);
        self.server.step(self.now, ReceiverEvent::Tick, &mut self.truth);
    }

    fn old_agent_returns(&mut self) {
        let Some(generation) = self.truth.welcomed.0.checked_sub(1) else { return };
        self.sessions += 1;
        let session = SessionId(self.sessions);
        let hello = Hello {
            versions: PROTOCOL_VERSIONS,
            machine: MACHINE,
            generation: Generation(generation),
            volumes: vec![],
            names: redoubt_core::Names::default(),
            held: None,
            newest: BatchPosition::default(),
            proof: [0; 32],
        };
        self.server.step(self.now, ReceiverEvent::Hello { session, hello, proven: true }, &mut self.truth);
        let refused = self.server.outgoing.iter().any(|(id, message)| {
            let reason = RefusedReason::OldGeneration;
            *id == session && matches!(message, Message::Refused { reason: found, .. } if *found == reason)
        });
        assert!(refused, "O-5: generation {generation} was let in after {}", self.truth.welcomed);
    }

    /// O-7: runs on without faults until everything is in the vault.
    pub(crate) fn settle(&mut self) {
        self.agent.stop_faults();
        self.server.stage_fails = false;
        for _ in 0..400 {
            if self.agent.is_idle() && self.server.vaulted() == self.agent.newest {
                let image = self.truth.sealed.get(&self.agent.newest.chain).map(|sealed| &sealed.image);
                assert_eq!(image, Some(&self.truth.source), "O-7: the vault equals the source");
                return;
            }
            let (now, truth) = (self.now, &mut self.truth);
            self.agent.seal_resync(now, truth);
            for op in
                [Op::SpillWork(8), Op::StageWork(8), Op::CommitEnds { ok: true }, Op::Deliver(8), Op::Time(1)]
            {
                self.step(op);
            }
        }
        panic!("O-7: stuck; {:?}\nserver {:?}", self.agent, self.server.vaulted());
    }
}

/// Plays a whole run.
pub(crate) fn play(bounds: Bounds, ops: &[Op]) {
    let mut world = World::new(bounds);
    ops.iter().for_each(|op| world.step(*op));
    world.settle();
}
