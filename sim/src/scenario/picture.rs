//! The estate as a drawing in text: two sites, what stands in each, and what lies between them.

use super::story::sites;
use super::{MachineSpec, Range, Scenario, Unit};

/// Draws the estate of a scenario.
pub(super) fn draw(scenario: &Scenario) -> String {
    let estate = &scenario.estate;
    let mut source: Vec<String> = Vec::new();
    for alike in alike(scenario) {
        let disks: Vec<String> = alike.machine.disks.iter().map(|size| bytes(*size)).collect();
        source.push(format!("{}  {}", alike.name, disks.join(" + ")));
        if let Some(load) = scenario.loads.get(&alike.machine.name) {
            source.push(format!("  {}, {} at once", load.words(), load.jobs.words()));
            source.extend(load.day.map(|day| format!("  {day}")));
        }
    }
    let mut target: Vec<String> = Vec::new();
    for server in &estate.servers {
        let side = if server.site == sites()[0] { &mut source } else { &mut target };
        side.push(format!("{}  process server", server.name));
    }
    target.push(format!("vault  store \"{}\"", estate.store));
    let rate = estate.bandwidth.map(|rate| format!(", {}/s", bytes(rate))).unwrap_or_default();
    let between = format!(" {}{rate} ", estate.link);
    let mut out = boxes([&source, &target], &between);
    if estate.scale > 1 {
        out.push_str(&format!(
            "  played at 1/{}: sizes and rates are divided, times are not\n",
            estate.scale
        ));
    }
    let fixed = |value: u64, unit| Range { low: value as i64, high: value as i64, unit }.words();
    out.push_str(&format!(
        "  disks {}; agent holds {} in memory and spills {}; stage {}; a recovery point every {}\n",
        estate.disk,
        bytes(estate.spool_memory),
        bytes(estate.spill),
        bytes(estate.stage),
        fixed(estate.point_every, Unit::Millis),
    ));
    for (name, group) in &scenario.groups {
        let rpo = group.rpo.map(|rpo| format!(", rpo {}", fixed(rpo, Unit::Millis))).unwrap_or_default();
        let members = match group.machines.as_slice() {
            few if few.len() <= ALIKE_LEAST => few.join(", "),
            many => format!("{} machines, {} .. {}", many.len(), many[0], many[many.len() - 1]),
        };
        out.push_str(&format!("  group {name}: {members}{rpo}\n"));
    }
    out
}

/// So many machines in a row that are alike are shown as one.
const ALIKE_LEAST: usize = 4;

/// Machines in a row that differ in nothing but their names.
pub struct Alike<'a> {
    /// The first one.
    pub machine: &'a MachineSpec,
    /// How many.
    pub count: usize,
    /// Its name, or those of the first and the last one.
    pub name: String,
}

/// Returns the machines of an estate; many in a row that are alike are one.
pub fn alike(scenario: &Scenario) -> Vec<Alike<'_>> {
    let load = |machine: &MachineSpec| scenario.loads.get(&machine.name);
    let is_like = |a: &MachineSpec, b: &MachineSpec| a.disks == b.disks && load(a) == load(b);
    let mut all = Vec::new();
    for row in scenario.estate.machines.chunk_by(is_like) {
        if row.len() < ALIKE_LEAST {
            let one = |machine| Alike { machine, count: 1, name: machine.name.clone() };
            all.extend(row.iter().map(one));
            continue;
        }
        let name = format!("{} .. {}, {} machines", row[0].name, row[row.len() - 1].name, row.len());
        all.push(Alike { machine: &row[0], count: row.len(), name });
    }
    all
}

fn bytes(size: u64) -> String {
    Range { low: size as i64, high: size as i64, unit: Unit::Bytes }.words()
}

/// Draws two boxes with a line between them.
fn boxes(sides: [&Vec<String>; 2], between: &str) -> String {
    let rows = sides[0].len().max(sides[1].len());
    let width = |side: usize| {
        let lines = sides[side].iter().map(|line| line.chars().count());
        lines.chain([sites()[side].len() + 2]).max().unwrap_or(0)
    };
    let widths = [width(0), width(1)];
    let gap = between.chars().count() + 2;
    let middle = rows / 2;
    let mut out = String::new();
    let edge = |out: &mut String, left: [char; 2], right: [char; 2], name: bool| {
        let bar = |side: usize| {
            let title = if name { format!("─ {} ", sites()[side]) } else { String::new() };
            let rest = widths[side] + 2 - title.chars().count();
            title + &"─".repeat(rest)
        };
        let [(a, b), (c, d)] = [(left[0], left[1]), (right[0], right[1])];
        out.push_str(&format!("  {a}{}{b}{}{c}{}{d}\n", bar(0), " ".repeat(gap), bar(1)));
    };
    edge(&mut out, ['┌', '┐'], ['┌', '┐'], true);
    for row in 0..rows {
        let cell = |side: usize| {
            let width = widths[side];
            format!("{:width$}", sides[side].get(row).map(String::as_str).unwrap_or_default())
        };
        let (left, link, right) = match row == middle {
            true => ('├', format!("─{between}─"), '┤'),
            false => ('│', " ".repeat(gap), '│'),
        };
        out.push_str(&format!("  │ {} {left}{link}{right} {} │\n", cell(0), cell(1)));
    }
    edge(&mut out, ['└', '┘'], ['└', '┘'], false);
    out
}
