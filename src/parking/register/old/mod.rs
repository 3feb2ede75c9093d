//! The registry without dates, until the views of money use the one with dates.

pub mod changes;
pub mod contracts;
pub mod plates;
