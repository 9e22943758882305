//! The prefix oracle against brute force: all legal images of a few overlapping operations.

use proptest::prelude::*;
use redoubt_core::Extent;
use redoubt_sim::oracles::prefix;
use redoubt_sim::workload::{Cut, MachineLog, OpKind, Seen};

const SECTORS: u64 = 4;

#[derive(Clone, Debug)]
struct Operation {
    zero: bool,
    first: u64,
    sectors: u64,
    /// Places in the order of events; the later one is the acknowledgement.
    events: (u8, u8),
}

fn operations(most: usize, zeros: bool) -> impl Strategy<Value = Vec<Operation>> {
    let one = (any::<bool>(), 0..SECTORS, 1..=SECTORS, any::<u8>(), any::<u8>()).prop_map(
        move |(z, first, n, a, b)| {
            let sectors = n.min(SECTORS - first);
            Operation { zero: z && zeros, first, sectors, events: (a.min(b), a.max(b)) }
        },
    );
    proptest::collection::vec(one, 1..=most)
}

/// Plays the events into a log; returns it with a cut at `at` and, per operation, its ticks.
fn play(operations: &[Operation], at: u8) -> (MachineLog, Cut, Vec<(u64, u64)>) {
    let mut log = MachineLog::new(0, &[SECTORS]);
    let mut events: Vec<(u8, u8, Option<usize>)> = vec![(at, 2, None)];
    for (index, operation) in operations.iter().enumerate() {
        events.push((operation.events.0, 0, Some(index)));
        events.push((operation.events.1, 1, Some(index)));
    }
    events.sort();
    let mut ids = vec![0; operations.len()];
    let mut cut = Cut { asked: 0, done: 0 };
    for (_, kind, index) in events {
        match (kind, index) {
            (0, Some(index)) => {
                let operation = &operations[index];
                let kind = if operation.zero { OpKind::Zero } else { OpKind::Write };
                ids[index] = log.submit(0, kind, Some(Extent::new(operation.first, operation.sectors)));
            }
            (1, Some(index)) => log.acknowledge(ids[index]),
            _ => cut = Cut { asked: log.tick(), done: log.tick() },
        }
    }
    let ticks = ids.iter().map(|id| log.op(*id).map(|op| (op.submit, op.ack.unwrap())).unwrap()).collect();
    (log, cut, ticks)
}

fn apply(image: &mut [Seen], operation: &Operation, id: u64) {
    for lba in operation.first..operation.first + operation.sectors {
        image[lba as usize] = if operation.zero { Seen::Zero } else { Seen::Op(id, 0) };
    }
}

/// What an extension works from: operations, their ids, their ticks, the cut.
type All<'a> = (&'a [Operation], &'a [u64], &'a [(u64, u64)], Cut);

/// Every legal image: over all downward closed sets and all orders that respect acknowledgements.
fn legal(operations: &[Operation], ids: &[u64], ticks: &[(u64, u64)], cut: Cut) -> Vec<Vec<Seen>> {
    fn extend(state: (&mut Vec<usize>, Vec<Seen>), all: All<'_>, images: &mut Vec<Vec<Seen>>) {
        let (done, image) = state;
        let (operations, ids, ticks, cut) = all;
        let complete = (0..operations.len()).all(|i| done.contains(&i) || ticks[i].1 > cut.asked);
        if complete {
            images.push(image.clone());
        }
        for next in 0..operations.len() {
            let possible = !done.contains(&next)
                && ticks[next].0 < cut.done
                && (0..operations.len()).all(|i| done.contains(&i) || ticks[i].1 > ticks[next].0);
            if possible {
                let mut image = image.clone();
                apply(&mut image, &operations[next], ids[next]);
                done.push(next);
                extend((done, image), all, images);
                done.pop();
            }
        }
    }
    let mut images = Vec::new();
    let start = vec![Seen::Zero; SECTORS as usize];
    extend((&mut Vec::new(), start), (operations, ids, ticks, cut), &mut images);
    images
}

/// Operations are numbered in order of submission.
fn ids_of(ticks: &[(u64, u64)]) -> Vec<u64> {
    ticks.iter().map(|tick| 1 + ticks.iter().filter(|other| other.0 < tick.0).count() as u64).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_legal_image_is_accepted(operations in operations(5, true), at: u8) {
        let (log, cut, ticks) = play(&operations, at);
        for image in legal(&operations, &ids_of(&ticks), &ticks, cut) {
            prop_assert_eq!(prefix::judge(&log, cut, &[image]), Ok(()));
        }
    }

    #[test]
    fn every_illegal_image_of_two_writes_is_refused(operations in operations(2, false), at: u8, draw in proptest::collection::vec(0u64..3, SECTORS as usize)) {
        let (log, cut, ticks) = play(&operations, at);
        let legal = legal(&operations, &ids_of(&ticks), &ticks, cut);
        let image: Vec<Seen> = draw.iter().map(|id| if *id == 0 { Seen::Zero } else { Seen::Op(*id, 0) }).collect();
        let verdict = prefix::judge(&log, cut, std::slice::from_ref(&image));
        prop_assert_eq!(verdict.is_ok(), legal.contains(&image), "{:?} {:?}", image, verdict);
    }
}
