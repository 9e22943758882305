//! The decisions of a vault's maintainer: which points stay, what may be deleted, which runs are folded.
//!
//! Everything here is a pure function of what the maintainer read, generic over the names of points and
//! objects: `redoubt-vault` acts on it with real objects, the model of the protocol
//! (`engine/core/tests/vault_protocol`) with abstract ones, under every order of events it can think of.
//!
//! One round of a maintainer, and who decides what:
//! 1. load the newest catalogue ([`Tenure::found`]), then list the pins ([`PinWatch::listed`]);
//! 2. [`Retention::next`]: points that are live, retired or gone in the next version;
//! 3. [`next_work`]: the runs to fold; upload what the next version names;
//! 4. create the next version ([`Tenure::published`]), look for a newer claim ([`Tenure::checked`]);
//! 5. [`Tenure::deletable`]: garbage that no readable version needs; [`orphans`]: what no version will name.
//!
//! What is *not* here: objects and their bytes, claims, deadlines, the parsing of settings.

mod folding;
mod ladder;
mod orphans;
mod pins;
mod point_time;
mod retention;
mod showing;
mod standby;
mod tenure;
#[cfg(test)]
mod tests;

pub use folding::{RunShape, Work, next_work};
pub use ladder::{Ladder, Rule, Which};
pub use orphans::orphans;
pub use pins::{PIN_DEAD_AFTER, PIN_RENEW_EVERY, PINS_WATCHED_MAX, PinListing, PinWatch};
pub use point_time::{CREDIT, PointClock, PointTime};
pub use retention::{KeptPoint, NewPoint, POINTS_MAX, Retention, Turn};
pub use showing::{Parts, Sieve};
pub use standby::Standby;
pub use tenure::{CATALOGUES_KEPT, Garbage, Tenure, is_past};
