//! What happens at a garage, and how it is written in JSON.

pub use super::json::EventError;
use super::json::{self, Expected};
pub use super::moment::Moment;
use super::plate::{Plate, PlateError};
use jiff::Timestamp;
use serde::de::IntoDeserializer;
use serde::de::value::Error as NoName;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;

/// A car entered or left, or a person at the garage corrected the record.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub kind: EventKind,
    /// When it happened, as its source says: evidence, not truth.
    pub at: Moment,
    pub seen: Sighting,
}

/// It is stored as well ([`Event::to_bytes`]): a new kind goes to the end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    /// The garage takes no more cars, until [`EventKind::Opened`]. It changes no count.
    Closed {
        reason: Option<String>,
    },
    /// The garage is open again.
    Opened,
}

impl EventKind {
    pub fn name(&self) -> KindName {
        match self {
            EventKind::Entry { .. } => KindName::Entry,
            EventKind::Exit { .. } => KindName::Exit,
            EventKind::Count { .. } => KindName::Count,
            EventKind::PlateCorrection { .. } => KindName::PlateCorrection,
            EventKind::Closed { .. } => KindName::Closed,
            EventKind::Opened => KindName::Opened,
        }
    }

    pub fn plate(&self) -> Option<&Plate> {
        match self {
            EventKind::Entry { plate } | EventKind::Exit { plate } => plate.as_ref(),
            EventKind::PlateCorrection { plate, .. } => Some(plate),
            EventKind::Count { .. } | EventKind::Closed { .. } | EventKind::Opened => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KindName {
    Entry,
    Exit,
    Count,
    PlateCorrection,
    Closed,
    Opened,
}

impl fmt::Display for KindName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Sighting {
    pub lane: Option<String>,
    pub camera: Option<String>,
    /// 0 to 1.
    pub confidence: Option<f64>,
    pub seen_at: Option<Moment>,
}

/// The longest text in an event: a lane, a camera, a reason. In bytes.
const TEXT_MAX: usize = 256;

const FIELDS: [(&str, Expected); 11] = [
    ("kind", Expected::Text),
    ("plate", Expected::TextOrNull),
    ("at", Expected::Text),
    ("lane", Expected::Text),
    ("camera", Expected::Text),
    ("confidence", Expected::Number),
    ("seen_at", Expected::Text),
    ("occupied", Expected::Whole(u32::MAX as u64)),
    ("reason", Expected::Text),
    ("epoch", Expected::Text),
    ("sequence", Expected::Whole(u64::MAX)),
];

impl Event {
    /// Reads one event as producers write it. `now` stands in for a missing `at`.
    pub fn from_json(json: &[u8], now: Timestamp) -> Result<Event, EventError> {
        let text = json::text_of(json)?;
        if text.trim_start().chars().next().is_some_and(|c| c != '{') {
            return Err(EventError::Syntax("an event is an object in braces".into()));
        }
        EventFields::of(json::fields(text, &FIELDS.map(|(name, _)| name))?)?.event(now)
    }
}

/// The values of [`FIELDS`] that were given. `null` is as good as nothing, except for a plate.
struct EventFields([Option<Value>; FIELDS.len()]);

impl EventFields {
    fn of(mut values: [Option<Value>; FIELDS.len()]) -> Result<EventFields, EventError> {
        for ((field, expected), value) in FIELDS.iter().zip(&mut values) {
            value.take_if(|value| value.is_null() && *expected != Expected::TextOrNull);
            if let Some(value) = value {
                json::check(value, *expected).map_err(|reason| EventError::field(field, reason))?;
            }
        }
        Ok(EventFields(values))
    }

    fn get(&self, field: &str) -> Option<&Value> {
        let place = FIELDS.iter().position(|(name, _)| *name == field)?;
        self.0[place].as_ref()
    }

    fn text(&self, field: &str) -> Option<&str> {
        self.get(field)?.as_str()
    }

    fn event(&self, now: Timestamp) -> Result<Event, EventError> {
        let kind = self.kind()?;
        let confidence = self.get("confidence").and_then(Value::as_f64);
        if let Some(confidence) = confidence
            && !(0.0..=1.0).contains(&confidence)
        {
            let reason = format!("it must be between 0 and 1, but is {confidence}");
            return Err(EventError::field("confidence", reason));
        }
        let at = self.moment("at")?.unwrap_or_else(|| Moment::utc(now));
        let (lane, camera) = (self.short_text("lane")?, self.short_text("camera")?);
        Ok(Event { kind, at, seen: Sighting { lane, camera, confidence, seen_at: self.moment("seen_at")? } })
    }

    /// What happened. Fields that an event of this kind does not have are refused.
    fn kind(&self) -> Result<EventKind, EventError> {
        let name = self.text("kind").ok_or_else(|| missing("kind"))?;
        let kind = KindName::deserialize(name.into_deserializer()).map_err(|_: NoName| {
            let reason = format!(
                "{name:?} is not one of \"entry\", \"exit\", \"count\", \"plate_correction\", \"closed\", \"opened\""
            );
            EventError::field("kind", reason)
        })?;
        let unused: &[&str] = match kind {
            KindName::Entry | KindName::Exit => &["occupied", "reason", "epoch", "sequence"],
            KindName::Count => &["plate", "epoch", "sequence"],
            KindName::PlateCorrection => &["occupied", "reason"],
            KindName::Closed => &["plate", "occupied", "epoch", "sequence"],
            KindName::Opened => &["plate", "occupied", "reason", "epoch", "sequence"],
        };
        if let Some(field) = unused.iter().find(|field| self.get(field).is_some()) {
            return Err(EventError::field(field, format!("an event of kind {name:?} has no such field")));
        }
        let whole = |field| self.get(field).and_then(Value::as_u64).ok_or_else(|| missing(field));
        Ok(match kind {
            KindName::Entry => EventKind::Entry { plate: self.plate(kind)? },
            KindName::Exit => EventKind::Exit { plate: self.plate(kind)? },
            KindName::Count => EventKind::Count {
                occupied: u32::try_from(whole("occupied")?).expect("its greatest value was checked"),
                reason: self.short_text("reason")?.ok_or_else(|| missing("reason"))?,
            },
            KindName::PlateCorrection => EventKind::PlateCorrection {
                plate: self
                    .plate(kind)?
                    .ok_or_else(|| EventError::field("plate", "a correction needs a readable plate"))?,
                epoch: uuid::Uuid::try_parse(self.text("epoch").ok_or_else(|| missing("epoch"))?)
                    .map_err(|error| EventError::field("epoch", error))?
                    .to_string(),
                sequence: match whole("sequence")? {
                    0 => return Err(EventError::field("sequence", "sequences begin at 1")),
                    sequence => sequence,
                },
            },
            KindName::Closed => EventKind::Closed { reason: self.short_text("reason")? },
            KindName::Opened => EventKind::Opened,
        })
    }

    fn plate(&self, kind: KindName) -> Result<Option<Plate>, EventError> {
        let Some(plate) = self.get("plate") else {
            let reason = "it is missing; send null if the plate could not be read";
            return Err(EventError::field("plate", reason));
        };
        let read = |plate: &str| {
            Plate::new(plate).map_err(|error: PlateError| {
                let advice = match kind {
                    KindName::PlateCorrection => "leave the event as it is when nobody can read the plate",
                    _ => "send null when the plate cannot be read: the car is counted, and never billed",
                };
                EventError::field("plate", format!("{error}; {advice}"))
            })
        };
        plate.as_str().map(read).transpose()
    }

    fn moment(&self, field: &str) -> Result<Option<Moment>, EventError> {
        let read = |text| Moment::parse(text).map_err(|reason| EventError::field(field, reason));
        self.text(field).map(read).transpose()
    }

    fn short_text(&self, field: &str) -> Result<Option<String>, EventError> {
        match self.text(field) {
            Some(text) if text.len() > TEXT_MAX => {
                let reason = format!("it is {} bytes long, the limit is {TEXT_MAX}", text.len());
                Err(EventError::field(field, reason))
            }
            Some(text) if text.chars().any(char::is_control) => {
                Err(EventError::field(field, "it holds a control character"))
            }
            text => Ok(text.map(str::to_owned)),
        }
    }
}

fn missing(field: &str) -> EventError {
    EventError::field(field, "it is missing")
}

/// An event as it is shown in JSON, with the fields that it has.
#[derive(Debug, Serialize)]
pub struct EventJson {
    pub kind: KindName,
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

#[derive(Debug, Serialize)]
pub struct Corrects {
    pub epoch: String,
    pub sequence: u64,
}

impl From<Event> for EventJson {
    fn from(Event { kind, at, seen }: Event) -> EventJson {
        let (name, plate) = (kind.name(), kind.plate().map(ToString::to_string));
        let (occupied, reason, corrects) = match kind {
            EventKind::Count { occupied, reason } => (Some(occupied), Some(reason), None),
            EventKind::PlateCorrection { epoch, sequence, .. } => {
                (None, None, Some(Corrects { epoch, sequence }))
            }
            EventKind::Closed { reason } => (None, reason, None),
            EventKind::Entry { .. } | EventKind::Exit { .. } | EventKind::Opened => (None, None, None),
        };
        EventJson {
            kind: name,
            plate,
            at: at.to_string(),
            lane: seen.lane,
            camera: seen.camera,
            confidence: seen.confidence,
            seen_at: seen.seen_at.map(|at| at.to_string()),
            occupied,
            reason,
            corrects,
        }
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
        let closed = read(r#"{"kind":"closed","reason":"flood"}"#).unwrap().kind;
        assert_eq!(closed, EventKind::Closed { reason: Some("flood".into()) });
        assert_eq!(read(r#"{"kind":"opened"}"#).unwrap().kind, EventKind::Opened);
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
            (r#"{"kind":"enter","plate":"AB1"}"#, "kind: \"enter\" is not one of"),
            (r#"{"kind":"entry"}"#, "plate: it is missing"),
            (r#"{"kind":"entry","plate":"?"}"#, "plate: a plate is made of"),
            (r#"{"kind":"entry","plate":7}"#, "plate: it must be a text in quotes or null, not the number 7"),
            (r#"{"kind":"entry","plate":"AB1","at":"yesterday"}"#, "at: "),
            (r#"{"kind":"entry","plate":"AB1","at":"2026-11-23T08:15:00"}"#, "at: it lacks the offset"),
            (r#"{"kind":"entry","plate":"AB1","at":"2026-02-30T08:15:00Z"}"#, "at: "),
            (r#"{"kind":"entry","plate":"AB1","colour":"red"}"#, "colour: unknown field"),
            (r#"{"kind":"entry","plate":"AB1","occupied":3}"#, "occupied: an event of kind"),
            (r#"{"kind":"entry","plate":"AB1","confidence":1.5}"#, "confidence: it must be between"),
            (r#"{"kind":"entry","plate":"AB1","seen_at":""}"#, "seen_at: "),
            (r#"{"kind":"entry","plate":"AB1","lane":"a\u0000"}"#, "lane: it holds a control"),
            (
                r#"{"kind":"count","occupied":-1,"reason":"r"}"#,
                "occupied: it must be a whole number from 0 to 4294967295, not the number -1",
            ),
            (r#"{"kind":"entry","plate":"AB1","plate":"AB1"}"#, "plate: duplicate field `plate`"),
            (r#"{"kind":"entry","plate":"AB1","lane":[2]}"#, "lane: it must be a text in quotes, not a list"),
            (
                r#"{"kind":"entry","plate":"AB1","confidence":"1"}"#,
                "confidence: it must be a number, not a text",
            ),
            (r#"{"kind":"closed","plate":"AB1"}"#, "plate: an event of kind \"closed\""),
            (r#"{"kind":"opened","reason":"dry"}"#, "reason: an event of kind \"opened\""),
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
