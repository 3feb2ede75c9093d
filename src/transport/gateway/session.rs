//! One connection as a pure machine: bytes of the peer and of the ROUTER in, bytes for both out, and why it has to end.
//!
//! | stage | becomes | when | may last |
//! | --- | --- | --- | --- |
//! | Greeting | Ready | a greeting of ZMTP 3 came; READY is sent | both together [`PeerLimits::handshake`] |
//! | Ready | Traffic | READY of a DEALER, REQ or ROUTER came | |
//! | Traffic | – | | between messages [`PeerLimits::idle`], a message [`PeerLimits::message`] |
//!
//! **Promise.** What reaches the ROUTER is whole headers within the limits, and bodies as long as their headers say: it never reserves
//! memory for what a peer only announced. Commands never reach it. A peer gets whole replies, and answers to PING between them.
//! **Kept by.** Headers are written again from what was parsed. Each message that is complete counts as in flight until the ROUTER
//! sends a reply, as the server answers each message once; at the limit no more input is taken.
//! **Beyond the RFC.** A command between two frames of one message is taken: libzmq sends PING there.

use super::close_reason::CloseReason;
use super::limits::{Allowance, MESSAGE_MAX, PARTS_MAX, PeerLimits, ROUTER_CHUNK};
use super::zmtp::{self, PingContext, ZmtpCommand, ZmtpEvent, ZmtpParser};
use bytes::BytesMut;
use std::time::{Duration, Instant};

#[derive(Debug)]
pub struct Session {
    parser: ZmtpParser,
    stage: Stage,
    message: Option<MessageSoFar>,
    /// Complete messages that were not answered.
    in_flight: usize,
    commands: Allowance,
    /// To be answered after the reply that is being sent.
    ping: Option<PingContext>,
    /// What the peer said in a PING: how long it is silent at most.
    ttl: Option<Duration>,
    replies: ZmtpParser,
    /// Whether the peer has got a part of a reply, and not its end.
    is_in_reply: bool,
    began: Instant,
    /// When the peer was last heard.
    heard_at: Instant,
    /// Since when the peer owes the rest of a message.
    message_since: Instant,
    /// Since when nothing of what waits was taken by the peer.
    unread_since: Option<Instant>,
    /// To be written to the ROUTER.
    pub to_router: BytesMut,
    /// To be written to the peer.
    pub to_peer: BytesMut,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Greeting,
    Ready,
    Traffic,
}

#[derive(Debug, Default, Clone, Copy)]
struct MessageSoFar {
    parts: usize,
    /// What all headers announced together.
    announced: u64,
}

impl Session {
    pub fn new(limits: &PeerLimits, now: Instant) -> Session {
        Session {
            parser: ZmtpParser::default(),
            stage: Stage::Greeting,
            message: None,
            in_flight: 0,
            commands: Allowance::full(limits.commands, now),
            ping: None,
            ttl: None,
            replies: ZmtpParser::after_greeting(),
            is_in_reply: false,
            began: now,
            heard_at: now,
            message_since: now,
            unread_since: None,
            to_router: BytesMut::new(),
            to_peer: BytesMut::from(&zmtp::greeting()[..]),
        }
    }

    /// Whether more input of the peer is taken now.
    pub fn takes_input(&self, limits: &PeerLimits) -> bool {
        self.to_router.is_empty() && (self.message.is_some() || self.in_flight < limits.in_flight)
    }

    /// Takes what the peer sent off the front of `input`: all of it, or up to the message after which the peer has to wait.
    pub fn received(
        &mut self,
        input: &mut &[u8],
        limits: &PeerLimits,
        now: Instant,
    ) -> Result<(), CloseReason> {
        self.heard_at = now;
        let taken = self.take(input, limits, now);
        let is_handshake = self.stage != Stage::Traffic;
        taken.map_err(|reason| match reason {
            CloseReason::FrameInvalid | CloseReason::TooLarge if is_handshake => {
                // The RFC asks for it. Without a greeting the peer would not understand it.
                if self.stage == Stage::Ready {
                    zmtp::put_error("READY of a DEALER or REQ socket was expected", &mut self.to_peer);
                }
                CloseReason::HandshakeInvalid
            }
            reason => reason,
        })
    }

    fn take(&mut self, input: &mut &[u8], limits: &PeerLimits, now: Instant) -> Result<(), CloseReason> {
        while self.message.is_some() || self.in_flight < limits.in_flight {
            let Some(event) = self.parser.next(input)? else { break };
            match event {
                ZmtpEvent::Greeting => {
                    self.stage = Stage::Ready;
                    zmtp::put_ready_of_router(&mut self.to_peer);
                }
                ZmtpEvent::Command(command) => self.command(command, limits, now)?,
                _ if self.stage != Stage::Traffic => return Err(CloseReason::FrameInvalid),
                ZmtpEvent::Frame(header) => {
                    if self.message.is_none() {
                        self.message_since = now;
                    }
                    let message = self.message.get_or_insert_default();
                    message.parts += 1;
                    message.announced = message.announced.saturating_add(header.length);
                    if message.announced > MESSAGE_MAX || message.parts > PARTS_MAX {
                        return Err(CloseReason::TooLarge);
                    }
                    zmtp::put_header(header, &mut self.to_router);
                }
                ZmtpEvent::Body(part) => self.to_router.extend_from_slice(part),
                ZmtpEvent::End { more: true } => {}
                ZmtpEvent::End { more: false } => {
                    self.message = None;
                    self.in_flight += 1;
                }
            }
        }
        Ok(())
    }

