//! Oracle `prefix`: a recovery point's image equals the state after a legal cut of the guest's operations.
//!
//! Legal: there is a set S of operations such that
//! - everything acknowledged before the point was asked for is in S, nothing submitted after it was
//!   cut is in S;
//! - S is closed downward: what was acknowledged before a member was submitted is a member too;
//! - each sector, on all volumes, holds the content of the last member that touched it, and two members
//!   that were under way together took effect in one order on all their common sectors.
//!
//! Each visible write forces itself into S, and with it everything acknowledged before its
//! submission. The largest such submission is the *horizon*: whatever was acknowledged before it is in
//! S, on every volume. A member that an older content survived is then a lost write; a visible write
//! submitted after the cut is a write from the future.
//!
//! Sectors of zeros name no writer; for them the oracle only asks that some zeroing operation (or the
//! base) can be the last one. That is lenient where zeroing operations overlap, never too strict.

use crate::workload::log::{Base, Cut, MachineLog, Op, OpKind};
use crate::workload::stamp::Seen;

/// Per sector, the operations that touch it, as indices in order of submission. One list per volume, cut
/// at `starts`: a list per sector would spend more time on memory than on judging.
struct Touches(Vec<Touching>);

struct Touching {
    starts: Vec<u32>,
    ops: Vec<u32>,
}

impl Touches {
    fn new(base: &Base, ops: &[Op], images: &[&[Seen]]) -> Touches {
        let sizes = images.iter().enumerate().map(|(v, image)| {
            let of_base = base.volumes.get(v).map_or(0, Vec::len);
            (v, image.len().max(of_base))
        });
        Touches(sizes.map(|(v, sectors)| Touching::new(ops, v, sectors)).collect())
    }

    fn of(&self, volume: usize, lba: usize) -> &[u32] {
        let touching = &self.0[volume];
        &touching.ops[touching.starts[lba] as usize..touching.starts[lba + 1] as usize]
    }
}

impl Touching {
    fn new(ops: &[Op], volume: usize, sectors: usize) -> Touching {
        let touched = || {
            ops.iter().enumerate().filter(|(_, op)| op.volume as usize == volume).flat_map(|(index, op)| {
                let range = op.extent.map_or(0..0, |extent| extent.lba.0..extent.end());
                (range.start..range.end.min(sectors as u64)).map(move |lba| (index as u32, lba as usize))
            })
        };
        // Counted first, so that each sector's part of the one list is known before it is filled.
        let mut starts = vec![0; sectors + 1];
        touched().for_each(|(_, lba)| starts[lba + 1] += 1);
        (0..sectors).for_each(|lba| starts[lba + 1] += starts[lba]);
        let mut free = starts.clone();
        let mut list = vec![0; starts[sectors] as usize];
        for (index, lba) in touched() {
            list[free[lba] as usize] = index;
            free[lba] += 1;
        }
        Touching { starts, ops: list }
    }
}

/// Who a sector's content comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Writer {
    Base,
    Op(usize),
    Zeros,
}

/// Judges one image of a machine; the error is a sentence.
pub fn judge(log: &MachineLog, cut: Cut, images: &[impl AsRef<[Seen]>]) -> Result<(), String> {
    let images: Vec<&[Seen]> = images.iter().map(AsRef::as_ref).collect();
    let images = images.as_slice();
    let (base, ops) = log.epoch(cut.asked);
    let first_id = ops.first().map_or(u64::MAX, |op| op.id);
    judge_sizes(base, ops, cut, images)?;
    let mut writers = Vec::new();
    let mut is_visible = vec![false; ops.len()];
    let mut horizon = cut.asked;
    for (v, image) in images.iter().enumerate() {
        let mut sectors = Vec::with_capacity(image.len());
        for (lba, seen) in image.iter().enumerate() {
            let writer = writer_of(base, ops, first_id, v, lba, *seen)
                .ok_or_else(|| format!("volume {v} sector {lba} holds {seen:?}, which nobody wrote there"))?;
            if let Writer::Op(index) = writer {
                let op = &ops[index];
                if op.submit > cut.done {
                    return Err(format!(
                        "volume {v} sector {lba} holds write {}, submitted at {} after the cut at {}",
                        op.id, op.submit, cut.done
                    ));
                }
                is_visible[index] = true;
                horizon = horizon.max(op.submit);
            }
            sectors.push(writer);
        }
        writers.push(sectors);
    }
    let touches = Touches::new(base, ops, images);
    // A failed operation left old or new content per sector: nothing must be there because of it.
    let member = |index: usize| ops[index].ack.is_some_and(|ack| is_visible[index] || ack < horizon);
    judge_zeros(base, ops, &touches, &writers, cut)?;
    judge_sectors(ops, &touches, &writers, cut, &member)?;
    let visible: Vec<usize> = (0..ops.len()).filter(|index| is_visible[*index]).collect();
    judge_interleaving(ops, &visible, &writers)
}

