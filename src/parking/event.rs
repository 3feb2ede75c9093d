//! What happens at a garage, and how it is written in JSON.

use super::json::{self, Value};
pub use super::moment::Moment;
use super::plate::{Plate, PlateError};
use jiff::Timestamp;
use serde::Serialize;
use std::borrow::Cow;
use std::fmt;

/// A car entered or left, or a person at the garage corrected the record.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub kind: EventKind,
    /// When it happened, as its source says: evidence, not truth.
    pub at: Moment,
    /// Details that the source gave about itself.
    pub seen: Sighting,
}

#[derive(Debug, Clone, PartialEq)]
pub enum EventKind {
    /// `None`: a car whose plate could not be read. Counted, never matched or billed.
    Entry {
        plate: Option<Plate>,
    },
    Exit {
        plate: Option<Plate>,
    },
    /// Staff counted the cars: absolute, at this place in the order.
    Count {
        occupied: u32,
        reason: String,
    },
    /// A better reading of an earlier event of this garage.
    PlateCorrection {
        epoch: String,
        sequence: u64,
        plate: Plate,
    },
}

impl EventKind {
    pub fn name(&self) -> &'static str {
        match self {
            EventKind::Entry { .. } => "entry",
            EventKind::Exit { .. } => "exit",
            EventKind::Count { .. } => "count",
            EventKind::PlateCorrection { .. } => "plate_correction",
        }
    }

    pub fn plate(&self) -> Option<&Plate> {
        match self {
            EventKind::Entry { plate } | EventKind::Exit { plate } => plate.as_ref(),
            EventKind::PlateCorrection { plate, .. } => Some(plate),
            EventKind::Count { .. } => None,
        }
    }
}

/// Optional facts about where and how an event was seen.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sighting {
    pub lane: Option<String>,
    pub camera: Option<String>,
    /// 0 to 1.
    pub confidence: Option<f64>,
    pub seen_at: Option<Moment>,
}

/// The longest text in an event: a lane, a camera, a reason. In bytes.
pub const TEXT_MAX: usize = 256;

/// Why a JSON text is no event. Nothing was stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    #[error("JSON is written in UTF-8, and {0}: send UTF-8")]
    Encoding(String),
    #[error("this is no JSON of an event: {0}")]
    Syntax(String),
    #[error("{field}: {reason}")]
    Field { field: String, reason: String },
}

impl EventError {
    pub(super) fn field(field: &str, reason: impl fmt::Display) -> EventError {
        EventError::Field { field: field.to_owned(), reason: reason.to_string() }
    }
}

/// The names of the fields of all kinds.
const FIELDS: [&str; 11] = [
    "kind",
    "plate",
    "at",
    "lane",
    "camera",
    "confidence",
    "seen_at",
    "occupied",
    "reason",
    "epoch",
    "sequence",
];

/// The fields of all kinds, as they are written.
struct EventFields<'a> {
    kind: Option<Cow<'a, str>>,
    /// Outer `None`: absent. Inner: `null`.
    plate: Option<Option<Cow<'a, str>>>,
    at: Option<Cow<'a, str>>,
    lane: Option<String>,
    camera: Option<String>,
    confidence: Option<f64>,
    seen_at: Option<Cow<'a, str>>,
    occupied: Option<u32>,
    reason: Option<String>,
    epoch: Option<Cow<'a, str>>,
    sequence: Option<u64>,
}

impl Event {
    /// Reads one event as producers write it. `now` stands in for a missing `at`.
    pub fn from_json(json: &[u8], now: Timestamp) -> Result<Event, EventError> {
        let text = json::text_of(json)?;
        if text.trim_start().chars().next().is_some_and(|c| c != '{') {
            return Err(EventError::Syntax("an event is an object in braces".into()));
        }
        EventFields::of(json::fields(text, &FIELDS)?)?.check(now)
    }
}

