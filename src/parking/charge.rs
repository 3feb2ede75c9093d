//! The ids of charges and events.
//!
//! **Promise.** A charge's id follows from the exit that ended its stay: the garage, the epoch and the sequence of that event.
//! Nothing is numbered, so the same ledger always gives the same ids, and a person can trace an id to its event.

use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

/// `GARAGE/EPOCH/SEQUENCE`, with the `@POSITION` of the ledger at which a corrected plate or an operator made the stay, if one did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChargeId {
    /// The first name of the garage. It may contain slashes.
    pub garage: String,
    pub epoch: [u8; 16],
    pub sequence: u64,
    pub made_at: Option<u64>,
}

impl fmt::Display for ChargeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.garage, Uuid::from_bytes(self.epoch), self.sequence)?;
        match self.made_at {
            Some(position) => write!(f, "@{position}"),
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
            let (sequence, made_at) = match number.split_once('@') {
                Some((sequence, position)) => (sequence, Some(position.parse().ok()?)),
                None => (number, None),
            };
            let epoch = epoch.parse::<Uuid>().ok()?.into_bytes();
            Some(ChargeId { garage: garage.to_owned(), epoch, sequence: sequence.parse().ok()?, made_at })
        };
        let example =
            "one looks like 1/d5947e0f-1414-4ac6-8009-21147bb78df6/623, as GET /v1/charges shows it";
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
            Ok(ChargeId { garage, epoch, sequence, made_at: None }) => {
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
            for made_at in [None, Some(17)] {
                let id = ChargeId { garage: garage.into(), epoch: [7; 16], sequence: 623, made_at };
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
