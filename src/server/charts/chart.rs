//! A whole chart: axes, the capacity as a line, and texts for those who do not see it.

use super::path::SvgPath;
use super::runs;
use crate::server::view::curves::read::CurvePoint;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, ToSpan};
use std::fmt::{self, Display, Write};

const SIZE: (i64, i64) = (720, 260);
/// Where the plot begins and ends.
const PLOT_X: (i64, i64) = (48, 708);
const PLOT_Y: (i64, i64) = (14, 232);
/// What is beyond it is drawn at the border: no garage has a trillion cars.
const COUNT_MAX: i64 = 1_000_000_000_000;

/// What the points of a chart are, and so what its line shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChartKind {
    /// The last 24 hours by the minute: the count.
    Hours24,
    /// The last 7 days by the hour: the count, and between what it was.
    Days7,
    /// The last year by the day: the greatest count, and between what it was.
    Year,
}

pub struct Chart<'a> {
    pub garage: &'a str,
    pub kind: ChartKind,
    pub capacity: Option<u32>,
    /// Its points are at equal distances from the first time to the second, oldest first.
    pub from_ms: i64,
    pub to_ms: i64,
    pub points: &'a [Option<CurvePoint>],
    pub zone: &'a TimeZone,
    pub zone_name: &'a str,
}

struct Scale {
    from_ms: i64,
    to_ms: i64,
    bottom: i64,
    top: i64,
}

impl Scale {
    /// In tenths of a unit.
    fn x(&self, at_ms: i64) -> i64 {
        let (part, whole) = (at_ms - self.from_ms, (self.to_ms - self.from_ms).max(1));
        PLOT_X.0 * 10 + (PLOT_X.1 - PLOT_X.0) * 10 * part / whole
    }

    /// In tenths of a unit.
    fn y(&self, count: i64) -> i64 {
        let part = count.clamp(self.bottom, self.top) - self.bottom;
        PLOT_Y.1 * 10 - (PLOT_Y.1 - PLOT_Y.0) * 10 * part / (self.top - self.bottom)
    }
}

impl ChartKind {
    fn title(self) -> &'static str {
        match self {
            ChartKind::Hours24 => "last 24 hours",
            ChartKind::Days7 => "last 7 days",
            ChartKind::Year => "last year",
        }
    }

    /// The value of a point that the line shows.
    fn of(self, point: &CurvePoint) -> i64 {
        match self {
            ChartKind::Hours24 | ChartKind::Days7 => point.occupied,
            ChartKind::Year => point.max,
        }
    }

    /// Local times of labels from a day on, the steps between them, and how they are written.
    fn labels(self, day: DateTime) -> (DateTime, Span, &'static str) {
        match self {
            ChartKind::Hours24 => (day, 4.hours(), "%H:%M"),
            ChartKind::Days7 => (day, 1.day(), "%a %-d"),
            ChartKind::Year => (day.first_of_month(), 1.month(), "%b"),
        }
    }
}

