//! Events as bytes: what an edge stores, what is sent, and what the ledger keeps forever.
//!
//! An encoded event is one byte with the version of the format, then the event in postcard. A reader that does not know a version
//! or a kind keeps the bytes and says so; it never guesses.

use super::event::{Event, EventKind, Moment, Sighting};
use super::plate::Plate;
use jiff::Timestamp;
use jiff::tz::Offset;
use serde::{Deserialize, Serialize};

/// The form that this program writes.
pub const VERSION: u8 = 1;

/// Why bytes are no event that this program understands. They are kept as they are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoredError {
    #[error("it has version {0}, this program knows version {VERSION}")]
    Version(u8),
    #[error("it does not decode: {0}")]
    Malformed(String),
}

/// Fields are only ever added at the end of the enum, as new kinds.
#[derive(Serialize, Deserialize)]
struct Stored {
    kind: StoredKind,
    at: StoredMoment,
    seen: Option<StoredSighting>,
}

#[derive(Serialize, Deserialize)]
enum StoredKind {
    Entry(Option<String>),
    Exit(Option<String>),
    Count { occupied: u32, reason: String },
    PlateCorrection { epoch: String, sequence: u64, plate: String },
}

/// Milliseconds since 1970 and the offset in minutes: what a camera's clock provides.
#[derive(Serialize, Deserialize, Clone, Copy)]
struct StoredMoment(i64, i16);

#[derive(Serialize, Deserialize)]
struct StoredSighting {
    lane: Option<String>,
    camera: Option<String>,
    confidence: Option<f64>,
    seen_at: Option<StoredMoment>,
}

impl From<Moment> for StoredMoment {
    fn from(moment: Moment) -> StoredMoment {
        let minutes = moment.offset.seconds() / 60; // RFC 3339 knows no seconds of offset
        StoredMoment(
            moment.timestamp.as_millisecond(),
            i16::try_from(minutes).expect("an offset is below 26 hours"),
        )
    }
}

impl TryFrom<StoredMoment> for Moment {
    type Error = StoredError;
    fn try_from(stored: StoredMoment) -> Result<Moment, StoredError> {
        let malformed = |error: jiff::Error| StoredError::Malformed(error.to_string());
        Ok(Moment {
            timestamp: Timestamp::from_millisecond(stored.0).map_err(malformed)?,
            offset: Offset::from_seconds(i32::from(stored.1) * 60).map_err(malformed)?,
        })
    }
}

impl Event {
    pub fn to_bytes(&self) -> Vec<u8> {
        let text = |plate: &Option<Plate>| plate.as_ref().map(ToString::to_string);
        let stored = Stored {
            kind: match &self.kind {
                EventKind::Entry { plate } => StoredKind::Entry(text(plate)),
                EventKind::Exit { plate } => StoredKind::Exit(text(plate)),
                EventKind::Count { occupied, reason } => {
                    StoredKind::Count { occupied: *occupied, reason: reason.clone() }
                }
                EventKind::PlateCorrection { epoch, sequence, plate } => StoredKind::PlateCorrection {
                    epoch: epoch.clone(),
                    sequence: *sequence,
                    plate: plate.to_string(),
                },
            },
            at: self.at.into(),
            seen: (self.seen != Sighting::default()).then(|| StoredSighting {
                lane: self.seen.lane.clone(),
                camera: self.seen.camera.clone(),
                confidence: self.seen.confidence,
                seen_at: self.seen.seen_at.map(Into::into),
            }),
        };
        postcard::to_extend(&stored, vec![VERSION]).expect("an event always encodes")
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Event, StoredError> {
        let malformed = |error: String| StoredError::Malformed(error);
        let (version, body) = bytes.split_first().ok_or_else(|| malformed("it is empty".into()))?;
        if *version != VERSION {
            return Err(StoredError::Version(*version));
        }
        let (stored, rest) =
            postcard::take_from_bytes::<Stored>(body).map_err(|error| malformed(error.to_string()))?;
        if !rest.is_empty() {
            return Err(malformed("bytes follow its end".into()));
        }
        let plate = |text: String| Plate::stored(&text).map_err(|error| malformed(error.to_string()));
        Ok(Event {
            kind: match stored.kind {
                StoredKind::Entry(text) => EventKind::Entry { plate: text.map(plate).transpose()? },
                StoredKind::Exit(text) => EventKind::Exit { plate: text.map(plate).transpose()? },
                StoredKind::Count { occupied, reason } => EventKind::Count { occupied, reason },
                StoredKind::PlateCorrection { epoch, sequence, plate: text } => {
                    EventKind::PlateCorrection { epoch, sequence, plate: plate(text)? }
                }
            },
            at: stored.at.try_into()?,
            seen: match stored.seen {
                None => Sighting::default(),
                Some(seen) => Sighting {
                    lane: seen.lane,
                    camera: seen.camera,
                    confidence: seen.confidence,
                    seen_at: seen.seen_at.map(TryInto::try_into).transpose()?,
                },
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(json: &str) -> Event {
        Event::from_json(json.as_bytes(), Timestamp::UNIX_EPOCH).unwrap()
    }

    #[test]
    fn every_kind_comes_back_as_it_was() {
        for json in [
            r#"{"kind":"entry","plate":"B-AB 123","at":"2026-11-23T08:15:00.250+05:30","lane":"2","camera":"n","confidence":0.5,"seen_at":"2026-11-23T08:15:00Z"}"#,
            r#"{"kind":"exit","plate":null,"at":"1969-12-31T23:59:59-11:00"}"#,
            r#"{"kind":"count","occupied":4294967295,"reason":"Zählung"}"#,
            r#"{"kind":"plate_correction","epoch":"6b8cd2f8-0c38-4f0e-9a5a-5fd6b1d4c9b0","sequence":7,"plate":"а123вс"}"#,
        ] {
            let event = event(json);
            assert_eq!(Event::from_bytes(&event.to_bytes()), Ok(event), "{json}");
        }
    }

    /// The ledger keeps these bytes for good.
    #[test]
    fn the_form_on_disk_is_this() {
        let event = event(r#"{"kind":"entry","plate":"AB1","at":"1970-01-01T00:00:01+01:00"}"#);
        // version, entry, some, 3 bytes, zigzag(-3,599,000), zigzag(60), no sighting
        let bytes = [1, 0, 1, 3, b'A', b'B', b'1', 175, 170, 183, 3, 120, 0];
        assert_eq!(event.to_bytes(), bytes);
    }

    #[test]
    fn what_this_program_does_not_know_is_said() {
        assert_eq!(Event::from_bytes(&[2, 0]), Err(StoredError::Version(2)));
        let unknown_kind = [1, 9, 0, 0, 0];
        assert!(matches!(Event::from_bytes(&unknown_kind), Err(StoredError::Malformed(_))));
        assert!(matches!(Event::from_bytes(&[]), Err(StoredError::Malformed(_))));
    }
}
