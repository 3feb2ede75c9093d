//! TLS 1.3 with certificates on both sides, in front of the ZeroMQ sockets.
//!
//! **Promise.** Both ends show certificates of one authority, or there is no connection. A peer speaks for the garages that its
//! certificate names ([`TlsPeer::garages`]) and for no other. A certificate that was renewed or revoked is taken up without a restart, and
//! a connection whose certificate is revoked or has expired ends.
//! **Kept by.** rustls with TLS 1.3 alone, and no resumption: each connection verifies the certificates. [`Live`] reads the files
//! again when they change, and keeps what it had while they cannot be used. [`Acceptor::must_end`] watches a connection.
//! **Not promised.** Anything once the key of the authority is known to others.
//!
//! | part | what it does |
//! | --- | --- |
//! | [`certificate`] | reads serial, garages and validity from a certificate |
//! | [`authority`] | makes keys and certificates, as values |
//! | [`files`], [`live`] | what a daemon shows and trusts, from files that may change |
//! | [`acceptor`], [`connector`] | the two ends |
//! | [`web`] | the server's end for browsers, which show no certificate |
//! | [`tunnel`] | carries one connection of a DEALER through TLS |

pub mod acceptor;
pub mod authority;
pub mod certificate;
pub mod connector;
pub mod files;
pub mod live;
#[cfg(test)]
mod tests;
pub mod tunnel;
pub mod web;

pub use acceptor::{Acceptor, MustEnd, TlsPeer};
pub use connector::Connector;
pub use files::{TlsError, TlsFiles};
