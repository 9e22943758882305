//! A process server's host at this tier: for each machine a stage, and an owner that opens it, stages and commits.
//!
//! Parts: the stage (`stage`), opening with claim and seal (`opening`), the receiver and its effects (`actor`),
//! commits, digests and marks (`vaulting`), failures of the stage (`failure`).
//!
//! What is *not* here: decisions (`core::receiver`), the vault itself ([`super::vault`]).

mod actor;
mod failure;
mod opening;
mod stage;
mod vaulting;

use super::common::Common;
use super::dice::{MILLI, SECOND};
use super::event::{ActorWork, Event, ServerWork};
use super::files::Directory;
use actor::Open;
use redoubt_core::WriteSeq;
use redoubt_core::message::{Hello, Message, RefusedReason};
use redoubt_core::receiver::SessionId;
use stage::Stage;

/// First pause after a failure; doubles.
const PAUSE_FIRST: u64 = SECOND;
/// Longest pause.
const PAUSE_MAX: u64 = 32 * SECOND;
/// How long the agent of a staged machine is waited for.
const AGENT_WAIT: u64 = 60 * SECOND;

/// An agent that waits for its welcome.
pub(super) struct Caller {
    connection: u32,
    session: SessionId,
    hello: Hello,
}

/// What one machine is to this server.
enum State {
    /// Nobody asked for it in this process.
    Closed,
    /// It is looked at, then claim and seal are under way; `looks` are left.
    Opening { caller: Option<Box<Caller>>, looks: u32, tries: u32, pause: u64 },
    /// An attempt failed; `waits_for_agent` if only an agent begins another one.
    Resting { waits_for_agent: bool, pause: u64, reason: RefusedReason },
    /// It is served.
    Open(Box<Open>),
}

/// One machine at this server.
struct Owned {
    stage: Stage,
    state: State,
    /// Number of the owner: events of older ones are nobody's.
    actor: u32,
    /// Where the log ended when this process began.
    seen: WriteSeq,
}

/// A process server's host.
pub(super) struct ServerHost {
    pub(super) host: u16,
    number: u16,
    pub(super) run: u32,
    pub(super) is_running: bool,
    pub(super) directory: Directory,
    machines: Vec<Owned>,
    stage_bytes: u64,
    sessions: u64,
    /// Effects on the store until its process ends with one.
    pub(super) trip: Option<u64>,
}

impl ServerHost {
    pub(super) fn new(host: u16, number: u16, machines: usize, stage_bytes: u64) -> ServerHost {
        let owned = |_| Owned { stage: Stage::default(), state: State::Closed, actor: 0, seen: WriteSeq(0) };
        ServerHost {
            host,
            number,
            run: 0,
            is_running: false,
            directory: Directory::default(),
            machines: (0..machines).map(owned).collect(),
            stage_bytes: stage_bytes / machines.max(1) as u64,
            sessions: 0,
            trip: None,
        }
    }

    fn work(&self, machine: u16, work: ActorWork) -> Event {
        let actor = self.machines[usize::from(machine)].actor;
        Event::Server(self.number, self.run, ServerWork::Of(machine, actor, work))
    }

    fn after(&self, c: &mut Common, delay: u64, machine: u16, work: ActorWork) {
        let event = self.work(machine, work);
        c.after(delay, event);
    }

    pub(super) fn power_up(&mut self, c: &mut Common) {
        self.run += 1;
        c.after(MILLI, Event::Server(self.number, self.run, ServerWork::Start));
    }

    pub(super) fn on_work(&mut self, c: &mut Common, work: ServerWork) {
        match work {
            ServerWork::Start => self.start(c),
            ServerWork::Of(machine, actor, work) => {
                if self.machines[usize::from(machine)].actor == actor {
                    self.on_actor(c, machine, work);
                }
            }
        }
    }

    fn start(&mut self, c: &mut Common) {
        self.is_running = true;
        c.say(usize::from(self.host), || "serves".to_owned());
        for machine in 0..self.machines.len() as u16 {
            let owned = &mut self.machines[usize::from(machine)];
            owned.seen = c.truths[usize::from(machine)].vault.head.seq;
            if !owned.stage.entries.is_empty() {
                c.marks.insert("stage-recovered");
                self.after(c, AGENT_WAIT, machine, ActorWork::Leftover);
            }
        }
    }

