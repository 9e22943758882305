//! A process server's writer: claims, seals the log's end, commits, and acknowledges what it proved.

use crate::Mutant;
use crate::store::{Body, Name, Object, Record};
use crate::world::{Created, Port, Tail};

/// Blocks of the modelled disk.
pub(crate) const KEYS: u8 = 3;

fn next(port: &Port, tail: &Tail, epoch: u32) -> Record {
    let (slot, prev, from) = (tail.slot + 1, tail.id, tail.position);
    Record { id: port.fresh(), slot, epoch, prev, from, key: None, segment: None, is_point: false }
}

pub(crate) async fn write(port: Port) {
    let Some(epoch) = port.claim(Name::WriterClaim).await else { return };
    let mut tail = loop {
        let catalogue = port.newest().await;
        if let Some(tail) = port.tail(&catalogue).await {
            break tail;
        }
    };
    if !seal(&port, &mut tail, epoch).await || is_fenced(&port, epoch).await {
        return port.count(2);
    }
    while commit(&port, &mut tail, epoch).await {}
    port.count(2);
}

/// Puts a seal at the log's end. What older writers still win is adopted: it was durable first.
async fn seal(port: &Port, tail: &mut Tail, epoch: u32) -> bool {
    loop {
        if tail.epoch > epoch {
            return false;
        }
        let record = next(port, tail, epoch);
        let object = Object { id: record.id, body: Body::Record(record) };
        match port.create(Name::Log(record.slot), &object).await {
            Created::Mine => return tail.push(record),
            Created::Other(other) => {
                if !other.record().is_some_and(|record| tail.push(record)) {
                    return false;
                }
            }
        }
    }
}

async fn is_fenced(port: &Port, epoch: u32) -> bool {
    port.get(Name::WriterClaim(epoch + 1)).await.is_some()
}

/// Commits one block; returns whether to go on.
async fn commit(port: &Port, tail: &mut Tail, epoch: u32) -> bool {
    let segment = (port.below(3) > 0).then(|| Name::Segment(epoch, port.fresh()));
    if let Some(name) = segment {
        port.upload(name).await;
    }
    let key = Some(port.below(u32::from(KEYS)) as u8);
    let is_point = port.below(3) > 0;
    let record = Record { key, segment, is_point, ..next(port, tail, epoch) };
    let object = Object { id: record.id, body: Body::Record(record) };
    if let Created::Other(_) = port.create(Name::Log(record.slot), &object).await {
        if let Some(name) = segment {
            port.delete(name).await;
        }
        return false;
    }
    if !port.is(Mutant::NoClaimCheck) && is_fenced(port, epoch).await {
        return false;
    }
    port.acknowledge(&record);
    tail.push(record)
}
