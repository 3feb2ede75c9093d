//! Curves and charts as SVG, made from values alone.
//!
//! **Promise.** A chart shows what it is given: a time of which nothing is known is a gap, never a line. Texts of people are shown as
//! texts.
//! **Kept by.** A line ends where a value is missing. Lines leave out points that are less than a third of a unit off, which nobody
//! sees; everything else is exact to a tenth.
//!
//! Colours are presentation attributes with CSS variables (`--chart-line`, `--chart-band`, `--chart-capacity`, `--chart-grid`,
//! `--chart-text`): a page may set them, and a content security policy without inline styles allows them.

mod chart;
mod path;

pub use chart::{Chart, ChartKind};
use path::SvgPath;

/// The size of a small curve: its `viewBox` is `0 0 160 40`.
const SMALL: (i64, i64) = (160, 40);

/// The path data of a small curve: values at equal distances, oldest first, drawn from 0 at the bottom to `top`.
pub fn small_curve(values: &[Option<i64>], top: i64) -> String {
    let height = SMALL.1 * 10;
    let (count, top) = (values.len().max(1) as i64, top.max(1));
    // In whole units: a city has hundreds of curves, and half of their text would be digits that nobody sees.
    let x = |index: usize| (index as i64 * SMALL.0 + count / 2) / count * 10;
    let y =
        |value: i64| height - (i128::from(value.clamp(0, top)) * i128::from(height) / i128::from(top)) as i64;
    let mut path = SvgPath::default();
    for (from, run) in runs(values) {
        let ends = run.iter().enumerate().map(|(index, value)| (x(from + index + 1), y(*value)));
        path.line(&std::iter::once((x(from), y(run[0]))).chain(ends).collect::<Vec<_>>());
    }
    path.into_text()
}

/// The parts without a gap, each with the index at which it begins.
fn runs<T: Copy>(values: &[Option<T>]) -> Vec<(usize, Vec<T>)> {
    let mut runs: Vec<(usize, Vec<T>)> = Vec::new();
    for (index, value) in values.iter().enumerate() {
        let Some(value) = value else { continue };
        match runs.last_mut() {
            Some((from, run)) if *from + run.len() == index => run.push(*value),
            _ => runs.push((index, vec![*value])),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_runs_from_the_left_to_the_right_and_up_to_the_top() {
        assert_eq!(small_curve(&[Some(0), Some(50), Some(100), Some(100)], 100), "M0 40l40 0 80-40 40 0");
        assert_eq!(small_curve(&[Some(7); 160], 10), "M0 12l160 0", "what does not change is one line");
        assert_eq!(
            small_curve(&[Some(-3), Some(12)], 10),
            "M0 40l80 0 80-40",
            "a count that is off stays inside"
        );
        assert_eq!(small_curve(&[Some(0); 2], 0), "M0 40l160 0", "a garage without spaces");
    }

    #[test]
    fn what_is_not_known_is_a_gap() {
        let values = [None, Some(1), None, None, Some(2), Some(2), None, Some(0)];
        assert_eq!(small_curve(&values, 4), "M20 30l20 0M80 20l40 0M140 40l20 0");
        assert_eq!(small_curve(&[None; 9], 4), "");
        assert_eq!(small_curve(&[], 4), "");
    }
}
