//! The course of one run as swim lanes: faults, what each machine was in, lag, throughput, points, who writes.
//!
//! Each lane is a drawing of its own, stretched over the same time; its words stand beside it.

use super::axis::{Axis, Tick, percent};
use crate::model::{Course, Fault, Span, State, Track};
use crate::svg::{Plane, WIDTH};
use crate::text;
use serde::Serialize;

/// Height of a lane that has a scale.
const TALL: f64 = 100.0;
/// Height of a lane that has none.
const FLAT: f64 = 10.0;
/// Least width of a bar, so that an instant can be seen.
const LEAST: f64 = 3.0;
/// Most ticks: they fit on a telephone.
const TICKS: u64 = 5;
/// Most faults drawn one by one.
const FAULTS: usize = 40;

#[derive(Serialize)]
pub(super) struct CourseView {
    drawn: Vec<(String, String)>,
    groups: Vec<Group>,
    ticks: Vec<Tick>,
    /// Where the faults were lifted, in percent.
    lifted: f64,
    lifted_at: String,
    found: Option<(f64, String)>,
    length: String,
    left_out: usize,
    legend: Vec<(&'static str, &'static str)>,
}

#[derive(Serialize)]
struct Group {
    title: String,
    lanes: Vec<Lane>,
}

#[derive(Serialize)]
struct Lane {
    label: String,
    svg: String,
    figure: String,
    is_tall: bool,
}

/// What all lanes of a course share.
struct Frame {
    axis: Axis,
    lifted: u64,
    found: Option<u64>,
}

impl Frame {
    fn x(&self, ms: u64) -> f64 {
        self.axis.share(ms) * WIDTH
    }

    /// Begins a lane.
    fn plane(&self, height: f64) -> Plane {
        let mut plane = Plane::new(height);
        plane.bar(self.x(self.lifted), WIDTH, "calm", "all faults are lifted");
        plane
    }

    /// Ends a lane.
    fn finish(&self, mut plane: Plane, is_tall: bool) -> String {
        if let Some(found) = self.found {
            plane.upright(self.x(found), "found");
        }
        plane.finish(if is_tall { "lane tall" } else { "lane" })
    }
}

pub(super) fn view(course: &Course) -> CourseView {
    let length = length(course);
    let frame = Frame { axis: Axis::exact(length, TICKS), lifted: course.lifted_ms, found: course.found_ms };
    let mut groups = vec![faults(&frame, &course.faults)];
    groups.extend(course.machines.iter().map(|track| machine(&frame, track)));
    groups.extend((!course.servers.is_empty()).then(|| servers(&frame, &course.servers)));
    groups.retain(|group| !group.lanes.is_empty());
    let mut legend: Vec<State> = spans(course).map(|span| span.state).collect();
    legend.sort_unstable();
    legend.dedup();
    CourseView {
        drawn: course.drawn.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
        groups,
        ticks: frame.axis.ticks(),
        lifted: percent(frame.axis.share(course.lifted_ms)),
        lifted_at: text::duration(course.lifted_ms),
        found: course.found_ms.map(|ms| (percent(frame.axis.share(ms)), text::duration(ms))),
        length: text::duration(length),
        left_out: course.faults.len().saturating_sub(FAULTS),
        legend: legend.into_iter().map(|state| (class(state), state.words())).collect(),
    }
}

fn spans(course: &Course) -> impl Iterator<Item = &Span> {
    course.machines.iter().chain(&course.servers).flat_map(|track| &track.states)
}

fn length(course: &Course) -> u64 {
    let states = spans(course).map(|span| span.to_ms);
    let faults = course.faults.iter().map(|fault| fault.to_ms);
    states.chain(faults).chain([course.lifted_ms, course.found_ms.unwrap_or(0)]).max().unwrap_or(0)
}

fn class(state: State) -> &'static str {
    match state {
        State::Down => "s-down",
        State::Exact => "s-exact",
        State::Spilling => "s-spilling",
        State::Bitmap => "s-bitmap",
        State::Resync => "s-resync",
        State::Idle => "s-idle",
        State::Writes => "s-writes",
        State::Fenced => "s-fenced",
    }
}

