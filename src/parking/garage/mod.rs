//! Garages as operators describe them, and whether one is open, full or closed.
//!
//! **Promise.** Server and edges come to the same state from the same facts at the same moment. What is not known is `None`, never
//! "open": a garage whose count or capacity nobody knows may be full.
//! **Kept by.** The state is computed where it is shown, by [`Openness`] and [`shown_state`], from facts that travel: what an operator
//! ordered, what the garage itself says, its opening hours, and whether it counts as full. Nobody sends a state that would be wrong
//! a minute later.
//! **Not promised.** That two clocks agree: the hours are those of the clock of the program that shows them.
//!
//! | who says it | it holds | over |
//! | --- | --- | --- |
//! | an operator (`server garages close`, `open`) | until the given time, or `server garages automatic` | all others |
//! | the garage, by an event `closed` within its hours | until its event `opened` | the hours |
//! | the garage, by an event `opened` outside its hours | until the hours change next | the hours |
//! | the hours; without hours it is always open | | |
//!
//! An event that says what the hours say anyway leaves it to the hours: it takes back the one before it.

mod full;
mod geo;
mod hours;
mod read;
mod state;

pub use full::is_full;
pub use geo::{GeoPoint, GeoPointJson};
pub use hours::{HoursText, KnownHours, OpeningHours};
pub use read::{ConfiguredGarage, parse_config};
pub use state::{
    DecidedBy, GarageSays, Opening, OpeningNow, Openness, OperatorSays, ShownState, shown_state,
};
