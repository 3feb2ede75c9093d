//! Parking as values and arithmetic: plates, events, occupancy, stays, tariffs, the board.
//!
//! Nothing here reads a clock, a file or a socket; time arrives with the event. Nothing here knows how events travel.

/// Serialises a type as the text that it displays, and reads it back with its `FromStr`.
macro_rules! serialize_as_text {
    ($type:ty) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<$type, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

pub mod board;
pub mod charge;
pub mod document;
pub mod event;
pub mod garage;
pub mod journal;
pub mod json;
pub mod lookalike;
pub mod moment;
pub mod money;
pub mod month;
pub mod name;
pub mod occupancy;
pub mod payment;
pub mod plate;
pub mod receivables;
pub mod register;
mod sheet;
pub mod stay;
pub mod stored;
pub mod table;
pub mod tariff;

pub use board::{Board, BoardAnswer, BoardQuestion, DiskSpace, EdgeMachine, Observation};
pub use charge::{ChargeId, EventId};
pub use event::{Event, EventError, EventKind};
pub use moment::Moment;
pub use month::{Month, MonthError};
pub use occupancy::Occupancy;
pub use plate::{Plate, PlateError};
