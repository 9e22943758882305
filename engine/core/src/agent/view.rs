//! What an agent's machine tells about itself.
//!
//! What is *not* here: anything that changes it.

use super::{AgentMachine, Volume};
use crate::agent_state::{AgentRecord, VolumeRecord};
use crate::extent_map::{ExtentMap, FlushToken};
use crate::ids::{BatchPosition, Generation, MachineId, VolumeIndex, WriteSeq};
use crate::message::VolumeInfo;
use crate::planted::{self, Bug};
use crate::resync::{Progress, ResyncPlanner};
use crate::time::Instant;
use crate::units::{Extent, Sectors};
use crate::watermarks::Watermarks;

impl AgentMachine {
    /// Tells whether a session streams.
    pub fn has_session(&self) -> bool {
        self.session.is_some()
    }

    /// Tells whether a clean stop is possible: the stream is exact, and the disks hold what reads show.
    pub fn can_stop_clean(&self) -> bool {
        let has_lost_flush = self.volumes.values().any(|volume| volume.map.has_lost_flush());
        self.is_exact && !self.is_bitmap && !has_lost_flush
    }

    /// Tells whether guests may be served: sequences are reserved and the activity logs are written.
    pub fn is_ready(&self) -> bool {
        self.sequencer.remaining() > 0
    }

    /// Returns what must be durable to start again.
    pub fn record(&self) -> AgentRecord {
        let asked = self.state_in_flight.flatten();
        let volume = |(index, volume): (&VolumeIndex, &Volume)| VolumeRecord {
            index: *index,
            id: volume.id,
            // The size that the log knows: never a new size beside a log that was not told of it.
            sectors: volume.map.logged_sectors(),
            fingerprint: volume.fingerprint.filter(|_| self.is_clean),
        };
        AgentRecord {
            machine: self.machine,
            generation: self.generation,
            issued: self.sequencer.issued(),
            reserved_until: asked.unwrap_or(self.sequencer.reserved_until()),
            is_clean: self.is_clean,
            is_resync_open: !self.is_exact,
            is_initial: self.is_initial,
            must_compare_all: self.must_compare_all(),
            marks_number: self.marks_state.number(),
            sealed: self.newest,
            staged: self.staged,
            vaulted: self.vaulted,
            volumes: self.volumes.iter().map(volume).collect(),
        }
    }

    /// Returns whether the opening statement may be sent: everything recovered is in place.
    pub fn may_connect(&self) -> bool {
        let is_settled = !self.is_recovering && !self.new_generation && self.fork.is_none();
        is_settled && !self.volumes.is_empty() && self.newest.seq.0 > 0
    }

    /// Tells whether a marker can be cut now (AG-4).
    pub fn can_mark(&self) -> bool {
        let is_exact = self.is_exact || planted::active(Bug::PointInsideResync);
        is_exact && !self.is_bitmap && !self.is_stopping && !self.is_recapture_pending()
    }

    fn is_recapture_pending(&self) -> bool {
        self.volumes.values().any(|volume| volume.splitter.is_recapture_pending())
    }

    /// Returns the machine.
    pub fn machine(&self) -> MachineId {
        self.machine
    }

    /// Returns the generation.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Returns the volumes for the opening statement.
    pub fn volumes(&self) -> Vec<VolumeInfo> {
        let info = |(index, volume): (&VolumeIndex, &Volume)| VolumeInfo {
            index: *index,
            id: volume.id,
            sectors: volume.splitter.sectors(),
        };
        self.volumes.iter().map(info).collect()
    }

    /// Returns the first and last sequence held by the spool.
    pub fn held(&self) -> Option<(WriteSeq, WriteSeq)> {
        self.spool.range()
    }

    /// Returns the end of the newest sealed batch.
    pub fn newest(&self) -> BatchPosition {
        self.newest
    }

    /// Returns the newest staged and vaulted positions told by a process server.
    pub fn acknowledged(&self) -> (BatchPosition, BatchPosition) {
        (self.staged, self.vaulted)
    }

    /// Returns the watermarks.
    pub fn watermarks(&self) -> Watermarks {
        self.watermarks
    }

    /// Tells whether order is lost.
    pub fn is_bitmap(&self) -> bool {
        self.is_bitmap
    }

    /// Tells whether the stream is exact.
    pub fn is_exact(&self) -> bool {
        self.is_exact
    }

    /// Tells whether every change is on its way in order, and the end of the newest resync is in the vault:
    /// before that nothing newer than the points before it is promised.
    pub fn is_promised(&self) -> bool {
        self.is_exact && !self.is_bitmap && self.settling.is_none()
    }