impl Chart<'_> {
    pub fn svg(&self) -> String {
        let known = || self.points.iter().flatten();
        let greatest = known().map(|point| point.max).max().unwrap_or_default();
        let scale = Scale {
            from_ms: self.from_ms,
            to_ms: self.to_ms,
            bottom: known().map(|point| point.min).min().unwrap_or_default().clamp(-COUNT_MAX, 0),
            top: greatest.max(self.capacity.unwrap_or_default().into()).clamp(1, COUNT_MAX),
        };
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" role=\"img\" fill=\"none\" font-family=\"system-ui, sans-serif\" font-size=\"12\">",
            SIZE.0, SIZE.1
        );
        let texts = format!(
            "<title>Occupancy of {}, {}</title><desc>{}</desc>",
            SvgText(self.garage),
            self.kind.title(),
            SvgText(&self.description())
        );
        svg += &texts;
        svg += &self.grid(&scale);
        svg += &self.lines(&scale);
        if let Some(capacity) = self.capacity {
            let y = scale.y(capacity.into());
            let (above, y, (from, to)) = (Tenths(y - 40), Tenths(y), PLOT_X);
            svg += &format!(
                "<g fill=\"var(--chart-capacity, #c2410c)\"><path d=\"M{from} {y}H{to}\" stroke=\"var(--chart-capacity, #c2410c)\" stroke-width=\"1.5\" stroke-dasharray=\"6 4\"/><text x=\"{to}\" y=\"{above}\" text-anchor=\"end\">capacity {capacity}</text></g>"
            );
        }
        svg + "</svg>"
    }

    /// The same in words.
    fn description(&self) -> String {
        let time = |at_ms: i64| match Timestamp::from_millisecond(at_ms) {
            Ok(at) => self.zone.to_datetime(at).strftime("%Y-%m-%d %H:%M").to_string(),
            Err(_) => "a time that no calendar has".to_owned(),
        };
        let (from, to) = (time(self.from_ms), time(self.to_ms));
        let mut text = format!("From {from} to {to} ({}): ", self.zone_name);
        // The first of several: the moment since which it was that full.
        let fullest = self.points.iter().flatten().rev().max_by_key(|point| point.max);
        let (Some(fullest), Some(last)) = (fullest, self.points.iter().flatten().next_back()) else {
            return text + "nothing is known of this time.";
        };
        let of = self.capacity.map(|capacity| format!(" of {capacity} spaces")).unwrap_or_default();
        let (most, at, end) = (fullest.max, time(fullest.at_ms), last.occupied);
        text += &format!("at most {most}{of} taken, at {at}; {end} at the end.");
        if self.points.iter().any(Option::is_none) {
            text += " For a part of the time the count is not known.";
        }
        text
    }

    fn grid(&self, scale: &Scale) -> String {
        let (mut lines, mut texts) = (String::new(), String::new());
        let step = tick_step(scale.top - scale.bottom);
        let mut count = scale.bottom - scale.bottom.rem_euclid(step);
        while count <= scale.top {
            if count >= scale.bottom {
                let y = scale.y(count);
                let (from, to) = PLOT_X;
                lines += &format!("M{from} {}H{to}", Tenths(y));
                texts += &format!(
                    "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{count}</text>",
                    from - 6,
                    Tenths(y + 40)
                );
            }
            count += step;
        }
        for (at_ms, label) in self.times() {
            let x = scale.x(at_ms);
            let (from, to) = PLOT_Y;
            lines += &format!("M{} {from}V{to}", Tenths(x));
            // A label in the middle of its line would be cut at the sides.
            let anchor = match x {
                x if x < (PLOT_X.0 + 12) * 10 => "start",
                x if x > (PLOT_X.1 - 12) * 10 => "end",
                _ => "middle",
            };
            texts += &format!(
                "<text x=\"{}\" y=\"{}\" text-anchor=\"{anchor}\">{label}</text>",
                Tenths(x),
                PLOT_Y.1 + 18
            );
        }
        format!(
            "<path d=\"{lines}\" stroke=\"var(--chart-grid, currentColor)\" stroke-opacity=\".15\"/><g fill=\"var(--chart-text, currentColor)\">{texts}</g>"
        )
    }

    /// The local times that are labelled.
    fn times(&self) -> Vec<(i64, String)> {
        let mut times = Vec::new();
        let Ok(from) = Timestamp::from_millisecond(self.from_ms) else { return times };
        let day = self.zone.to_datetime(from).date().to_datetime(jiff::civil::Time::midnight());
        let (mut local, step, form) = self.kind.labels(day);
        loop {
            let Ok(at) = self.zone.to_timestamp(local) else { return times };
            let at_ms = at.as_millisecond();
            if at_ms > self.to_ms {
                return times;
            }
            if at_ms >= self.from_ms {
                times.push((at_ms, local.strftime(form).to_string()));
            }
            let Ok(next) = local.checked_add(step) else { return times };
            local = next;
        }
    }

    fn lines(&self, scale: &Scale) -> String {
        let (mut band, mut line) = (SvgPath::default(), SvgPath::default());
        let length_ms = (self.to_ms - self.from_ms) / self.points.len().max(1) as i64;
        for (_, run) in runs(self.points) {
            let xs = |point: &CurvePoint| [point.at_ms, point.at_ms + length_ms].map(|at_ms| scale.x(at_ms));
            let Some(first) = run.first() else { continue };
            // The count at the end of each, and from the beginning of the first on.
            let points = |of: &dyn Fn(&CurvePoint) -> i64| {
                let begin = (xs(first)[0], scale.y(of(first)));
                let ends = run.iter().map(|point| (xs(point)[1], scale.y(of(point))));
                std::iter::once(begin).chain(ends).collect::<Vec<_>>()
            };
            line.line(&points(&|point| self.kind.of(point)));
            if self.kind != ChartKind::Hours24 {
                band.area(&points(&|point| point.max), &points(&|point| point.min));
            }
        }
        format!(
            "<path d=\"{}\" fill=\"var(--chart-band, #2a7de1)\" fill-opacity=\".22\"/><path d=\"{}\" stroke=\"var(--chart-line, #2a7de1)\" stroke-width=\"2\" stroke-linejoin=\"round\" stroke-linecap=\"round\"/>",
            band.into_text(),
            line.into_text()
        )
    }
}

