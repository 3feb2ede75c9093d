//! `fogpost` carries events from unreliable edges to one server, and applies each exactly once.
//!
//! The layers, from the lowest to the highest; a layer uses only the layers before it:
//!
//! * [`codes`]: the stable codes of errors and alarms, which every layer uses;
//! * [`store`]: sled made safe, and the seam where tests own the disk;
//! * [`messaging`]: outbox, wire, sender, receiver, for payloads of any kind;
//! * [`parking`]: plates, events, occupancy: values and arithmetic. It and `messaging` know nothing of each other;
//! * [`transport`]: ZeroMQ sockets; [`fault_proxy`]: connections that can be disturbed;
//! * [`telemetry`], [`config`]: logs and settings;
//! * [`http`]: HTTP for both daemons;
//! * [`daemon`]: the lifecycle of a process, and commands to a running daemon;
//! * [`traffic`]: simulated and recorded cars;
//! * [`edge`], [`server`]: the daemons, which join the parts;
//! * [`cli`]: their command lines.
//!
//! The program `city` runs the whole system in one command, and is not part of the library.

pub mod cli;
pub mod codes;
pub mod config;
pub mod daemon;
pub mod edge;
pub mod fault_proxy;
pub mod http;
pub mod messaging;
pub mod parking;
pub mod server;
pub mod store;
pub mod telemetry;
pub mod traffic;
pub mod transport;