fn writer_of(base: &Base, ops: &[Op], first_id: u64, v: usize, lba: usize, seen: Seen) -> Option<Writer> {
    let of_base = base.volumes.get(v).and_then(|sectors| sectors.get(lba)).copied().unwrap_or(Seen::Zero);
    match seen {
        Seen::Zero => Some(Writer::Zeros),
        Seen::Op(id, _) if id >= first_id => {
            let index = (id - first_id) as usize;
            let op = ops.get(index)?;
            let extent = op.extent?;
            let covers = op.volume as usize == v && (extent.lba.0..extent.end()).contains(&(lba as u64));
            (op.kind == OpKind::Write && covers).then_some(Writer::Op(index))
        }
        _ => (seen == of_base).then_some(Writer::Base),
    }
}

/// Zeros where the base holds data need an operation that made them.
fn judge_zeros(
    base: &Base,
    ops: &[Op],
    touches: &Touches,
    writers: &[Vec<Writer>],
    cut: Cut,
) -> Result<(), String> {
    for (v, sectors) in writers.iter().enumerate() {
        for (lba, writer) in sectors.iter().enumerate() {
            let of_base = base.volumes[v].get(lba).copied().unwrap_or(Seen::Zero);
            if *writer != Writer::Zeros || of_base == Seen::Zero {
                continue;
            }
            let zeroed = touches
                .of(v, lba)
                .iter()
                .map(|t| &ops[*t as usize])
                .any(|op| op.kind != OpKind::Write && op.submit < cut.done);
            if !zeroed {
                return Err(format!(
                    "volume {v} sector {lba} holds zeros, the base {of_base:?}; nobody zeroed it"
                ));
            }
        }
    }
    Ok(())
}

fn judge_sectors(
    ops: &[Op],
    touches: &Touches,
    writers: &[Vec<Writer>],
    cut: Cut,
    member: &dyn Fn(usize) -> bool,
) -> Result<(), String> {
    for (v, sectors) in writers.iter().enumerate() {
        for (lba, writer) in sectors.iter().enumerate() {
            let touching = touches.of(v, lba);
            let lost = match writer {
                Writer::Base => touching.iter().map(|t| *t as usize).find(|t| member(*t)),
                Writer::Op(w) => overwritten(ops, touching, ops[*w].ack, member),
                Writer::Zeros => lost_under_zeros(ops, touching, cut, member),
            };
            if let Some(lost) = lost {
                let (op, holds) = (&ops[lost], describe(ops, *writer));
                return Err(format!(
                    "volume {v} sector {lba} holds {holds}, but {:?} {} (submitted {}, acknowledged {:?}) \
                     must be in the point cut at {}..{}",
                    op.kind, op.id, op.submit, op.ack, cut.asked, cut.done
                ));
            }
        }
    }
    Ok(())
}

/// Returns a member that was submitted after the visible content was acknowledged.
fn overwritten(
    ops: &[Op],
    touching: &[u32],
    visible_ack: Option<u64>,
    member: &dyn Fn(usize) -> bool,
) -> Option<usize> {
    let ack = visible_ack?;
    touching.iter().rev().map(|t| *t as usize).take_while(|t| ops[*t].submit > ack).find(|t| member(*t))
}

/// Returns a write whose content should be visible where zeros are.
fn lost_under_zeros(ops: &[Op], touching: &[u32], cut: Cut, member: &dyn Fn(usize) -> bool) -> Option<usize> {
    let writes =
        || touching.iter().map(|t| *t as usize).filter(|t| ops[*t].kind == OpKind::Write && member(*t));
    let last = writes().max_by_key(|t| ops[*t].submit)?;
    let explained = touching.iter().map(|t| *t as usize).any(|z| {
        let zero = &ops[z];
        let possible = zero.kind != OpKind::Write && zero.submit < cut.done;
        possible && writes().all(|w| zero.ack.is_none_or(|ack| ops[w].submit < ack))
    });
    (!explained).then_some(last)
}

/// Two writes that are both visible took effect in one order: on common sectors only one of them wins.
fn judge_interleaving(ops: &[Op], visible: &[usize], writers: &[Vec<Writer>]) -> Result<(), String> {
    for (position, a) in visible.iter().enumerate() {
        let Some(ack) = ops[*a].ack else { continue };
        // Operations are in order of submission: those behind the first that was submitted after the end of this one
        // were not under way with it either.
        for b in visible[position + 1..].iter().take_while(|b| ops[**b].submit < ack) {
            if ops[*a].volume != ops[*b].volume || ops[*b].ack.is_none() {
                continue;
            }
            let common = ops[*a].extent.zip(ops[*b].extent).and_then(|(a, b)| a.intersection(b));
            let Some(common) = common else { continue };
            let sectors = &writers[ops[*a].volume as usize];
            let shows = |w: usize| {
                (common.lba.0..common.end()).any(|lba| sectors.get(lba as usize) == Some(&Writer::Op(w)))
            };
            if shows(*a) && shows(*b) {
                return Err(format!(
                    "writes {} and {} are interleaved on {common} of volume {}",
                    ops[*a].id, ops[*b].id, ops[*a].volume
                ));
            }
        }
    }
    Ok(())
}