impl<'a> EventFields<'a> {
    /// Checks the types. `null` is as good as nothing, except for a plate.
    fn of(values: [Option<Value<'a>>; FIELDS.len()]) -> Result<EventFields<'a>, EventError> {
        let [kind, plate, at, lane, camera, confidence, seen_at, occupied, reason, epoch, sequence] = values;
        fn typed<'a, T>(
            field: &str,
            value: Option<Value<'a>>,
            read: impl FnOnce(Value<'a>) -> Result<T, String>,
        ) -> Result<Option<T>, EventError> {
            let value = value.filter(|value| *value != Value::Null);
            value.map(read).transpose().map_err(|reason| EventError::field(field, reason))
        }
        let owned = |value: Value<'a>| value.text().map(Cow::into_owned);
        Ok(EventFields {
            kind: typed("kind", kind, Value::text)?,
            plate: plate
                .map(Value::text_or_null)
                .transpose()
                .map_err(|reason| EventError::field("plate", reason))?,
            at: typed("at", at, Value::text)?,
            lane: typed("lane", lane, owned)?,
            camera: typed("camera", camera, owned)?,
            confidence: typed("confidence", confidence, Value::number)?,
            seen_at: typed("seen_at", seen_at, Value::text)?,
            occupied: typed("occupied", occupied, |value| {
                value.whole(u32::MAX.into()).map(|number| u32::try_from(number).unwrap_or(u32::MAX))
            })?,
            reason: typed("reason", reason, owned)?,
            epoch: typed("epoch", epoch, Value::text)?,
            sequence: typed("sequence", sequence, |value| value.whole(u64::MAX))?,
        })
    }
}

impl EventFields<'_> {
    fn check(mut self, now: Timestamp) -> Result<Event, EventError> {
        let kind = self.kind.take().ok_or_else(|| missing("kind"))?;
        self.refuse_unused(&kind)?;
        let moment =
            |field: &str, text: &str| Moment::parse(text).map_err(|reason| EventError::field(field, reason));
        let kind = self.kind(&kind)?;
        if let Some(confidence) = self.confidence
            && !(0.0..=1.0).contains(&confidence)
        {
            let reason = format!("it lies between 0 and 1, {confidence} does not");
            return Err(EventError::field("confidence", reason));
        }
        Ok(Event {
            kind,
            at: match &self.at {
                Some(at) => moment("at", at)?,
                None => Moment::utc(now),
            },
            seen: Sighting {
                lane: text("lane", self.lane)?,
                camera: text("camera", self.camera)?,
                confidence: self.confidence,
                seen_at: self.seen_at.as_deref().map(|text| moment("seen_at", text)).transpose()?,
            },
        })
    }

    /// Refuses fields that an event of this kind does not have, and unknown kinds.
    fn refuse_unused(&self, kind: &str) -> Result<(), EventError> {
        let plate = ("plate", self.plate.is_some());
        let [occupied, reason] = [("occupied", self.occupied.is_some()), ("reason", self.reason.is_some())];
        let [epoch, sequence] = [("epoch", self.epoch.is_some()), ("sequence", self.sequence.is_some())];
        let unused: &[(&str, bool)] = match kind {
            "entry" | "exit" => &[occupied, reason, epoch, sequence],
            "count" => &[plate, epoch, sequence],
            "plate_correction" => &[occupied, reason],
            other => {
                let reason =
                    format!("{other:?} is none of \"entry\", \"exit\", \"count\", \"plate_correction\"");
                return Err(EventError::field("kind", reason));
            }
        };
        match unused.iter().find(|(_, given)| *given) {
            Some((field, _)) => {
                Err(EventError::field(field, format!("an event of kind {kind:?} has no such field")))
            }
            None => Ok(()),
        }
    }

    /// What happened, in an event of this kind, which is known.
    fn kind(&mut self, kind: &str) -> Result<EventKind, EventError> {
        Ok(match kind {
            "entry" => EventKind::Entry { plate: self.plate(kind)? },
            "exit" => EventKind::Exit { plate: self.plate(kind)? },
            "count" => EventKind::Count {
                occupied: self.occupied.ok_or_else(|| missing("occupied"))?,
                reason: text("reason", self.reason.take())?.ok_or_else(|| missing("reason"))?,
            },
            _ => EventKind::PlateCorrection {
                plate: self
                    .plate(kind)?
                    .ok_or_else(|| EventError::field("plate", "a correction needs a readable plate"))?,
                epoch: uuid::Uuid::try_parse(self.epoch.as_deref().ok_or_else(|| missing("epoch"))?)
                    .map_err(|error| EventError::field("epoch", error))?
                    .to_string(),
                sequence: match self.sequence.ok_or_else(|| missing("sequence"))? {
                    0 => return Err(EventError::field("sequence", "sequences begin at 1")),
                    sequence => sequence,
                },
            },
        })
    }

    fn plate(&self, kind: &str) -> Result<Option<Plate>, EventError> {
        let read = |plate: &str| {
            Plate::new(plate).map_err(|error: PlateError| {
                let advice = match kind {
                    "plate_correction" => "leave the event as it is when nobody can read the plate",
                    _ => "send null when the plate cannot be read: the car is counted, and never billed",
                };
                EventError::field("plate", format!("{error}; {advice}"))
            })
        };
        match &self.plate {
            None => Err(EventError::field("plate", "it is missing; null says that it could not be read")),
            Some(plate) => plate.as_deref().map(read).transpose(),
        }
    }
}

fn missing(field: &str) -> EventError {
    EventError::field(field, "it is missing")
}

fn text(field: &str, text: Option<String>) -> Result<Option<String>, EventError> {
    match text {
        Some(text) if text.len() > TEXT_MAX => {
            Err(EventError::field(field, format!("it is {} bytes long, the limit is {TEXT_MAX}", text.len())))
        }
        Some(text) if text.chars().any(char::is_control) => {
            Err(EventError::field(field, "it holds a control character"))
        }
        other => Ok(other),
    }
}

/// An event as it is shown in JSON, with the fields that it has.
#[derive(Debug, Serialize)]
pub struct EventJson {
    pub kind: &'static str,
    pub plate: Option<String>,
    pub at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lane: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub camera: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seen_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub occupied: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub corrects: Option<Corrects>,
}

/// Which earlier event a correction speaks of.
#[derive(Debug, Serialize)]
pub struct Corrects {
    pub epoch: String,
    pub sequence: u64,
}

impl From<Event> for EventJson {
    fn from(event: Event) -> EventJson {
        let mut shown = EventJson {
            kind: event.kind.name(),
            plate: event.kind.plate().map(ToString::to_string),
            at: event.at.to_string(),
            lane: event.seen.lane,
            camera: event.seen.camera,
            confidence: event.seen.confidence,
            seen_at: event.seen.seen_at.map(|at| at.to_string()),
            occupied: None,
            reason: None,
            corrects: None,
        };
        match event.kind {
            EventKind::Count { occupied, reason } => {
                shown.occupied = Some(occupied);
                shown.reason = Some(reason);
            }
            EventKind::PlateCorrection { epoch, sequence, .. } => {
                shown.corrects = Some(Corrects { epoch, sequence })
            }
            EventKind::Entry { .. } | EventKind::Exit { .. } => {}
        }
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Event, EventError> {
        Event::from_json(json.as_bytes(), Timestamp::UNIX_EPOCH)
    }

    fn refused(json: &str) -> String {
        read(json).unwrap_err().to_string()
    }

    #[test]
    fn the_events_of_the_contract_are_read() {
        let event = read(r#"{"kind":"entry","plate":"B-AB 123","at":"2026-11-23T08:15:00+01:00","lane":"2","camera":"north","confidence":0.93,"seen_at":"2026-11-23T08:14:59Z"}"#).unwrap();
        assert_eq!(event.kind.plate().unwrap().as_str(), "BAB123");
        assert_eq!(event.at.to_string(), "2026-11-23T08:15:00+01:00");
        assert_eq!(event.seen.confidence, Some(0.93));
        assert!(read(r#"{"kind":"exit","plate":null}"#).unwrap().kind.plate().is_none());
        assert!(read(r#"{"kind":"count","occupied":17,"reason":"rounds"}"#).is_ok());
        assert!(read(r#"{"kind":"plate_correction","epoch":"6b8cd2f8-0c38-4f0e-9a5a-5fd6b1d4c9b0","sequence":7,"plate":"AB1"}"#).is_ok());
    }

    #[test]
    fn a_missing_time_is_now() {
        let event = read(r#"{"kind":"exit","plate":"AB1"}"#).unwrap();
        assert_eq!(event.at.to_string(), "1970-01-01T00:00:00Z");
    }

    #[test]
    fn every_refusal_names_the_field_and_the_reason() {
        for (json, field) in [
            (r#"{"plate":"AB1"}"#, "kind: it is missing"),
            (r#"{"kind":"enter","plate":"AB1"}"#, "kind: \"enter\" is none of"),
            (r#"{"kind":"entry"}"#, "plate: it is missing"),
            (r#"{"kind":"entry","plate":"?"}"#, "plate: a plate is made of"),
            (
                r#"{"kind":"entry","plate":7}"#,
                "plate: the number 7 stands where a text in quotes, or null, belongs",
            ),
            (r#"{"kind":"entry","plate":"AB1","at":"yesterday"}"#, "at: "),
            (r#"{"kind":"entry","plate":"AB1","at":"2026-11-23T08:15:00"}"#, "at: it lacks the offset"),
            (r#"{"kind":"entry","plate":"AB1","at":"2026-02-30T08:15:00Z"}"#, "at: "),
            (r#"{"kind":"entry","plate":"AB1","colour":"red"}"#, "colour: unknown field"),
            (r#"{"kind":"entry","plate":"AB1","occupied":3}"#, "occupied: an event of kind"),
            (r#"{"kind":"entry","plate":"AB1","confidence":1.5}"#, "confidence: it lies between"),
            (r#"{"kind":"entry","plate":"AB1","seen_at":""}"#, "seen_at: "),
            (r#"{"kind":"entry","plate":"AB1","lane":"a\u0000"}"#, "lane: it holds a control"),
            (
                r#"{"kind":"count","occupied":-1,"reason":"r"}"#,
                "occupied: the number -1 stands where a whole number",
            ),
            (r#"{"kind":"entry","plate":"AB1","plate":"AB1"}"#, "plate: duplicate field `plate`"),
            (r#"{"kind":"entry","plate":"AB1","lane":[2]}"#, "lane: a list stands where a text"),
            (
                r#"{"kind":"entry","plate":"AB1","confidence":"1"}"#,
                "confidence: a text stands where a number",
            ),
            (r#"{"kind":"plate_correction","epoch":"x","sequence":1,"plate":"AB1"}"#, "epoch: "),
        ] {
            let reason = refused(json);
            assert!(reason.starts_with(field), "{json}: {reason}");
        }
        for json in ["", "{", "[]", "nonsense", r#"{"kind":"entry","plate":"AB1"} x"#] {
            let reason = refused(json);
            assert!(reason.contains("JSON"), "{json}: {reason}");
        }
    }
}
