//! How a command fails: a line that says what and where, a line that says what to do, an exit code.
//!
//! What is *not* here: warnings, which are printed where they arise and change no exit code.

use redoubt_host::StoreOpenError;
use redoubt_ports::{IoError, IoKind, NetError};
use redoubt_roles::agent::AgentError;
use redoubt_roles::process_server::PsError;
use redoubt_vault::{ReadError, VaultError};

/// Why the process ends; the numbers are part of the interface for scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// The tool itself is at fault.
    Tool = 1,
    /// The command line or the settings are wrong.
    Usage = 2,
    /// Something is missing, cannot be reached, or may not be used.
    Unreachable = 3,
    /// The state forbids it: taken by another process, exists already, wrong key.
    Refused = 4,
    /// It was tried and failed.
    Failed = 5,
    /// It was done, and something on the way needs a look.
    Warned = 6,
}

impl Exit {
    /// Reads a code that another process of this program sent.
    pub(crate) fn of(code: u8) -> Exit {
        match code {
            2 => Exit::Usage,
            3 => Exit::Unreachable,
            4 => Exit::Refused,
            5 => Exit::Failed,
            6 => Exit::Warned,
            _ => Exit::Tool,
        }
    }
}

/// One failed command.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    /// What went wrong, and where.
    pub(crate) what: String,
    /// What the user can do.
    pub(crate) hint: Option<String>,
}

pub(crate) type Outcome<T> = Result<T, Failure>;

impl Failure {
    pub(crate) fn new(exit: Exit, what: impl Into<String>) -> Failure {
        Failure { exit, what: what.into(), hint: None }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn usage(what: impl Into<String>) -> Failure {
        Failure::new(Exit::Usage, what)
    }
}

impl From<IoError> for Failure {
    fn from(error: IoError) -> Failure {
        let (exit, hint) = match error.kind {
            IoKind::NotFound => (Exit::Unreachable, "check the path"),
            IoKind::Denied => (Exit::Unreachable, "check the permissions, or run as a user who may"),
            IoKind::Busy => (Exit::Refused, "stop the other process first"),
            IoKind::NoSpace => (Exit::Failed, "make room, then start again; nothing is lost"),
            IoKind::Unsupported => (Exit::Refused, "use an image file or a block device of whole sectors"),
            IoKind::Exists | IoKind::OutOfRange | IoKind::Device => {
                (Exit::Failed, "look at the system's log")
            }
        };
        Failure::new(exit, error.to_string()).hint(hint)
    }
}

impl From<NetError> for Failure {
    fn from(error: NetError) -> Failure {
        let (exit, hint) = match error {
            NetError::InUse(_) => {
                (Exit::Refused, "choose another address, or stop the process that listens there")
            }
            NetError::Refused(_) => (Exit::Unreachable, "start the process that should listen there"),
            NetError::TimedOut(_) => (Exit::Unreachable, "check the address and the network"),
            NetError::Failed(..) => {
                (Exit::Unreachable, "check the address; a socket path has at most 107 bytes")
            }
        };
        Failure::new(exit, error.to_string()).hint(hint)
    }
}

impl From<AgentError> for Failure {
    fn from(error: AgentError) -> Failure {
        match error {
            AgentError::Io(error) => Failure::from(error),
            AgentError::State { .. } => Failure::new(Exit::Refused, error.to_string()).hint(
                "restore the state directory, or start with an empty one: the disks are then compared again",
            ),
            AgentError::Stopped => Failure::new(Exit::Unreachable, error.to_string()),
            other => Failure::new(Exit::Refused, other.to_string()),
        }
    }
}

impl From<PsError> for Failure {
    fn from(error: PsError) -> Failure {
        match error {
            PsError::Io(error) => Failure::from(error),
            PsError::Net(error) => Failure::from(error),
            PsError::Vault(error) => Failure::from(error),
        }
    }
}

impl From<StoreOpenError> for Failure {
    fn from(error: StoreOpenError) -> Failure {
        let hint = match &error {
            StoreOpenError::Directory(error) => return Failure::from(error.clone()),
            StoreOpenError::Credentials { .. } => "check the file given with --vault-credentials",
            StoreOpenError::Client { .. } => {
                "give credentials in a file with --vault-credentials, or in AWS_*, AZURE_* or GOOGLE_* variables"
            }
        };
        Failure::new(Exit::Unreachable, error.to_string()).hint(hint)
    }
}

impl From<VaultError> for Failure {
    fn from(error: VaultError) -> Failure {
        let (exit, hint) = match &error {
            VaultError::Store(_) => {
                (Exit::Unreachable, "check that the vault can be reached, then try again")
            }
            VaultError::NoVault => {
                (Exit::Unreachable, "check the directory, or make a vault with `redoubt up`")
            }
            VaultError::AlreadyInitialised => (Exit::Refused, "start again: the vault is there now"),
            VaultError::WrongKey => (Exit::Refused, "pass the vault's own key file with --key"),
            VaultError::KeyNotInForce(_) | VaultError::RewrapUnderWay(_) => (
                Exit::Refused,
                "finish it: repeat `redoubt keys rewrap` with the old key and the same new one",
            ),
            VaultError::KeyReplaced { .. } | VaultError::KeyOutdated { .. } => (
                Exit::Refused,
                "pass the newest key file with --key, or a recovery kit that was made with it",
            ),
            VaultError::KeyUsedBefore(_) => (Exit::Refused, "name a new file: the key is made there"),
            VaultError::UnknownMajor { .. } | VaultError::UnknownFeature(_) => {
                (Exit::Refused, "use a newer redoubt, or another vault directory")
            }
            VaultError::NotAdmitted { .. } => {
                (Exit::Refused, "put the vault in another store, or on another file system")
            }
            VaultError::WentAway { .. } => (
                Exit::Failed,
                "wait until nobody restores or replaces the vault, then try again; `redoubt scrub` says whether it is whole",
            ),
            VaultError::Damaged { .. } => {
                (Exit::Failed, "restore the object from a copy, or use another point")
            }
            VaultError::UnknownMachine(_) => (Exit::Refused, "list what there is with `redoubt points`"),
            VaultError::Fenced { .. } => (Exit::Refused, "another process server writes this machine now"),
            VaultError::ClaimRace => (Exit::Refused, "stop the other process servers, then try again"),
            _ => (Exit::Refused, "list the points with `redoubt points`"),
        };
        Failure::new(exit, format!("vault: {error}")).hint(hint)
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Failure {
        let hint = match &error {
            ReadError::Damaged { .. } => {
                "`redoubt scrub` says what is lost, and which points miss nothing; take one of these, or a copy of the vault"
            }
            _ => "try another point, or a copy of the vault",
        };
        Failure::new(Exit::Failed, format!("vault: {error}")).hint(hint)
    }
}
