//! What can be due: every event of the heap, as small values.

/// Something that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// Takes the event into a digest: its kind and numbers in one word, what does not fit in another.
    pub(super) fn digest(&self, digest: &mut Digest) {
        let word = |kind: u64, host: u16, run: u32| kind << 56 | u64::from(host) << 32 | u64::from(run);
        match self {
            Event::Agent(host, run, work) => {
                digest.take(word(1, *host, *run));
                digest.take(work.word());
            }
            Event::Server(number, run, work) => {
                digest.take(word(2, *number, *run));
                if let ServerWork::Of(machine, actor, work) = work {
                    digest.take(word(work.kind(), *machine, *actor));
                }
            }
            Event::Connect(number) => digest.take(word(3, 0, *number)),
            Event::Connected(number) => digest.take(word(4, 0, *number)),
            Event::Refused(number) => digest.take(word(5, 0, *number)),
            Event::Deliver(number, is_up) => digest.take(word(6, u16::from(*is_up), *number)),
            Event::Land(number) => digest.take(word(7, 0, *number)),
            Event::Plan(number) => digest.take(word(8, 0, *number)),
            Event::Restart(host) => digest.take(word(9, *host, 0)),
            Event::Look => digest.take(word(10, 0, 0)),
        }
    }

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

impl AgentWork {
    fn word(&self) -> u64 {
        match self {
            AgentWork::Start => 1,
            AgentWork::Tick => 2,
            AgentWork::Cool => 3,
            AgentWork::Guest(job) => 4 << 56 | u64::from(*job),
            AgentWork::Disk(slot) => 5 << 56 | u64::from(*slot),
            AgentWork::Late(slot) => 6 << 56 | u64::from(*slot),
            AgentWork::State => 7,
            AgentWork::Log => 8,
            AgentWork::Spill => 9,
            AgentWork::Stop => 10,
        }
    }
}

/// Work of a process server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServerWork {
    /// The process starts.
    Start,
    /// Something of one machine's actor: number of the machine, number of the actor.
    Of(u16, u32, ActorWork),
}

/// Work of the owner of one machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

impl ActorWork {
    fn kind(&self) -> u64 {
        match self {
            ActorWork::Open => 16,
            ActorWork::Leftover => 17,
            ActorWork::Answer(_) => 18,
            ActorWork::Again => 19,
            ActorWork::Synced(_) => 20,
            ActorWork::Saved(_) => 21,
            ActorWork::Tick => 22,
            ActorWork::Hash => 23,
        }
    }
}

/// The digest of a run: fast, and the same everywhere.
#[derive(Clone, Copy)]
pub(super) struct Digest(pub(super) u64);

impl Digest {
    #[inline]
    pub(super) fn take(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
}
