//! Just enough SVG: shapes on a plane of 1000 x `height` that is stretched to whatever room there is.
//!
//! Words are never drawn here: stretched letters are ugly and small ones unreadable on a telephone. They are
//! HTML beside and above the drawing, placed by the same shares. Colours come from the style sheet by class.

use std::fmt::Write;

/// Width of every plane.
pub(crate) const WIDTH: f64 = 1000.0;

/// A drawing under way.
pub(crate) struct Plane {
    height: f64,
    shapes: String,
}

/// Writes a coordinate: two decimals, none that say nothing.
fn number(value: f64) -> String {
    let text = format!("{value:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// Makes text safe between tags and in attributes.
fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            other => safe.push(other),
        }
    }
    safe
}

impl Plane {
    /// Makes an empty plane.
    pub(crate) fn new(height: f64) -> Plane {
        Plane { height, shapes: String::new() }
    }

    /// Adds a bar over the whole height; a title is what a pointer shows.
    pub(crate) fn bar(&mut self, from: f64, to: f64, class: &str, title: &str) {
        self.rectangle((from, 0.0), (to, self.height), class, title);
    }

    /// Adds a rectangle between two corners.
    pub(crate) fn rectangle(&mut self, from: (f64, f64), to: (f64, f64), class: &str, title: &str) {
        let (x, y) = (number(from.0), number(from.1));
        let (width, height) = (number(to.0 - from.0), number(to.1 - from.1));
        let _ = write!(
            self.shapes,
            r#"<rect class="{class}" x="{x}" y="{y}" width="{width}" height="{height}">"#
        );
        let _ = write!(self.shapes, "<title>{}</title></rect>", escape(title));
    }

    /// Adds a line from place to place.
    pub(crate) fn line(&mut self, points: &[(f64, f64)], class: &str) {
        let _ = write!(self.shapes, r#"<path class="{class}" d="{}"/>"#, path(points));
    }

    /// Adds a line from top to bottom.
    pub(crate) fn upright(&mut self, x: f64, class: &str) {
        self.line(&[(x, 0.0), (x, self.height)], class);
    }

    /// Adds what lies between a line and the bottom.
    pub(crate) fn area(&mut self, points: &[(f64, f64)], class: &str) {
        let Some(first) = points.first() else { return };
        let (top, ground, begin) = (path(points), number(self.height), number(first.0));
        let _ = write!(self.shapes, r#"<path class="{class}" d="{top}V{ground}H{begin}Z"/>"#);
    }

    /// Returns the drawing. Words around it say the same, so that a reader of screens may pass over it.
    pub(crate) fn finish(self, class: &str) -> String {
        format!(
            r#"<svg class="{class}" viewBox="0 0 1000 {}" preserveAspectRatio="none" aria-hidden="true">{}</svg>"#,
            number(self.height),
            self.shapes
        )
    }
}

fn path(points: &[(f64, f64)]) -> String {
    let mut path = String::new();
    for (at, (x, y)) in points.iter().enumerate() {
        let letter = if at == 0 { 'M' } else { 'L' };
        let _ = write!(path, "{letter}{} {}", number(*x), number(*y));
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_never_minus_zero() {
        assert_eq!([1.0, 0.5, 12.345, -0.001].map(number), ["1", "0.5", "12.35", "0"]);
    }

    #[test]
    fn names_cannot_leave_their_title() {
        let mut plane = Plane::new(10.0);
        plane.bar(0.0, 5.0, "fault", "</title><script>\"&");
        let drawn = plane.finish("strip");
        assert!(drawn.contains("&lt;/title&gt;&lt;script&gt;&quot;&amp;</title>"), "{drawn}");
    }

    #[test]
    fn an_area_ends_on_the_ground() {
        let mut plane = Plane::new(10.0);
        plane.area(&[(0.0, 4.0), (5.0, 2.0)], "lag");
        assert!(plane.finish("strip").contains(r#"d="M0 4L5 2V10H0Z""#));
    }
}