    fn on_actor(&mut self, c: &mut Common, machine: u16, work: ActorWork) {
        match work {
            ActorWork::Leftover => {
                let owned = &self.machines[usize::from(machine)];
                // Another process server writes this machine: its stage here stays as it is.
                let is_alone = owned.seen == c.truths[usize::from(machine)].vault.head.seq;
                if is_alone && matches!(owned.state, State::Closed) {
                    self.open(c, machine, None);
                }
            }
            ActorWork::Open => self.open_again(c, machine),
            ActorWork::Answer(request) => self.answered(c, machine, request),
            ActorWork::Again => self.publish(c, machine),
            ActorWork::Synced(covers) => self.synced(c, machine, covers),
            ActorWork::Saved(generation) => self.saved(c, machine, generation),
            ActorWork::Tick => self.tick(c, machine),
            ActorWork::Hash => self.ask_hashes(c, machine),
        }
    }

    /// The process ends without a word; its stage stays as it is.
    pub(super) fn end(&mut self, c: &mut Common) {
        self.is_running = false;
        self.run += 1;
        for owned in &mut self.machines {
            owned.state = State::Closed;
            owned.actor += 1;
        }
        for number in 0..c.net.connections.len() as u32 {
            let connection = &mut c.net.connections[number as usize];
            if connection.server == self.host
                && std::mem::take(&mut connection.is_server_open)
                && c.hosts[usize::from(self.host)].is_powered
            {
                c.send(number, false, None);
            }
        }
    }

    pub(super) fn lose_power(&mut self, c: &mut Common) {
        for owned in &mut self.machines {
            owned.stage.lose_power(&mut c.dice);
        }
    }

    /// The state directory is gone.
    pub(super) fn lose_files(&mut self) {
        self.directory.met += 1;
        self.directory.is_lost = true;
        self.machines.iter_mut().for_each(|owned| owned.stage.wipe());
    }

    /// A connection reached this host.
    pub(super) fn accept(&mut self, c: &mut Common, number: u32) -> bool {
        if !self.is_running {
            return false;
        }
        let connection = &mut c.net.connections[number as usize];
        connection.is_server_open = true;
        connection.server_run = Some(self.run);
        true
    }

    pub(super) fn challenge(&self, c: &mut Common, number: u32) {
        c.tell(number, false, Message::Challenge([0; 32]));
    }

    /// Something arrived on a connection; `None` if it ended.
    pub(super) fn hear(&mut self, c: &mut Common, number: u32, heard: Option<Message>) {
        let connection = &mut c.net.connections[number as usize];
        if !connection.is_server_open || connection.server_run != Some(self.run) {
            return;
        }
        let session = SessionId(u64::from(number) + 1);
        match (heard, connection.machine) {
            (Some(Message::Hello(hello)), None) => {
                let Some(machine) = hello.machine.0.checked_sub(1).map(|machine| machine as u16) else {
                    return;
                };
                connection.machine = Some(machine);
                self.sessions += 1;
                self.hello(c, machine, Caller { connection: number, session, hello });
            }
            (Some(message), Some(machine)) => self.received(c, machine, session, message),
            (None, machine) => {
                connection.is_server_open = false;
                if let Some(machine) = machine {
                    self.gone(c, machine, session);
                }
            }
            (Some(_), None) => {}
        }
    }

    /// Closes a connection behind what was said on it.
    fn close(&self, c: &mut Common, session: SessionId) {
        let number = session.0 as u32 - 1;
        if std::mem::take(&mut c.net.connections[number as usize].is_server_open) {
            c.send(number, false, None);
        }
    }

    fn refuse(&self, c: &mut Common, caller: &Caller, reason: RefusedReason) {
        if c.net.connections[caller.connection as usize].is_server_open {
            c.tell(caller.connection, false, Message::Refused { reason, detail: String::new() });
            self.close(c, caller.session);
        }
    }

    /// Returns how many bytes each machine staged.
    pub(super) fn staged_bytes(&self) -> impl Iterator<Item = u64> {
        self.machines.iter().map(|owned| owned.stage.bytes())
    }

    /// Says what this server waits for with a machine.
    pub(super) fn line(&self, machine: usize) -> String {
        match &self.machines[machine].state {
            State::Closed => "closed".to_owned(),
            State::Opening { .. } => "opening".to_owned(),
            State::Resting { reason, .. } => format!("not open: {reason}"),
            State::Open(open) => open.line(),
        }
    }
}