/// The distance of labelled counts, so that there are at most six.
fn tick_step(range: i64) -> i64 {
    let mut step = 1i64;
    for factor in [2, 5, 10].into_iter().cycle() {
        if range / step <= 5 {
            break;
        }
        let power = 10i64.pow(step.ilog10());
        step = power * factor;
    }
    step
}

/// A number in tenths, as a number.
struct Tenths(i64);

impl Display for Tenths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0 / 10, self.0 % 10) {
            (whole, 0) => whole.fmt(f),
            (whole, tenth) => write!(f, "{whole}.{}", tenth.abs()),
        }
    }
}

/// A text that people wrote, as a text.
struct SvgText<'a>(&'a str);

impl Display for SvgText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            c if c.is_control() => f.write_char('\u{fffd}'),
            c => f.write_char(c),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    fn chart(garage: &str, kind: ChartKind, zone: &str, points: &[Option<CurvePoint>]) -> String {
        let to_ms = "2026-11-28T03:00:00Z".parse::<Timestamp>().unwrap().as_millisecond();
        let from_ms = to_ms - points.len() as i64 * HOUR;
        let zone_name = zone;
        let zone = &TimeZone::get(zone).unwrap();
        Chart { garage, kind, capacity: Some(100), from_ms, to_ms, points, zone, zone_name }.svg()
    }

    fn point(hour: i64, occupied: i64, min: i64, max: i64) -> Option<CurvePoint> {
        let first = "2026-11-21T03:00:00Z".parse::<Timestamp>().unwrap().as_millisecond();
        Some(CurvePoint { at_ms: first + hour * HOUR, occupied, min, max })
    }

    #[test]
    fn a_chart_has_local_days_the_capacity_and_words() {
        let mut points: Vec<_> = (0..168).map(|hour| point(hour, hour % 24, 0, hour % 24)).collect();
        points[50] = None;
        let svg = chart("a", ChartKind::Days7, "Europe/Berlin", &points);
        for text in [
            ">Sun 22</text>",
            ">Sat 28</text>",
            ">100</text>",
            ">capacity 100</text>",
            "From 2026-11-21 04:00 to 2026-11-28 04:00 (Europe/Berlin): at most 23 of 100 spaces taken, at 2026-11-22 03:00; 23 at the end. For a part of the time the count is not known.",
        ] {
            assert!(svg.contains(text), "{text}: {svg}");
        }
        assert!(!svg.contains("Sat 21"), "that midnight is before the first point: {svg}");
        let line = svg.rsplit_once("var(--chart-line").unwrap().0.rsplit_once("d=\"").unwrap().1;
        assert_eq!(line.matches('M').count(), 2, "the gap is a gap: {line}");
    }

    #[test]
    fn a_name_is_a_text_whatever_it_contains() {
        let svg =
            chart("</title><script>alert(1)</script>&amp;", ChartKind::Days7, "UTC", &[point(0, 1, 1, 1)]);
        assert!(
            !svg.contains("<script") && svg.contains("&lt;/title&gt;") && svg.contains("&amp;amp;"),
            "{svg}"
        );
    }

    #[test]
    fn any_counts_make_a_chart() {
        for counts in
            [[0, 0, 0], [-40, -50, -1], [i64::MAX, i64::MIN, i64::MAX], [5_000_000_000, 0, 5_000_000_000]]
        {
            for kind in [ChartKind::Hours24, ChartKind::Days7, ChartKind::Year] {
                let svg = chart("a", kind, "UTC", &[point(0, counts[0], counts[1], counts[2])]);
                assert!(svg.len() < 4_000, "{svg}");
            }
        }
        let svg = chart("a", ChartKind::Days7, "UTC", &[None, None]);
        assert!(svg.contains("nothing is known of this time"), "{svg}");
    }

    #[test]
    fn labels_are_at_round_counts() {
        for (range, step) in [
            (0, 1),
            (5, 1),
            (6, 2),
            (11, 2),
            (12, 5),
            (30, 10),
            (577, 100),
            (1_200, 500),
            (2 * COUNT_MAX, 500_000_000_000),
        ] {
            assert_eq!(tick_step(range), step, "{range}");
        }
    }
}
