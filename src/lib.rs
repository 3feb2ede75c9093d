//! `fogpost` carries events from unreliable edges to one centre, and applies each exactly once.
//!
//! The floors, lower ones first; a higher one uses lower ones and never the other way:
//!
//! * [`store`]: sled made safe, and the seam where tests own the disk;
//! * [`messaging`]: outbox, wire, sender, receiver, for payloads of any kind;
//! * `parking`: plates, events, occupancy: values and arithmetic;
#![deny(unsafe_code)]

pub mod messaging;
pub mod store;