    fn command(
        &mut self,
        command: ZmtpCommand,
        limits: &PeerLimits,
        now: Instant,
    ) -> Result<(), CloseReason> {
        if !self.commands.take(limits.commands, now) {
            return Err(CloseReason::TooManyCommands);
        }
        match (self.stage, command) {
            (Stage::Ready, ZmtpCommand::Ready(Some(_))) => self.stage = Stage::Traffic,
            (Stage::Traffic, ZmtpCommand::Ping { ttl_tenths, context }) => {
                self.ttl = (ttl_tenths > 0).then(|| Duration::from_millis(u64::from(ttl_tenths) * 100));
                self.ping = Some(context);
                self.answer_ping();
            }
            (Stage::Traffic, ZmtpCommand::Pong | ZmtpCommand::Other) => {}
            _ => return Err(CloseReason::FrameInvalid),
        }
        Ok(())
    }

    fn answer_ping(&mut self) {
        if !self.is_in_reply
            && let Some(context) = self.ping.take()
        {
            zmtp::put_pong(&context, &mut self.to_peer);
        }
    }

    /// Takes what the ROUTER sent. Returns how many bytes of complete replies that were. An error is a mistake of this program.
    pub fn replied(&mut self, mut bytes: &[u8]) -> Result<usize, CloseReason> {
        let mut answered = 0;
        while let Some(event) = self.replies.next(&mut bytes)? {
            match event {
                ZmtpEvent::Frame(header) => {
                    self.is_in_reply = true;
                    zmtp::put_header(header, &mut self.to_peer);
                }
                ZmtpEvent::Body(part) => {
                    answered += part.len();
                    self.to_peer.extend_from_slice(part);
                }
                ZmtpEvent::End { more: false } => {
                    self.is_in_reply = false;
                    self.in_flight = self.in_flight.saturating_sub(1);
                    self.answer_ping();
                }
                ZmtpEvent::End { more: true } | ZmtpEvent::Command(_) | ZmtpEvent::Greeting => {}
            }
        }
        Ok(answered)
    }

    /// Has to be called when the peer took something of what waits for it, or nothing.
    pub fn wrote_to_peer(&mut self, something: bool, now: Instant) {
        if self.to_peer.is_empty() {
            self.unread_since = None;
        } else if something || self.unread_since.is_none() {
            self.unread_since = Some(now);
        }
    }

    /// Has to be called while the ROUTER does not take what waits for it: for this time a peer is not responsible.
    pub fn router_is_full(&mut self, now: Instant) {
        self.message_since = now;
    }

    /// Whether a peer that will send no more has everything that it can get.
    pub fn is_answered(&self) -> bool {
        self.in_flight == 0 && self.to_router.is_empty() && self.to_peer.is_empty()
    }

    /// Whether the peer may stop sending here.
    pub fn is_between_messages(&self) -> bool {
        self.stage == Stage::Traffic && self.message.is_none() && self.parser.is_between_frames()
    }

    pub fn has_requests_in_flight(&self) -> bool {
        self.in_flight > 0
    }

    /// How many bytes of memory the message takes that is not complete: at the ROUTER, which makes room for a part of what is announced.
    pub fn unfinished_bytes(&self) -> usize {
        let Some(message) = self.message else { return 0 };
        let missing = self.parser.missing();
        (message.announced - missing + missing.min(ROUTER_CHUNK as u64)) as usize
    }

    pub fn message_since(&self) -> Instant {
        self.message_since
    }

    pub fn unread_since(&self) -> Option<Instant> {
        self.unread_since
    }

    pub fn heard_at(&self) -> Instant {
        self.heard_at
    }

    /// When the connection has to end unless the peer does something, and why. `is_proven`: it has sent a valid request.
    pub fn deadline(&self, limits: &PeerLimits, is_proven: bool) -> Option<(Instant, CloseReason)> {
        let reading = self.unread_since.map(|since| (since + limits.stalled, CloseReason::NotReading));
        let writing = if self.stage != Stage::Traffic {
            Some((self.began + limits.handshake, CloseReason::HandshakeTooSlow))
        } else if !self.takes_input(limits) {
            None
        } else if self.message.is_some() {
            Some((self.message_since + limits.message, CloseReason::Unfinished))
        } else if self.in_flight > 0 {
            None
        } else {
            let quiet = if is_proven { limits.idle } else { limits.first_request };
            Some((self.heard_at + self.ttl.unwrap_or(quiet), CloseReason::Silent))
        };
        reading.into_iter().chain(writing).min_by_key(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests;
