//! Parking as values and arithmetic: plates, events, occupancy, stays, tariffs, the board.
//!
//! Nothing here reads a clock, a file or a socket; time arrives with the event. Nothing here knows how
//! events travel.

pub mod board;
pub mod charge;
pub mod event;
pub mod json;
pub mod lookalike;
pub mod moment;
pub mod money;
pub mod occupancy;
pub mod plate;
pub mod register;
pub mod statement;
pub mod stay;
pub mod stored;
pub mod tariff;

pub use board::{Board, BoardAnswer, BoardQuestion, Observation};
pub use charge::{ChargeId, EventId};
pub use event::{Event, EventError, EventKind};
pub use moment::Moment;
pub use occupancy::Occupancy;
pub use plate::{Plate, PlateError};
