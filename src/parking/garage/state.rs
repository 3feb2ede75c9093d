//! Whether a garage is open, full or closed at a moment, by all that is said of it.

use super::hours::KnownHours;
use crate::parking::event::{Event, EventKind};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Opening {
    Open,
    Closed,
}

impl fmt::Display for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// What an operator ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorSays {
    pub opening: Opening,
    /// When it was recorded, in milliseconds since 1970.
    pub since_ms: i64,
    /// `None`: until it is taken back.
    pub until_ms: Option<i64>,
}

/// What the garage said last, by an event `closed` or `opened`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GarageSays {
    pub opening: Opening,
    /// When it happened, in milliseconds since 1970.
    pub at_ms: i64,
}

impl GarageSays {
    /// What an event says of whether its garage is open.
    pub fn by(event: &Event) -> Option<GarageSays> {
        let opening = match event.kind {
            EventKind::Closed { .. } => Opening::Closed,
            EventKind::Opened => Opening::Open,
            EventKind::Entry { .. }
            | EventKind::Exit { .. }
            | EventKind::Count { .. }
            | EventKind::PlateCorrection { .. } => {
                return None;
            }
        };
        Some(GarageSays { opening, at_ms: event.at.timestamp.as_millisecond() })
    }
}

/// The state that a sign shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ShownState {
    Open,
    Full,
    Closed,
}

/// The state to show; `None` when it is not known. A closed garage is closed however many spaces are free.
pub fn shown_state(opening: Option<Opening>, is_full: Option<bool>) -> Option<ShownState> {
    match (opening?, is_full) {
        (Opening::Closed, _) => Some(ShownState::Closed),
        (Opening::Open, Some(true)) => Some(ShownState::Full),
        (Opening::Open, Some(false)) => Some(ShownState::Open),
        (Opening::Open, None) => None,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecidedBy {
    Operator,
    Garage,
    Hours,
}

/// Whether a garage is open at a moment, and who says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpeningNow {
    /// `None`: its hours are not understood, and nobody else says it.
    pub opening: Option<Opening>,
    pub by: DecidedBy,
    /// When somebody else decides, if nothing more is said.
    review_at: Option<Timestamp>,
}

/// All that is said of whether a garage is open; [`super`] says whose word counts.
#[derive(Debug, Clone, Copy)]
pub struct Openness<'a> {
    pub operator: Option<OperatorSays>,
    pub garage: Option<GarageSays>,
    pub hours: &'a KnownHours,
}

fn moment(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap_or(if ms < 0 { Timestamp::MIN } else { Timestamp::MAX })
}