fn judge_sizes(base: &Base, ops: &[Op], cut: Cut, images: &[&[Seen]]) -> Result<(), String> {
    if images.len() != base.volumes.len() {
        return Err(format!("the point has {} volumes, the machine {}", images.len(), base.volumes.len()));
    }
    for (v, image) in images.iter().enumerate() {
        let mut possible = vec![base.volumes[v].len() as u64];
        for op in ops.iter().filter(|op| op.volume as usize == v && op.submit < cut.done) {
            let OpKind::Resize(sectors) = op.kind else { continue };
            if op.ack.is_some_and(|ack| ack < cut.asked) {
                possible.clear();
            }
            possible.push(sectors);
        }
        if !possible.contains(&(image.len() as u64)) {
            return Err(format!("volume {v} has {} sectors; {possible:?} are possible", image.len()));
        }
    }
    Ok(())
}

fn describe(ops: &[Op], writer: Writer) -> String {
    match writer {
        Writer::Base => "its content from before".to_owned(),
        Writer::Op(index) => format!("write {}", ops[index].id),
        Writer::Zeros => "zeros".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use redoubt_core::Extent;

    struct World {
        log: MachineLog,
        image: Vec<Seen>,
    }

    fn world() -> World {
        World { log: MachineLog::new(0, &[16]), image: vec![Seen::Zero; 16] }
    }

    impl World {
        fn write(&mut self, first: u64, sectors: u64) -> u64 {
            let id = self.log.submit(0, OpKind::Write, Some(Extent::new(first, sectors)));
            self.log.acknowledge(id);
            self.apply(id);
            id
        }

        fn apply(&mut self, id: u64) {
            let extent = self.log.op(id).unwrap().extent.unwrap();
            (extent.lba.0..extent.end()).for_each(|lba| self.image[lba as usize] = Seen::Op(id, 0));
        }

        fn judge(&mut self) -> Result<(), String> {
            let cut = Cut { asked: self.log.tick(), done: self.log.tick() };
            judge(&self.log, cut, std::slice::from_ref(&self.image))
        }
    }

    #[test]
    fn the_state_after_all_acknowledged_writes_is_legal() {
        let mut w = world();
        w.write(0, 4);
        w.write(2, 4);
        assert_eq!(w.judge(), Ok(()));
    }

    #[test]
    fn a_lost_write_is_found_whether_its_sectors_are_old_or_zero() {
        let mut w = world();
        w.write(0, 4);
        let before = w.image.clone();
        w.write(2, 1);
        w.image = before;
        assert!(w.judge().unwrap_err().contains("must be in the point"));
        let mut w = world();
        w.write(0, 4);
        w.image[1] = Seen::Zero;
        assert!(w.judge().unwrap_err().contains("holds zeros"));
    }

    #[test]
    fn a_write_from_the_future_drags_in_all_that_came_before_it() {
        let mut w = world();
        let cut = Cut { asked: w.log.tick(), done: 1_000 };
        w.write(0, 1);
        w.write(5, 1);
        assert_eq!(judge(&w.log, cut, &[w.image.clone()]), Ok(()));
        w.image[0] = Seen::Zero;
        assert!(judge(&w.log, cut, &[w.image.clone()]).is_err(), "the second write alone is no prefix");
        let early = Cut { asked: cut.asked, done: cut.asked };
        assert!(judge(&w.log, early, &[w.image.clone()]).unwrap_err().contains("after the cut"));
    }

    #[test]
    fn writes_under_way_together_may_land_in_either_order_but_not_in_both() {
        let mut w = world();
        let a = w.log.submit(0, OpKind::Write, Some(Extent::new(0, 4)));
        let b = w.log.submit(0, OpKind::Write, Some(Extent::new(0, 4)));
        w.log.acknowledge(b);
        w.log.acknowledge(a);
        for winner in [a, b] {
            w.apply(winner);
            assert_eq!(w.judge(), Ok(()));
        }
        w.image[1] = Seen::Op(a, 0);
        assert!(w.judge().unwrap_err().contains("interleaved"));
    }

    #[test]
    fn zeros_need_a_zeroing_operation_that_can_be_the_last() {
        let mut w = world();
        let a = w.write(0, 2);
        let zero = w.log.submit(0, OpKind::Zero, Some(Extent::new(0, 2)));
        w.image[0] = Seen::Zero;
        w.image[1] = Seen::Zero;
        assert_eq!(w.judge(), Ok(()));
        w.apply(a);
        assert_eq!(w.judge(), Ok(()), "the zeroing is still under way");
        w.log.acknowledge(zero);
        assert!(w.judge().is_err());
    }

    #[test]
    fn after_an_unclean_stop_the_surviving_bytes_are_the_base() {
        let mut w = world();
        let a = w.write(0, 2);
        w.log.rebase(vec![vec![Seen::Op(a, 0); 1].into_iter().chain(vec![Seen::Foreign(9); 15]).collect()]);
        w.image = vec![Seen::Foreign(9); 16];
        w.image[0] = Seen::Op(a, 0);
        assert_eq!(w.judge(), Ok(()));
        w.write(3, 1);
        assert_eq!(w.judge(), Ok(()));
        w.image[1] = Seen::Op(a, 0);
        assert!(w.judge().unwrap_err().contains("nobody wrote"));
    }
}
