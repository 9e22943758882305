//! Performs the plan's actions on the estate, and keeps account of what they excuse.

use super::copies;
use super::estate::Estate;
use super::guests;
use super::{live_scrub, mounts, operator, probe};
use crate::oracles::guest_untouched::{self, Excuse};
use crate::plan::{Action, DiskFault, RESTART_AFTER};
use crate::ports::{DiskErrors, LinkModel, lock};
use crate::scenario::verbs::VERBS;
use crate::workload::guest::Recorder;
use crate::workload::log::OpKind;
use crate::workload::stamp::{self, Stamp};
use redoubt_core::Extent;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// How long it takes until somebody has read what a process server says of its vault, in milliseconds.
const MENDED_AFTER: u64 = 3000;

/// What somebody writes to a disk past Redoubt: 4 KiB.
const EDIT_SECTORS: u64 = 8;

/// What the actions so far mean for the oracles.
#[derive(Default)]
pub(super) struct Account {
    /// Per machine, when its own leaves were faulted.
    pub(super) excuses: BTreeMap<String, Vec<Excuse>>,
    /// Marks of the plan itself.
    pub(super) marks: BTreeSet<&'static str>,
    /// Hosts that are gone for good.
    pub(super) lost: BTreeSet<String>,
    /// Hosts that stand still, with the end of it in milliseconds.
    pub(super) frozen: BTreeMap<String, u64>,
    /// Hosts whose process starts again by itself, with the time of it in milliseconds.
    pub(super) restarts: BTreeMap<String, u64>,
    /// When a machine last went down.
    pub(super) outages: BTreeMap<String, u64>,
    /// When somebody looks whether a restored vault needs mending.
    pub(super) mend_at: Option<u64>,
    /// Hosts without power or process, so that a plan can hit one twice.
    pub(super) down: BTreeSet<String>,
}

impl Account {
    fn excuse(&mut self, machine: &str, from: u64, to: u64, errors: bool) {
        self.excuses.entry(machine.to_owned()).or_default().push(Excuse {
            from,
            to,
            errors,
            longest: Duration::MAX,
        });
    }
}

