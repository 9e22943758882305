//! A reader that uses a point: pins it, proves that it is still live, renews its pin, and lets go.

use crate::Mutant;
use crate::store::{Body, Catalogue, Name, Object};
use crate::world::{Port, turn};
use redoubt_core::Instant;
use redoubt_core::maintenance::{KeptPoint, PIN_DEAD_AFTER, PIN_RENEW_EVERY};

fn has(points: &[KeptPoint<u32>], point: u32) -> bool {
    points.iter().any(|kept| kept.id == point)
}

/// Returns the points that can be pinned.
async fn live(port: &Port, catalogue: &Catalogue) -> Vec<u32> {
    let mut live: Vec<u32> = catalogue.points.live.iter().map(|point| point.id).collect();
    if let Some(tail) = port.tail(catalogue).await {
        let newer = tail.records.iter().filter(|record| record.is_point && record.slot > catalogue.slot);
        live.extend(newer.map(|record| record.slot));
    }
    live
}

/// Uses points, one after another. `number` is the reader's own.
pub(crate) async fn read(port: Port, number: u32) {
    for _ in 0..3 {
        let catalogue = port.newest().await;
        let live = live(&port, &catalogue).await;
        if live.is_empty() {
            turn().await;
            continue;
        }
        // The oldest goes first: it is the one that retention is after.
        let at = if port.below(2) == 0 { 0 } else { port.below(live.len() as u32) };
        use_point(&port, live[at as usize], number).await;
    }
}

async fn pin(port: &Port, point: u32, number: u32) -> Name {
    let uuid = if port.is(Mutant::ReusePinName) { number } else { port.fresh() };
    let name = Name::Pin(point, uuid);
    let object = Object { id: port.fresh(), body: Body::Plain };
    port.create(name, &object).await;
    name
}

/// Tells whether a maintainer may have taken a pin of that time for dead: its holder slept over it.
fn is_dead(port: &Port, since: Instant) -> bool {
    port.now().since(since) >= PIN_DEAD_AFTER
}

async fn use_point(port: &Port, point: u32, number: u32) {
    let mut since = port.now();
    let mut pins = vec![pin(port, point, number).await];
    if !port.is(Mutant::TrustPin) {
        let catalogue = port.newest().await;
        if !live(port, &catalogue).await.contains(&point) || is_dead(port, since) {
            return drop_pins(port, pins).await;
        }
    }
    let promise = port.fresh();
    port.0.borrow_mut().oracle.promise(promise, point, since);
    while port.below(24) > 0 {
        turn().await;
        if port.now().since(since) < PIN_RENEW_EVERY {
            continue;
        }
        let before = since;
        since = port.now();
        let renewed = pin(port, point, number).await;
        let points = &port.newest().await.points;
        // A retired point is held by the pin before this one, as long as nobody can take that one for dead.
        let is_held = has(&points.retired, point) && !is_dead(port, before);
        if !has(&points.live, point) && !is_held || is_dead(port, since) {
            pins.push(renewed);
            break;
        }
        port.0.borrow_mut().oracle.promise(promise, point, since);
        // The one before stays until the next is due: a listing in pages sees one of them.
        if pins.len() > 1 {
            let old = pins.remove(0);
            if old != renewed {
                port.delete(old).await;
            }
        }
        pins.push(renewed);
    }
    port.0.borrow_mut().oracle.release(promise);
    drop_pins(port, pins).await;
}

async fn drop_pins(port: &Port, pins: Vec<Name>) {
    for name in pins {
        port.delete(name).await;
    }
}
