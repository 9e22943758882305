//! A maintainer that was superseded: when it takes the work back.
//!
//! Whoever superseded it may be gone for good, a maintainer of a person who closed the lid. It is not asked: it is
//! overdue when the log has grown by many rounds' worth while the newest catalogue stood still.
//!
//! Invariants
//! - SY-1 Nobody is superseded who published between two looks, however far behind: two never take the work from each
//!   other in turns as long as whoever has it gets on.
//!
//! What is *not* here: how the newest catalogue is read (`redoubt-vault`).

/// Rounds' worth of slots between two looks: what readers have to follow meanwhile stays small.
const ROUNDS: u64 = 8;

/// A maintainer that waits.
#[derive(Clone, Copy, Debug)]
pub struct Standby {
    every: u64,
    /// The end of the log and what the newest catalogue covered, when it looked last.
    looked: Option<(u64, u64)>,
}

impl Standby {
    /// Begins to wait. A round is due each `every` slots.
    pub fn new(every: u64) -> Standby {
        Standby { every, looked: None }
    }

    /// Tells whether to look at the newest catalogue, now that the log ends with slot `durable`.
    pub fn is_time_to_look(&self, durable: u64) -> bool {
        let patience = self.every.saturating_mul(ROUNDS);
        self.looked.is_none_or(|(then, _)| durable >= then.saturating_add(patience))
    }

    /// Takes what the newest catalogue covers; returns whether to take the work back.
    pub fn look(&mut self, durable: u64, covered: u64) -> bool {
        let stood_still = self.looked.is_some_and(|(_, before)| before == covered);
        self.looked = Some((durable, covered));
        stood_still && durable >= covered.saturating_add(self.every)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_gets_on_is_left_alone_however_slow() {
        let mut standby = Standby::new(64);
        for round in 1..100 {
            let (durable, covered) = (round * 512, round);
            assert!(standby.is_time_to_look(durable) && !standby.look(durable, covered));
            assert!(!standby.is_time_to_look(durable + 511));
        }
    }

    #[test]
    fn who_stands_still_is_replaced_once_there_is_work() {
        let mut standby = Standby::new(64);
        assert!(!standby.look(1000, 990), "nothing to compare with");
        assert!(!standby.look(1000, 990), "nothing to do");
        assert!(standby.look(1512, 990));
    }
}
