//! ZeroMQ sockets, made safe to use: DEALER at the edge, ROUTER at the server behind a gateway.
//!
//! **Promise.** A call ends, or it can be dropped at any await without loss of order; no peer can hold up another.
//! **Kept by.** What we learned of zeromq 0.7 (`ARCHITECTURE.md`, "What zeromq needs"): DEALER does not reconnect, so a
//! doubtful socket is dropped and replaced; `recv` may hang after a close, so its caller has a timer; a send
//! on ROUTER to a full peer would freeze every other, so it is never waited for. What hostile peers do ends at the [`gateway`].
//! **Not promised.** Delivery: that is what `messaging` is for.

pub mod address;
pub mod dealer;
pub mod gateway;
pub mod tls;

pub use address::ServerAddress;