/// Performs one action at `now` milliseconds.
pub(super) fn perform(estate: &Arc<Estate>, account: &mut Account, now: u64, action: &Action) {
    let world = &estate.world;
    world.shared.trace.line(world.shared.now(), || action.to_string());
    if let Some(verb) = deed(action) {
        world.shared.trace.bite(verb);
    }
    match action {
        Action::KillProcess(host) => down(estate, account, now, host, false),
        Action::PowerOff(host) => down(estate, account, now, host, true),
        Action::StartProcess(host) | Action::PowerOn(host) => up(estate, account, host),
        Action::SiteOff(site) => {
            estate.hosts_in(site).iter().for_each(|host| down(estate, account, now, host, true))
        }
        Action::SiteOn(site) => estate.hosts_in(site).iter().for_each(|host| up(estate, account, host)),
        Action::SiteLost(site) => {
            for host in estate.hosts_in(site) {
                down(estate, account, now, &host, true);
                account.lost.insert(host);
            }
        }
        Action::Freeze(host, ms) => freeze(estate, account, now, host, *ms),
        Action::StepClock(host, ms) => {
            account.marks.insert("clock-stepped");
            if estate.has_session(host) {
                account.marks.insert("clock-stepped-in-a-session");
            }
            if let Some(host) = estate.find(host) {
                host.step_clock(*ms);
            }
        }
        Action::Cut(link) => world.net.set_link(link, Some(&|link| LinkModel { cut: true, ..link })),
        Action::Loss(link, ppm) => world.net.set_link(link, Some(&|link| LinkModel { loss: *ppm, ..link })),
        Action::Slow(link, speed) => {
            world.net.set_link(link, Some(&|link| LinkModel { speed: *speed, ..link }))
        }
        Action::HealLink(link) => world.net.set_link(link, None),
        Action::Store(knob, ppm) => world.store.set(knob, *ppm),
        Action::Rare(point, ppm) => {
            let verb = VERBS.iter().find(|verb| verb.name.strip_prefix("buggify.") == Some(point));
            verb.iter().for_each(|verb| world.shared.rare.set(verb.name, *ppm));
        }
        Action::DiskErrors(host, kind, ppm) => disk_errors(estate, account, now, host, *kind, *ppm),
        Action::DiskHang(host, ms) => disk_hang(estate, account, now, host, *ms),
        Action::FilesFull(host, full) => {
            if let Some(host) = estate.find(host) {
                host.files.set_full(*full);
            }
        }
        Action::FilesLost(host) => {
            down(estate, account, now, host, false);
            if let Some(host) = estate.find(host) {
                host.files.wipe();
            }
        }
        Action::FilesSyncErrors(host, ppm) => {
            if let Some(host) = estate.find(host) {
                host.files.set_sync_errors(*ppm);
            }
        }
        Action::FilesHang(host, ms) => files_hang(estate, account, now, host, *ms),
        Action::FilesAnswer(host) => {
            if let Some(host) = estate.find(host) {
                host.files.hang_until(Duration::ZERO);
            }
        }
        Action::Point(machine) => point(estate, machine),
        Action::StopAgent(machine) => stop_agent(estate, account, machine),
        Action::StartAgent(machine) => {
            account.down.remove(machine);
            if let Some(machine) = estate.machines.get(machine) {
                estate.start_machine(machine, false);
            }
        }
        Action::EditDisk(machine) => edit_disk(estate, account, machine),
        Action::Copy(machine) => {
            if let Some(machine) = estate.machines.get(machine) {
                copies::copy(estate, machine);
            }
        }
        Action::StartCopy(machine) => {
            account.marks.insert("old-copy-started");
            if let Some(machine) = estate.machines.get(machine) {
                copies::start(estate, machine);
            }
        }
        Action::StopCopy(machine) => copies::stop(estate, machine),
        // These are performed by the run itself, which owns the restoring.
        Action::Damage(..) | Action::CheckPoints | Action::CheckLeftovers => {}
        Action::CheckMounts => probe::begin(estate),
        Action::CheckScrub => live_scrub::begin(estate),
        Action::Mount(machine) => mounts::mount(estate, machine),
        Action::Unmount(machine) => mounts::unmount(estate, machine),
        Action::RotateKeys(machine) => operator::rotate(estate, machine),
        Action::RewrapKeys => operator::rewrap(estate),
        Action::GiveKeys => give_keys(estate, account, now),
        Action::RetireKeys => operator::retire(estate),
        Action::CopyVault => world.store.copy(),
        Action::RestoreVault => {
            if world.store.go_back() {
                world.shared.trace.bite("vault.restored");
                account.marks.insert("vault-restored");
                account.mend_at = Some(now + MENDED_AFTER);
            }
        }
        Action::KillAtEffect(host, count) => world.store.trip(host, *count),
        Action::PowerAtEffect(host, count) => {
            if let Some(host) = estate.find(host) {
                host.files.trip(*count);
            }
        }
    }
}

/// Returns the verb of an action that needs nobody to meet it: with the deed it bit.
fn deed(action: &Action) -> Option<&'static str> {
    Some(match action {
        Action::KillProcess(_) => "process.kill",
        Action::PowerOff(_) => "host.power",
        Action::SiteOff(_) => "site.power",
        Action::SiteLost(_) => "site.lost",
        Action::StepClock(..) => "host.clock",
        Action::FilesLost(_) => "files.lost",
        Action::StartCopy(_) => "old-copy",
        _ => return None,
    })
}

fn down(estate: &Arc<Estate>, account: &mut Account, now: u64, host: &str, power: bool) {
    if account.lost.contains(host) {
        return;
    }
    account.frozen.remove(host);
    account.down.insert(host.to_owned());
    if estate.machines.contains_key(host) {
        account.marks.insert("unclean-restart");
        account.outages.insert(host.to_owned(), now);
    }
    if power {
        estate.power_off(host);
    } else {
        estate.kill(host);
    }
}

