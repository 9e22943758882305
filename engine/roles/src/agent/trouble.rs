//! Troubles of an agent that are not over, by what they concern: a status shows the newest, and none
//! that has ended.
//!
//! What is *not* here: what follows from a trouble (the machine decides).

/// What a trouble concerns. It ends when the same thing works again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Concern {
    /// The way to the process server.
    Link,
    /// A protected disk.
    Disk,
    /// An activity log.
    Log,
    /// The agent's record.
    Record,
    /// A spill file.
    Spill,
    /// The order of the stream.
    Order,
    /// The end of this run.
    Stop,
}

/// Open troubles, oldest first; at most one for each concern.
#[derive(Debug, Default)]
pub(super) struct Troubles(Vec<(Concern, String)>);

impl Troubles {
    /// Notes a trouble in place of an older one of the same concern.
    pub(super) fn begin(&mut self, concern: Concern, what: String) {
        self.end(concern);
        self.0.push((concern, what));
    }

    /// It works again.
    pub(super) fn end(&mut self, concern: Concern) {
        self.0.retain(|(known, _)| *known != concern);
    }

    /// Returns the newest trouble.
    pub(super) fn newest(&self) -> Option<String> {
        self.0.last().map(|(_, what)| what.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_ends_with_its_cause_and_no_other() {
        let mut troubles = Troubles::default();
        troubles.begin(Concern::Log, "full".to_owned());
        troubles.begin(Concern::Link, "refused".to_owned());
        troubles.begin(Concern::Link, "timed out".to_owned());
        assert_eq!(troubles.newest().as_deref(), Some("timed out"));
        troubles.end(Concern::Link);
        assert_eq!(troubles.newest().as_deref(), Some("full"));
        troubles.end(Concern::Log);
        assert_eq!(troubles.newest(), None);
    }
}
