//! The agent's link: sockets and frames around [`redoubt_core::link::Link`].

use super::shell::{Outgoing, Shell};
use super::trouble::Concern;
use super::workers::until;
use crate::process_server::session;
use crate::tasks::Tasks;
use redoubt_core::agent::AgentEvent;
use redoubt_core::link::{ConnectionId, HANDSHAKE, Link, LinkEffect, LinkEvent, LinkState, PING_EVERY};
use redoubt_core::message::{Hello, Message, PROTOCOL_VERSIONS};
use redoubt_core::{Generation, Names};
use redoubt_ports::{Alarm, Rare};
use redoubt_wire::{Decoder, StreamKey};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Messages waiting for the socket; batches among them are bounded by permits as well.
const OUTGOING_MAX: usize = 4096;
/// Messages read and not yet handled: the reader waits beyond it.
const INCOMING_MAX: usize = 64;
/// A refusal that trying again cannot change is tried again all the same, rarely: a person may have
/// repaired the cause at the other side.
const STOPPED_RETRY: Duration = Duration::from_secs(60);
/// The loop looks around at least this often while there is no session; a session wakes it when it must.
const IDLE_MAX: Duration = Duration::from_secs(1);

struct Connection {
    id: ConnectionId,
    outgoing: Option<mpsc::Sender<Option<Message>>>,
    tasks: Arc<Tasks>,
}

struct LinkTask {
    shell: Arc<Shell>,
    key: StreamKey,
    link: Link,
    connection: Option<Connection>,
    events: mpsc::Sender<(ConnectionId, Incoming)>,
    stopped_at: Option<redoubt_core::Instant>,
}

enum Incoming {
    Connected(mpsc::Sender<Option<Message>>),
    Message(Message),
    Broken(String),
}

/// Runs the link for ever.
pub(super) async fn run(shell: Arc<Shell>, key: StreamKey) {
    let endpoints = shell.settings.process_servers.len();
    if endpoints == 0 {
        return;
    }
    let (events, mut incoming) = mpsc::channel(INCOMING_MAX);
    let seed = shell.world.entropy.id() as u64;
    let link = Link::new(endpoints, seed);
    let mut task = LinkTask { shell, key, link, connection: None, events, stopped_at: None };
    let mut alarm = Alarm::default();
    loop {
        let now = task.shell.now();
        let longest = if task.link.state() == LinkState::Streaming { PING_EVERY } else { IDLE_MAX };
        let wait = until(now, task.link.deadline(), longest);
        tokio::select! {
            biased;
            event = incoming.recv() => {
                if let Some((id, event)) = event {
                    task.on_incoming(id, event);
                }
            }
            () = task.shell.link_wake.notified() => {}
            () = alarm.ring_after(wait) => task.step(LinkEvent::Tick),
        }
        task.look_around();
    }
}

impl LinkTask {
    fn step(&mut self, event: LinkEvent) {
        let mut effects = Vec::new();
        self.link.step(self.shell.now(), event, &mut effects);
        for effect in effects {
            self.perform(effect);
        }
    }

    fn perform(&mut self, effect: LinkEffect) {
        match effect {
            LinkEffect::Connect { connection, endpoint } => self.connect(connection, endpoint),
            LinkEffect::Close(id) => {
                if self.connection.as_ref().is_some_and(|connection| connection.id == id) {
                    self.connection = None;
                }
            }
            LinkEffect::SayHello { challenge } => {
                let mut hello = self.hello();
                redoubt_wire::prove(&self.key, &challenge, &mut hello);
                self.step(LinkEvent::HelloReady(hello));
            }
            LinkEffect::Transmit(id, message) => {
                let outgoing = self.connection.as_ref().filter(|connection| connection.id == id);
                let outgoing = outgoing.and_then(|connection| connection.outgoing.as_ref());
                if outgoing.is_none_or(|outgoing| outgoing.try_send(Some(message)).is_err()) {
                    self.step(LinkEvent::Broken(id));
                }
            }
            LinkEffect::Decide(welcome) => {
                let has_session = {
                    let mut core = self.shell.lock();
                    core.outgoing.clear();
                    self.shell.step_in(&mut core, AgentEvent::Welcome(welcome));
                    core.machine.has_session()
                };
                if has_session {
                    self.shell.works(Concern::Link);
                    self.step(LinkEvent::Resumed);
                }
            }
            LinkEffect::Acked { staged, vaulted, permits_total } => {
                {
                    let mut core = self.shell.lock();
                    self.shell.step_in(&mut core, AgentEvent::Ack { staged, vaulted, permits_total });
                    if core.machine.is_promised() {
                        core.troubles.end(Concern::Order);
                    }
                }
                self.shell.progress.notify_one();
            }
            LinkEffect::Hashes(reply) => self.shell.step(AgentEvent::Hashes(reply)),
            LinkEffect::Marks(reply) => self.shell.step(AgentEvent::Marks(reply)),
            LinkEffect::SessionDown => {
                let mut core = self.shell.lock();
                self.shell.step_in(&mut core, AgentEvent::SessionDown);
                core.outgoing.clear();
            }
            LinkEffect::Stopped { reason, detail } => {
                self.shell
                    .trouble(Concern::Link, format_args!("the process server refuses: {reason} ({detail})"));
                self.stopped_at = Some(self.shell.now());
            }
        }
    }