    /// Tells whether a resync is wanted that has not begun yet.
    pub fn is_resync_due(&self) -> bool {
        self.pending_resync.is_some()
    }

    /// Tells whether the local disk keeps something from the stream: blocks of the resync, or what a failed
    /// write left.
    pub fn has_unreadable(&self) -> bool {
        self.planner.as_ref().is_some_and(|planner| planner.unreadable_blocks() > 0)
            || self.is_recapture_pending()
    }

    /// Tells whether the first copy of some volume is not complete in the vault.
    pub fn is_initial(&self) -> bool {
        self.is_initial
    }

    /// Returns how far the newest resync is.
    pub fn resync_progress(&self) -> Progress {
        self.planner.as_ref().map_or(self.progress, ResyncPlanner::progress)
    }

    /// Tells whether a record made now would make the next start compare everything.
    pub fn must_compare_all(&self) -> bool {
        self.volumes.values().any(|volume| volume.map.must_compare_all())
    }

    /// Tells whether digests of a resync read that was started are of use.
    pub fn wants_digests(&self, volume: VolumeIndex, run: Extent) -> bool {
        self.planner.as_ref().is_some_and(|planner| planner.wants_digests(volume, run))
    }

    /// Returns the bytes held in memory and in spill files.
    pub fn spool_bytes(&self) -> (u64, u64) {
        (self.spool.memory_bytes(), self.spool.spill_bytes())
    }

    /// Returns the extents marked and the blocks dirty, over all volumes.
    pub fn marks(&self) -> (u64, u64) {
        let maps = || self.volumes.values().map(|volume| &volume.map);
        (maps().map(ExtentMap::marked_extents).sum(), maps().map(ExtentMap::dirty_blocks).sum())
    }

    /// Returns since when the oldest change is not staged.
    pub fn unstaged_since(&self) -> Option<Instant> {
        let open = (!self.open.records.is_empty()).then_some(self.open.since);
        self.unstaged.front().map(|(_, since)| *since).or(open)
    }

    /// Tells whether the volume takes another guest operation.
    pub fn has_room(&self, volume: VolumeIndex) -> bool {
        self.volumes.get(&volume).is_some_and(|volume| volume.splitter.has_room())
    }

    /// Returns the size of a volume.
    pub fn sectors(&self, volume: VolumeIndex) -> Option<Sectors> {
        self.volumes.get(&volume).map(|volume| volume.splitter.sectors())
    }

    /// Returns the token for a flush of the volume's disk that is about to be issued, if one would
    /// let extents cool.
    pub fn flush_wanted(&self, volume: VolumeIndex) -> Option<FlushToken> {
        let map = &self.volumes.get(&volume)?.map;
        (map.wants_flush() && map.marked_extents() > 0).then(|| map.flush_issued())
    }

    /// Tells whether [`super::AgentEvent::Cool`] has more to look at in this pass.
    pub fn is_cooling(&self, volume: VolumeIndex) -> bool {
        // AG-6: until then nothing cools, and a pass would not come to its end.
        let may_cool = self.vaulted.seq >= self.carried_until;
        may_cool && self.volumes.get(&volume).is_some_and(|volume| !volume.map.is_cool_pass_over())
    }

    /// Tells whether nothing changes the disks any more, and everything is where a clean stop leaves it.
    pub(super) fn is_settled(&self) -> bool {
        let is_idle = self.volumes.values().all(|volume| volume.splitter.is_idle());
        // What ended after the last flush may be in the disk's cache only, and nothing will compare it.
        let is_flushed = self.volumes.keys().all(|volume| self.flush_wanted(*volume).is_none())
            && self.volumes.values().all(|volume| volume.guest_flushes == 0);
        let is_at_rest = is_idle && is_flushed && self.resizes.is_empty() && self.spool.is_all_on_disk();
        self.is_stopping && is_at_rest
    }

    /// Returns the volumes of which a clean stop wants [`super::AgentEvent::Fingerprint`] now.
    pub fn fingerprints_wanted(&self) -> Vec<VolumeIndex> {
        let is_wanted = self.can_stop_clean() && self.is_settled();
        let unknown = self.volumes.iter().filter(|(_, volume)| is_wanted && volume.fingerprint.is_none());
        unknown.map(|(index, _)| *index).collect()
    }

    /// Tells whether a clean stop is complete: nothing in flight, nothing only in memory.
    pub fn is_stopped(&self) -> bool {
        self.is_clean && self.spool.is_all_on_disk() && self.state_in_flight.is_none() && !self.state_wanted
    }
}
