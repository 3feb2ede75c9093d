//! Path data: lines with as few points as show the same.

use std::fmt::Write;

/// How far a line may be from a point that it leaves out, in tenths of a unit.
const TOLERANCE: f64 = 3.0;

/// Lines, written with relative coordinates. All numbers come in tenths of a unit.
#[derive(Debug, Default)]
pub struct SvgPath {
    text: String,
    /// What the next number must be apart from: nothing, or a number with or without a point.
    after: Option<HasPoint>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct HasPoint(bool);

impl SvgPath {
    /// Draws a line through points that ascend in x; the first is not joined to what was drawn before.
    pub fn line(&mut self, points: &[(i64, i64)]) {
        self.run('M', &simplified(points));
    }

    /// Draws an area between an upper and a lower line of the same points in x.
    pub fn area(&mut self, upper: &[(i64, i64)], lower: &[(i64, i64)]) {
        let mut around = simplified(upper);
        around.extend(simplified(lower).into_iter().rev());
        self.run('M', &around);
        self.text.push('Z');
    }

    pub fn into_text(self) -> String {
        self.text
    }

    fn run(&mut self, begin: char, points: &[(i64, i64)]) {
        let Some(((x, y), rest)) = points.split_first() else { return };
        self.command(begin);
        self.number(*x);
        self.number(*y);
        let mut from = (*x, *y);
        for (index, (x, y)) in rest.iter().enumerate() {
            if index == 0 {
                self.command('l');
            }
            self.number(x - from.0);
            self.number(y - from.1);
            from = (*x, *y);
        }
    }

    fn command(&mut self, letter: char) {
        self.text.push(letter);
        self.after = None;
    }

    /// Writes a number without what a reader of paths does not need: a zero before the point, and a space that a sign or a second
    /// point makes superfluous.
    fn number(&mut self, tenths: i64) {
        let (whole, tenth) = (tenths.abs() / 10, tenths.abs() % 10);
        let begins_with_point = whole == 0 && tenth != 0;
        let is_apart = match self.after {
            None => true,
            Some(HasPoint(has_point)) => tenths < 0 || (has_point && begins_with_point),
        };
        let space = if is_apart { "" } else { " " };
        let sign = if tenths < 0 { "-" } else { "" };
        let whole = if begins_with_point { String::new() } else { whole.to_string() };
        let tenth = if tenth == 0 { String::new() } else { format!(".{tenth}") };
        write!(self.text, "{space}{sign}{whole}{tenth}").expect("a string takes everything");
        self.after = Some(HasPoint(!tenth.is_empty()));
    }
}

/// The first and the last point, and of those between them as many as keep every line within [`TOLERANCE`] of all points.
fn simplified(points: &[(i64, i64)]) -> Vec<(i64, i64)> {
    let Some((first, rest)) = points.split_first() else { return Vec::new() };
    let mut kept = vec![*first];
    let (mut anchor, mut last) = (*first, None);
    let (mut least, mut greatest) = (f64::NEG_INFINITY, f64::INFINITY);
    for point in rest {
        let mut by = ((point.0 - anchor.0) as f64, (point.1 - anchor.1) as f64);
        // The slopes of lines from the anchor that pass all points since closely enough.
        if let Some(end) = last
            && !(least..=greatest).contains(&(by.1 / by.0))
        {
            kept.push(end);
            anchor = end;
            (least, greatest) = (f64::NEG_INFINITY, f64::INFINITY);
            by = ((point.0 - anchor.0) as f64, (point.1 - anchor.1) as f64);
        }
        least = least.max((by.1 - TOLERANCE) / by.0);
        greatest = greatest.min((by.1 + TOLERANCE) / by.0);
        last = Some(*point);
    }
    kept.extend(last);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Reads what was written as a browser does; absolute points in tenths.
    fn read(text: &str) -> Vec<(i64, i64)> {
        let mut numbers = Vec::new();
        let mut number = String::new();
        for c in text.chars().chain(" ".chars()) {
            let ends = match c {
                '0'..='9' => false,
                '.' => number.contains('.'),
                _ => true,
            };
            if ends && !number.is_empty() {
                numbers.push((number.parse::<f64>().unwrap() * 10.0).round() as i64);
                number.clear();
            }
            if matches!(c, '0'..='9' | '.' | '-') {
                number.push(c);
            }
        }
        let mut at = (0, 0);
        let by = numbers.chunks(2).map(|by| (by[0], by[1]));
        by.map(|by| {
            at = (at.0 + by.0, at.1 + by.1);
            at
        })
        .collect()
    }

    proptest! {
        #[test]
        fn a_path_passes_every_point_closely(ys in prop::collection::vec(-50i64..450, 1..200), step in 1i64..40) {
            let points: Vec<_> = ys.iter().enumerate().map(|(n, y)| (n as i64 * step, *y)).collect();
            let mut path = SvgPath::default();
            path.line(&points);
            let drawn = read(&path.into_text());
            prop_assert_eq!(drawn[0], points[0]);
            prop_assert_eq!(drawn.last(), points.last());
            for (x, y) in points {
                let end = drawn.iter().position(|(its, _)| *its >= x).unwrap();
                let (to, from) = (drawn[end], drawn[end.saturating_sub(1)]);
                let part = if to.0 == from.0 { 0.0 } else { (x - from.0) as f64 / (to.0 - from.0) as f64 };
                let there = from.1 as f64 + part * (to.1 - from.1) as f64;
                prop_assert!((there - y as f64).abs() <= TOLERANCE + 1e-6, "{there} is not near {y}");
            }
        }
    }
}