fn faults(frame: &Frame, faults: &[Fault]) -> Group {
    let lane = |fault: &Fault| {
        let mut plane = frame.plane(FLAT);
        let from = frame.x(fault.from_ms).min(WIDTH - LEAST);
        let to = frame.x(fault.to_ms).max(from + LEAST);
        plane.bar(from, to, if fault.is_operator { "operator" } else { "fault" }, &fault.what);
        let begin = text::duration(fault.from_ms);
        let figure = match fault.to_ms.saturating_sub(fault.from_ms) {
            0 => format!("at {begin}"),
            lasts => format!("{begin}, for {}", text::duration(lasts)),
        };
        Lane { label: fault.what.clone(), svg: frame.finish(plane, false), figure, is_tall: false }
    };
    Group { title: "Faults and operator".into(), lanes: faults.iter().take(FAULTS).map(lane).collect() }
}

fn machine(frame: &Frame, track: &Track) -> Group {
    let mut lanes = vec![states(frame, "state", track)];
    lanes.extend(lag(frame, &track.lag_ms));
    lanes.extend(throughput(frame, &track.operations));
    lanes.push(points(frame, &track.points_ms));
    Group { title: track.name.clone(), lanes }
}

fn servers(frame: &Frame, tracks: &[Track]) -> Group {
    let lanes = tracks.iter().map(|track| states(frame, &track.name, track)).collect();
    Group { title: "Who may write".into(), lanes }
}

/// Says how long a track was in what is not the usual state.
fn states(frame: &Frame, label: &str, track: &Track) -> Lane {
    let mut plane = frame.plane(FLAT);
    let mut sums: Vec<(State, u64)> = Vec::new();
    for span in &track.states {
        let lasts = span.to_ms.saturating_sub(span.from_ms);
        let title = format!("{} for {}", span.state.words(), text::duration(lasts));
        plane.bar(frame.x(span.from_ms), frame.x(span.to_ms), class(span.state), &title);
        match sums.iter_mut().find(|(state, _)| *state == span.state) {
            Some((_, sum)) => *sum += lasts,
            None => sums.push((span.state, lasts)),
        }
    }
    let unusual = sums.iter().filter(|(state, _)| !matches!(state, State::Exact | State::Idle));
    let words: Vec<String> =
        unusual.map(|(state, sum)| format!("{} {}", state.words(), text::duration(*sum))).collect();
    let figure = match (words.is_empty(), sums.first()) {
        (true, Some((state, _))) => state.words().to_owned(),
        _ => words.join(", "),
    };
    Lane { label: label.to_owned(), svg: frame.finish(plane, false), figure, is_tall: false }
}

/// Steps of a series with one value for each second; its top is the top of the lane.
fn steps(frame: &Frame, values: &[u64], top: u64) -> Vec<(f64, f64)> {
    let mut points: Vec<(f64, f64)> = Vec::new();
    let height = |value: u64| TALL - value as f64 / top.max(1) as f64 * (TALL - 4.0);
    for (second, value) in (0u64..).zip(values) {
        let (from, to) = (frame.x(second * 1000), frame.x((second + 1) * 1000));
        match points.last_mut() {
            // A level that goes on needs no point of its own.
            Some(last) if last.1 == height(*value) => last.0 = to,
            _ => points.extend([(from, height(*value)), (to, height(*value))]),
        }
    }
    points
}

fn lag(frame: &Frame, lag_ms: &[u64]) -> Option<Lane> {
    let top = lag_ms.iter().copied().max()?;
    let mut plane = frame.plane(TALL);
    let line = steps(frame, lag_ms, top);
    plane.area(&line, "lag");
    plane.line(&line, "lag-line");
    let figure = format!("up to {}", text::duration(top));
    Some(Lane { label: "lag".into(), svg: frame.finish(plane, true), figure, is_tall: true })
}

fn throughput(frame: &Frame, operations: &[u64]) -> Option<Lane> {
    let top = operations.iter().copied().max()?;
    let mut plane = frame.plane(TALL);
    plane.area(&steps(frame, operations, top), "load");
    let figure = format!("up to {}\u{a0}op/s", text::count(top));
    Some(Lane { label: "guest".into(), svg: frame.finish(plane, true), figure, is_tall: true })
}

fn points(frame: &Frame, points_ms: &[u64]) -> Lane {
    let mut plane = frame.plane(FLAT);
    points_ms.iter().for_each(|ms| plane.upright(frame.x(*ms), "point"));
    let figure = match points_ms.len() as u64 {
        0 => "none in the vault".to_owned(),
        many => format!("{} in the vault", text::count(many)),
    };
    Lane { label: "points".into(), svg: frame.finish(plane, false), figure, is_tall: false }
}
