//! Messages from unreliable sites to one centre, each applied exactly once and in order.
//!
//! **Promise.** What [`outbox::Outbox::append`] confirmed is handed to the centre's ledger once, in the
//! order of its sequence, through crashes and power cuts of both sides and any weather on the link.
//! **Kept by.** An [`outbox`] that keeps sealed pages on disk until they are acknowledged; a
//! [`sender`] that repeats until then; a [`receiver`] that applies exactly the next page of a stream and
//! tells duplicates, gaps and conflicts apart; the [`wire`] protocol between them.
//! **Not promised.** An order between sites, or between two producers of one site.
//!
//! Payloads are opaque bytes here: meters or tills could travel the same way as cars. `sender` and
//! `receiver` are pure: they are given what happened and the time, and answer what to do.
//! `examples/meter.rs` uses this module alone.

pub mod clock;
pub mod identity;
pub mod outbox;
pub mod page;
pub mod receiver;
pub mod sender;
pub mod wire;

pub use clock::ClockReading;
pub use identity::{Digest, Epoch, LedgerId, Sequence, SiteName};