impl Openness<'_> {
    pub fn at(&self, now: Timestamp) -> OpeningNow {
        if let Some(OperatorSays { opening, until_ms, .. }) = self.operator
            && until_ms.is_none_or(|until| now < moment(until))
        {
            let opening = Some(opening);
            return OpeningNow { opening, by: DecidedBy::Operator, review_at: until_ms.map(moment) };
        }
        let said = self.garage.and_then(|GarageSays { opening, at_ms }| {
            let at = moment(at_ms);
            let by_hours = self.hours.is_open(at);
            match opening {
                Opening::Closed if by_hours != Some(false) => Some((opening, None)),
                Opening::Open if by_hours == Some(false) => {
                    let until = self.hours.next_change(at);
                    until.is_none_or(|until| now < until).then_some((opening, until))
                }
                Opening::Closed | Opening::Open => None,
            }
        });
        if let Some((opening, review_at)) = said {
            return OpeningNow { opening: Some(opening), by: DecidedBy::Garage, review_at };
        }
        let opening = self.hours.is_open(now).map(|open| if open { Opening::Open } else { Opening::Closed });
        OpeningNow { opening, by: DecidedBy::Hours, review_at: self.hours.next_change(now) }
    }

    /// When it opens or closes next, if nothing more is said; `None`: never, as far as is known.
    pub fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        let before = self.at(now);
        let mut next = before.review_at;
        // An order that ends, an event that ends with the hours, and the hours: each is passed once.
        for _ in 0..4 {
            let after = self.at(next?);
            if after.opening != before.opening {
                return next;
            }
            next = after.review_at;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::hours::{HoursText, OpeningHours};
    use super::*;
    use Opening::{Closed, Open};
    use proptest::prelude::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn by_day() -> KnownHours {
        let windows = vec!["all 08:00-20:00".parse().unwrap()];
        KnownHours::Are(OpeningHours::new("UTC", windows).unwrap())
    }

    fn operator(opening: Opening, until: Option<&str>) -> Option<OperatorSays> {
        Some(OperatorSays { opening, since_ms: 0, until_ms: until.map(|until| at(until).as_millisecond()) })
    }

    fn garage(opening: Opening, moment: &str) -> Option<GarageSays> {
        Some(GarageSays { opening, at_ms: at(moment).as_millisecond() })
    }

    const NIGHT: &str = "2026-11-23T23:00:00Z";
    const DAY: &str = "2026-11-24T12:00:00Z";

    #[test]
    fn an_operator_counts_more_than_the_garage_and_the_garage_more_than_its_hours() {
        let hours = by_day();
        let (closed, open) = (garage(Closed, "2026-11-24T11:00:00Z"), operator(Open, None));
        let decided = |operator, garage, moment: &str| {
            let now = Openness { operator, garage, hours: &hours }.at(at(moment));
            (now.opening.unwrap(), now.by)
        };
        assert_eq!(decided(None, None, DAY), (Open, DecidedBy::Hours));
        assert_eq!(decided(None, None, NIGHT), (Closed, DecidedBy::Hours));
        assert_eq!(decided(None, closed, DAY), (Closed, DecidedBy::Garage));
        assert_eq!(decided(open, closed, DAY), (Open, DecidedBy::Operator));
        assert_eq!(decided(open, None, NIGHT), (Open, DecidedBy::Operator));
        let until_noon = operator(Closed, Some(DAY));
        assert_eq!(decided(until_noon, None, "2026-11-24T11:59:59Z"), (Closed, DecidedBy::Operator));
        assert_eq!(decided(until_noon, None, DAY), (Open, DecidedBy::Hours));
    }

    #[test]
    fn an_event_holds_as_long_as_it_is_meant() {
        let hours = by_day();
        let by =
            |garage, moment: &str| Openness { operator: None, garage, hours: &hours }.at(at(moment)).opening;
        let flood = garage(Closed, DAY);
        assert_eq!(by(flood, "2026-12-24T12:00:00Z"), Some(Closed), "until it is opened again");
        assert_eq!(by(garage(Open, DAY), "2026-11-24T12:30:00Z"), Some(Open));
        assert_eq!(by(garage(Open, DAY), "2026-11-24T20:00:00Z"), Some(Closed), "and then the hours decide");
        let concert = garage(Open, NIGHT);
        assert_eq!(by(concert, "2026-11-24T02:00:00Z"), Some(Open));
        assert_eq!(by(concert, "2026-11-24T20:00:00Z"), Some(Closed));
        assert_eq!(by(garage(Closed, "2026-11-24T01:00:00Z"), DAY), Some(Open), "it ended the concert");
    }

    #[test]
    fn when_it_changes_is_known_as_far_as_anything_is() {
        let hours = by_day();
        let next = |operator, garage, moment: &str| {
            let next = Openness { operator, garage, hours: &hours }.next_change(at(moment));
            next.map(|next| next.to_string())
        };
        let morning = Some("2026-11-24T08:00:00Z".to_owned());
        assert_eq!(next(None, None, NIGHT), morning);
        assert_eq!(next(operator(Closed, None), None, NIGHT), None);
        // It ends while the garage is closed anyway.
        assert_eq!(next(operator(Closed, Some("2026-11-24T03:00:00Z")), None, NIGHT), morning);
        let concert = garage(Open, NIGHT);
        assert_eq!(next(None, concert, NIGHT), Some("2026-11-24T20:00:00Z".into()));
        assert_eq!(next(None, garage(Closed, DAY), DAY), None);
        let always = Openness { operator: None, garage: None, hours: &KnownHours::Always };
        assert_eq!((always.at(at(DAY)).opening, always.next_change(at(DAY))), (Some(Open), None));
    }

    #[test]
    fn what_is_not_known_is_never_open() {
        assert_eq!(shown_state(None, Some(false)), None);
        assert_eq!(shown_state(Some(Open), None), None);
        assert_eq!(shown_state(Some(Closed), None), Some(ShownState::Closed));
        assert_eq!(shown_state(Some(Open), Some(true)), Some(ShownState::Full));
        let text = HoursText { time_zone: "Mars/Olympus".into(), windows: vec![] };
        let hours = KnownHours::from(Some(text));
        let of = |operator, garage| Openness { operator, garage, hours: &hours }.at(at(DAY)).opening;
        assert_eq!(of(None, None), None);
        assert_eq!(of(None, garage(Open, DAY)), None);
        assert_eq!(of(None, garage(Closed, DAY)), Some(Closed));
        assert_eq!(of(operator(Open, None), None), Some(Open));
    }

    proptest! {
        /// Between now and the change that is announced it stays as it is, and then it is different.
        #[test]
        fn the_announced_change_comes_and_none_before_it(
            now in 0i64..2_000_000_000, until in prop::option::of(0i64..2_000_000_000), says in prop::option::of((any::<bool>(), -500_000i64..0)),
            closes in any::<bool>(),
        ) {
            let opening = |closed| if closed { Closed } else { Open };
            let hours = by_day();
            let openness = Openness {
                operator: until.map(|until| OperatorSays { opening: opening(closes), since_ms: 0, until_ms: Some(until * 1000) }),
                garage: says.map(|(closed, before)| GarageSays { opening: opening(closed), at_ms: (now + before) * 1000 }),
                hours: &hours,
            };
            let now = moment(now * 1000);
            let (before, next) = (openness.at(now).opening, openness.next_change(now));
            if let Some(next) = next {
                prop_assert!(next > now);
                prop_assert_ne!(openness.at(next).opening, before);
            }
            let end = next.unwrap_or(now + jiff::SignedDuration::from_hours(72));
            let length = end.duration_since(now).as_secs();
            for step in 0..20 {
                let between = now + jiff::SignedDuration::from_secs(length * step / 20);
                prop_assert_eq!(openness.at(between).opening, before, "at {}", between);
            }
        }
    }
}