fn up(estate: &Arc<Estate>, account: &mut Account, host: &str) {
    if account.lost.contains(host) || !account.down.remove(host) {
        return;
    }
    if let Some(server) = estate.servers.get(host)
        && server.host.files.sizes().values().any(|size| *size > 0)
    {
        account.marks.insert("stage-recovered");
    }
    estate.start(host);
}

fn freeze(estate: &Arc<Estate>, account: &mut Account, now: u64, host: &str, ms: u64) {
    if account.down.contains(host) {
        return;
    }
    account.excuse(host, now, now + ms, false);
    estate.world.shared.trace.bite("host.freeze");
    account.frozen.insert(host.to_owned(), now + ms);
    if let Some(found) = estate.find(host) {
        found.freeze(true);
    }
}

/// Starts everything that runs anew, with the newest vault key.
fn give_keys(estate: &Arc<Estate>, account: &mut Account, now: u64) {
    if operator::give(estate) {
        account.marks.insert("vault-key-given");
    }
    for host in estate.hosts() {
        if !account.down.contains(&host) && !account.lost.contains(&host) {
            down(estate, account, now, &host, false);
            account.restarts.insert(host, now + RESTART_AFTER);
        }
    }
}

/// Ends what ends with one of its effects: processes with one on the store, hosts with one on their state directory.
pub(super) fn end_tripped(estate: &Arc<Estate>, account: &mut Account, now: u64) {
    for host in estate.hosts() {
        if estate.find(&host).is_some_and(|host| host.files.has_tripped()) {
            down(estate, account, now, &host, true);
            estate.world.shared.trace.bite("host.power-at-effect");
            account.marks.insert("power-lost-at-effect");
            account.restarts.insert(host, now + RESTART_AFTER);
        }
    }
    for host in estate.world.store.tripped() {
        down(estate, account, now, &host, false);
        estate.world.store.was_ended(&host);
        estate.world.shared.trace.bite("process.kill-at-effect");
        account.marks.insert("killed-at-effect");
        account.restarts.insert(host, now + RESTART_AFTER);
    }
}

/// Starts processes again whose time it is.
pub(super) fn restart(estate: &Arc<Estate>, account: &mut Account, now: u64) {
    let due = account.restarts.iter().filter(|(_, at)| **at <= now).map(|(host, _)| host.clone());
    for host in due.collect::<Vec<_>>() {
        account.restarts.remove(&host);
        up(estate, account, &host);
    }
}

/// Does what a process server asks for whose slot was on its way while an old copy took the vault's place.
pub(super) fn mend(estate: &Arc<Estate>, account: &mut Account, now: u64) {
    if account.mend_at.is_some_and(|at| at <= now) {
        account.mend_at = None;
        // First what fills gaps, then what lies behind one.
        if estate.world.store.put_back() > 0 {
            account.marks.insert("taken-from-the-copy-put-back");
        }
        if estate.world.store.remove_behind_gaps() > 0 {
            account.marks.insert("slot-behind-a-gap-removed");
        }
    }
}

/// Lets hosts go on whose freeze is over.
pub(super) fn thaw(estate: &Estate, account: &mut Account, now: u64) {
    let over: Vec<String> =
        account.frozen.iter().filter(|(_, end)| **end <= now).map(|(host, _)| host.clone()).collect();
    for name in over {
        account.frozen.remove(&name);
        if let Some(host) = estate.find(&name) {
            host.freeze(false);
        }
    }
}

fn disk_errors(estate: &Arc<Estate>, account: &mut Account, now: u64, host: &str, kind: DiskFault, ppm: u32) {
    let Some(machine) = estate.machines.get(host) else { return };
    let mut is_faulty = false;
    for disk in &machine.disks {
        let mut errors = disk.errors();
        match kind {
            DiskFault::Read => errors.read = ppm,
            DiskFault::Write => errors.write = ppm,
            DiskFault::Flush => errors.flush = ppm,
        }
        disk.set_errors(errors);
        is_faulty |= errors != DiskErrors::default();
    }
    // Errors of several kinds may overlap: the first to end does not end what the others excuse.
    if is_faulty {
        account.excuse(host, now, u64::MAX / 2, true);
        return;
    }
    for excuse in account.excuses.entry(host.to_owned()).or_default() {
        if excuse.errors && excuse.to > now {
            excuse.to = now;
        }
    }
}

