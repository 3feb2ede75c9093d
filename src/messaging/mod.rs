//! Carries messages from unreliable sites to one receiver, which applies each exactly once and in order.
//!
//! **Promise.** What [`outbox::Outbox::append`] confirmed is recorded in the receiver's ledger exactly once, in the order of its
//! sequence, despite crashes and power cuts on both sides and any fault of the link.
//! **Kept by.** An [`outbox`] that keeps sealed pages on disk until they are acknowledged; a [`sender`] that repeats until then;
//! a [`receiver`] that applies exactly the next page of a stream and distinguishes duplicates, gaps and conflicts; the [`wire`]
//! protocol between them.
//! **Not promised.** An order between sites, or between two producers of one site.
//!
//! Payloads are opaque bytes here: meters or tills could travel the same way as cars. `sender` and
//! `receiver` are pure: they receive events and the time as values, and return what to do.
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