    fn hello(&self) -> Hello {
        let core = self.shell.lock();
        let generation: Generation = core.machine.generation();
        let mut names = Names::default();
        names.call_machine(&self.shell.settings.name);
        core.volumes.values().for_each(|volume| names.call_volume(volume.id, &volume.name));
        Hello {
            versions: PROTOCOL_VERSIONS,
            machine: self.shell.settings.machine,
            generation,
            volumes: core.machine.volumes(),
            names,
            held: core.machine.held(),
            newest: core.machine.newest(),
            proof: [0; 32],
        }
    }

    fn on_incoming(&mut self, id: ConnectionId, event: Incoming) {
        match event {
            Incoming::Connected(outgoing) => {
                if let Some(connection) = self.connection.as_mut().filter(|connection| connection.id == id) {
                    connection.outgoing = Some(outgoing);
                    self.step(LinkEvent::Connected(id));
                }
            }
            // A connection may end before anything that arrived is read.
            Incoming::Message(_) if self.shell.world.chance.forces(Rare::DroppedSession) => {
                self.step(LinkEvent::Broken(id));
            }
            Incoming::Message(message) => self.step(LinkEvent::Received(id, message)),
            Incoming::Broken(why) => {
                if self.connection.as_ref().is_some_and(|connection| connection.id == id) {
                    self.shell.lock().troubles.begin(Concern::Link, why);
                    self.step(LinkEvent::Broken(id));
                }
            }
        }
    }

    /// Starts what may start and sends what waits.
    fn look_around(&mut self) {
        let now = self.shell.now();
        let may_connect = self.shell.lock().machine.may_connect();
        let is_rested = self.stopped_at.is_none_or(|at| now.since(at) >= STOPPED_RETRY);
        if may_connect
            && is_rested
            && matches!(self.link.state(), LinkState::Disconnected | LinkState::Stopped(_))
        {
            self.stopped_at = None;
            self.step(LinkEvent::Start);
        }
        let waiting: Vec<Outgoing> = self.shell.lock().outgoing.drain(..).collect();
        for message in waiting {
            match message {
                Outgoing::Batch(batch) => self.step(LinkEvent::Send(batch)),
                Outgoing::Ask(request) => self.step(LinkEvent::Ask(request)),
                Outgoing::AskMarks(request) => self.step(LinkEvent::AskMarks(request)),
                Outgoing::Close(why) => {
                    self.shell.trouble(Concern::Link, format_args!("the session is closed: {why}"));
                    if let Some(connection) = &self.connection {
                        self.step(LinkEvent::Broken(connection.id));
                    }
                }
            }
        }
    }

    fn connect(&mut self, id: ConnectionId, endpoint: usize) {
        let tasks = Arc::new(Tasks::default());
        let endpoint = self.shell.settings.process_servers[endpoint].clone();
        let (net, events) = (Arc::clone(&self.shell.world.net), self.events.clone());
        tasks.spawn(async move {
            let connected = tokio::time::timeout(HANDSHAKE, net.connect(&endpoint)).await;
            let stream = match connected {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => {
                    let _ = events.send((id, Incoming::Broken(error.to_string()))).await;
                    return;
                }
                Err(_) => {
                    let why = format!("{endpoint} did not answer in time");
                    let _ = events.send((id, Incoming::Broken(why))).await;
                    return;
                }
            };
            let (mut reader, writer) = tokio::io::split(stream);
            let (send, queue) = mpsc::channel(OUTGOING_MAX);
            if events.send((id, Incoming::Connected(send))).await.is_err() {
                return;
            }
            let reading = async {
                let mut decoder = Decoder::new();
                while let Some(message) = session::next(&mut reader, &mut decoder).await {
                    if events.send((id, Incoming::Message(message))).await.is_err() {
                        return;
                    }
                }
            };
            let writing = session::write(writer, queue);
            tokio::select! {
                biased;
                () = reading => {}
                () = writing => {}
            }
            let why = format!("{endpoint} closed the connection");
            let _ = events.send((id, Incoming::Broken(why))).await;
        });
        self.connection = Some(Connection { id, outgoing: None, tasks });
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.tasks.abort();
    }
}
