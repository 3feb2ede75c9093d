//! `fogpost` carries events from unreliable edges to one server, and applies each exactly once.
//!
//! ARCHITECTURE.md draws the layers: a module uses only those below it, and `messaging` and `parking` know nothing of each other.
//! The program `city` runs the whole system in one command, and is not part of the library.

pub mod audit;
pub mod cli;
pub mod codes;
pub mod config;
pub mod daemon;
pub mod edge;
pub mod fault_proxy;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod http;
pub mod messaging;
pub mod parking;
pub mod server;
pub mod store;
pub mod telemetry;
pub mod text;
pub mod traffic;
pub mod transport;
