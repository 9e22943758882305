//! Oracle `order-kept`: the order of writes, and with it the points, is given up only for a reason that
//! the estate gives.
//!
//! What a process server acknowledged as staged is durable there: no death and no power loss takes it
//! back. No full directory and no failed sync does either. Only another process server, which never had it,
//! or a state directory that was lost may lack it.
//! And a machine writes one history, in sequences that are never used twice: another history can
//! be found only where another process server may have taken one.

use super::Finding;

/// What an agent counted since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// A process server lacked what it had acknowledged.
    pub stage_losses: u64,
    /// Another history was found.
    pub forks: u64,
}

/// Judges one machine; `is_excused` if the estate has several process servers or one whose files were lost.
pub fn judge(machine: &str, losses: Losses, is_excused: bool) -> Option<Finding> {
    let what = match losses {
        _ if is_excused => return None,
        Losses { stage_losses: 1.., .. } => "its only process server lost what it had acknowledged as staged",
        Losses { forks: 1.., .. } => "it met another history than its own, and nobody else writes",
        _ => return None,
    };
    Some(Finding::new("order-kept", format!("{machine}: {what}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_estate_that_explains_it_excuses_a_loss_of_order() {
        let lost = Losses { stage_losses: 1, forks: 0 };
        let forked = Losses { stage_losses: 0, forks: 2 };
        for losses in [lost, forked] {
            assert_eq!(judge("m", losses, false).map(|finding| finding.oracle), Some("order-kept"));
            assert_eq!(judge("m", losses, true), None);
        }
        assert_eq!(judge("m", Losses::default(), false), None);
    }
}
