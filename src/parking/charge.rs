//! The ids of charges and events.
//!
//! **Promise.** A charge's id follows from the exit that ended its stay: the garage, the epoch and the sequence of that event.
//! Nothing is numbered, so the same ledger always gives the same ids, and a person can trace an id to its event.

use super::moment::Moment;
use jiff::Timestamp;
use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

/// `GARAGE/EPOCH/SEQUENCE` of the exit. Where an operator made the exit, that of the entry, with `@TIME` of the exit (RFC 3339, UTC).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChargeId {
    /// The first name of the garage. It may contain slashes.
    pub garage: String,
    pub epoch: [u8; 16],
    pub sequence: u64,
    /// When the exit was that an operator made, in milliseconds since 1970.
    pub made_at_ms: Option<i64>,
}

impl fmt::Display for ChargeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.garage, Uuid::from_bytes(self.epoch), self.sequence)?;
        match self.made_at_ms {
            Some(at_ms) => write!(f, "@{}", Moment::utc_text(at_ms)),
            None => Ok(()),
        }
    }
}

impl FromStr for ChargeId {
    type Err = String;
    fn from_str(text: &str) -> Result<ChargeId, String> {
        let read = || {
            let mut parts = text.rsplitn(3, '/');
            let (number, epoch, garage) = (parts.next()?, parts.next()?, parts.next()?);
            let (sequence, made_at_ms) = match number.split_once('@') {
                Some((sequence, time)) => (sequence, Some(time.parse::<Timestamp>().ok()?.as_millisecond())),
                None => (number, None),
            };
            let epoch = epoch.parse::<Uuid>().ok()?.into_bytes();
            Some(ChargeId { garage: garage.to_owned(), epoch, sequence: sequence.parse().ok()?, made_at_ms })
        };
        let example =
            "one looks like 1/d5947e0f-1414-4ac6-8009-21147bb78df6/623, as \"server charges list\" shows it";
        read().ok_or_else(|| format!("{text:?} is not the id of a charge: {example}"))
    }
}

serialize_as_text!(ChargeId);

/// The id of an event: `GARAGE/EPOCH/SEQUENCE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventId {
    pub garage: String,
    pub epoch: [u8; 16],
    pub sequence: u64,
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.garage, Uuid::from_bytes(self.epoch), self.sequence)
    }
}

impl FromStr for EventId {
    type Err = String;
    fn from_str(text: &str) -> Result<EventId, String> {
        match text.parse() {
            Ok(ChargeId { garage, epoch, sequence, made_at_ms: None }) => {
                Ok(EventId { garage, epoch, sequence })
            }
            _ => Err(format!(
                "{text:?} is not the id of an event: such an id looks like 1/d5947e0f-1414-4ac6-8009-21147bb78df6/623: garage, epoch and sequence, as GET /v1/events shows them"
            )),
        }
    }
}

serialize_as_text!(EventId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_as_it_is_written() {
        for garage in ["1", "Bull Ring", "a/b", "Гараж"] {
            for made_at_ms in [None, Some(1_763_970_300_000), Some(1_763_970_300_017)] {
                let id = ChargeId { garage: garage.into(), epoch: [7; 16], sequence: 623, made_at_ms };
                assert_eq!(id.to_string().parse(), Ok(id));
            }
        }
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for text in [
            "",
            "1",
            "1/2/3",
            "1/d5947e0f-1414-4ac6-8009-21147bb78df6/x",
            "d5947e0f-1414-4ac6-8009-21147bb78df6/3",
        ] {
            assert!(text.parse::<ChargeId>().is_err(), "{text}");
        }
    }
}