fn disk_hang(estate: &Arc<Estate>, account: &mut Account, now: u64, host: &str, ms: u64) {
    let Some(machine) = estate.machines.get(host) else { return };
    account.excuse(host, now, now + ms, false);
    let until = estate.world.shared.now() + Duration::from_millis(ms);
    machine.disks.iter().for_each(|disk| disk.hang_until(until));
}

/// Guests wait for marks while the directory hangs, and no longer than was promised.
fn files_hang(estate: &Arc<Estate>, account: &mut Account, now: u64, host: &str, ms: Option<u64>) {
    let Some(found) = estate.find(host) else { return };
    found
        .files
        .hang_until(ms.map_or(Duration::MAX, |ms| estate.world.shared.now() + Duration::from_millis(ms)));
    if estate.machines.contains_key(host) {
        let to = ms.map_or(u64::MAX / 2, |ms| now + ms);
        let excuse = Excuse { from: now, to, errors: false, longest: guest_untouched::BOUND_OF_MARKS };
        account.excuses.entry(host.to_owned()).or_default().push(excuse);
    }
}

fn point(estate: &Arc<Estate>, machine: &str) {
    let Some(machine) = estate.machines.get(machine) else { return };
    let Some(agent) = lock(&machine.agent).clone() else { return };
    let this = Arc::clone(machine);
    machine.host.spawn(async move {
        guests::cut(&this, &agent).await;
    });
}

fn stop_agent(estate: &Arc<Estate>, account: &mut Account, machine: &str) {
    let Some(machine) = estate.machines.get(machine) else { return };
    let Some(agent) = lock(&machine.agent).take() else { return };
    account.down.insert(machine.spec.name.clone());
    machine.host.spawn(async move {
        // Whoever cuts a marker just now holds the agent too; then this stop is a crash after all.
        if let Some(agent) = Arc::into_inner(agent) {
            let _ = agent.stop().await;
        }
    });
}

/// Somebody writes to a disk past Redoubt. What he wrote is content of the machine like what its guest writes.
fn edit_disk(estate: &Estate, account: &mut Account, machine: &str) {
    let Some(machine) = estate.machines.get(machine) else { return };
    let shared = &estate.world.shared;
    let volume = shared.below(machine.disks.len() as u64) as u16;
    let disk = &machine.disks[usize::from(volume)];
    let blocks = disk.sectors() / EDIT_SECTORS;
    let extent = Extent::new(shared.below(blocks) * EDIT_SECTORS, EDIT_SECTORS);
    let Recorder { log, density, .. } = &machine.recorder;
    let mut log = lock(log);
    if disk.is_held() {
        return;
    }
    let op = log.submit(volume, OpKind::Write, Some(extent));
    let stamp = Stamp { machine: machine.number, volume, op, note: 0, density: *density };
    disk.edit(extent, &stamp::content(stamp, extent));
    log.acknowledge(op);
    account.marks.insert("disk-edited");
}

/// Lifts every fault and brings everything back that is not gone for good.
pub(super) fn lift_all(estate: &Arc<Estate>, account: &mut Account, now: u64) {
    estate.world.net.heal_all();
    estate.world.store.lift_faults();
    estate.world.shared.rare.clear();
    end_tripped(estate, account, now);
    account.restarts.clear();
    thaw(estate, account, u64::MAX);
    estate.machines.keys().for_each(|machine| copies::stop(estate, machine));
    for excuses in account.excuses.values_mut() {
        excuses.iter_mut().for_each(|excuse| excuse.to = excuse.to.min(now));
    }
    for name in estate.hosts() {
        if let Some(host) = estate.find(&name) {
            host.lift_faults();
        }
        up(estate, account, &name);
    }
}
