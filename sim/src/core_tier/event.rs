//! What can be due: every event of the heap, as small values.

/// Something that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Event {
    /// Of the process of a machine: its agent, or the agent of an old copy. Host, number of the process.
    Agent(u16, u32, AgentWork),
    /// Of a process server. Number of the server, number of the process.
    Server(u16, u32, ServerWork),
    /// An attempt to connect reaches the other host.
    Connect(u32),
    /// The connection stands, as the agent learns.
    Connected(u32),
    /// An attempt is refused.
    Refused(u32),
    /// The head of one direction of a connection arrives.
    Deliver(u32, bool),
    /// A request to the store takes effect.
    Land(u32),
    /// The next action of the plan.
    Plan(u32),
    /// A process starts again by itself.
    Restart(u16),
    /// The harness looks at everything.
    Look,
}

impl Event {
    /// Tells whether it is the end of work on a state directory.
    pub(super) fn is_file_work(&self) -> bool {
        match self {
            Event::Agent(_, _, work) => {
                matches!(work, AgentWork::State | AgentWork::Log | AgentWork::Spill | AgentWork::Start)
            }
            Event::Server(_, _, ServerWork::Of(_, _, work)) => {
                matches!(work, ActorWork::Synced(_) | ActorWork::Saved(_))
            }
            _ => false,
        }
    }
}

/// Work of an agent's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum AgentWork {
    /// It tries to start.
    Start,
    /// The machine's beat.
    Tick,
    /// Time to cool.
    Cool,
    /// A job of the guest acts.
    Guest(u16),
    /// A disk operation ends.
    Disk(u32),
    /// A planted bug's late stamp.
    Late(u32),
    /// The write of the record ends.
    State,
    /// The write of an activity log ends.
    Log,
    /// The spill's sync or read ends.
    Spill,
    /// A clean stop goes on.
    Stop,
}

/// Work of a process server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum ServerWork {
    /// The process starts.
    Start,
    /// Something of one machine's actor: number of the machine, number of the actor.
    Of(u16, u32, ActorWork),
}

/// Work of the owner of one machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum ActorWork {
    /// A pause between attempts to open is over.
    Open,
    /// The stage was left by an earlier run and no agent came.
    Leftover,
    /// A request to the store is answered.
    Answer(u32),
    /// A pause between attempts of a commit is over.
    Again,
    /// The stage's sync ends.
    Synced(u64),
    /// The generation's write ends.
    Saved(u64),
    /// The receiver's deadline, or the end of a pause after a failure.
    Tick,
    /// A pause before the next digest question is over.
    Hash,
}

/// A hasher for the digest of a run: fast, and the same everywhere.
#[derive(Clone, Copy)]
pub(super) struct Digest(pub(super) u64);

impl std::hash::Hasher for Digest {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    fn write_u8(&mut self, word: u8) {
        self.write_u64(u64::from(word));
    }

    fn write_u16(&mut self, word: u16) {
        self.write_u64(u64::from(word));
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(u64::from(word));
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }

    fn write_isize(&mut self, word: isize) {
        self.write_u64(word as u64);
    }
}
