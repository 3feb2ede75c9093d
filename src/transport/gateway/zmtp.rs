//! ZMTP 3.x as bytes and events ([RFC 23](https://rfc.zeromq.org/spec/23/), [RFC 37](https://rfc.zeromq.org/spec/37/)).
//!
//! **Promise.** [`ZmtpParser::next`] finds the same events however the bytes are split, never panics, and keeps at most
//! [`COMMAND_MAX`] bytes. Bodies of messages are passed on as they come, never collected.
//! **Kept by.** A state for each part of the grammar. A length is compared before anything is kept for it.
//! **Not promised.** Limits of messages: a frame may announce up to 2^63-1 bytes here. [`super::session`] decides what is too much.
//!
//! ```text
//! greeting   FF, 8 octets of padding, 7F │ major, minor │ mechanism, 20 octets padded with 00 │ as-server │ 31 octets of filler
//! frame      flags │ length: 1 octet, or 8 in network order if LONG │ body
//! flags      1 MORE (not of commands) · 2 LONG · 4 COMMAND · the others must be 0
//! command    length of the name, name (letters), data
//! READY      properties: length of the name, name, length of the value (4 octets), value
//! PING       time to live in tenths of seconds (2 octets), context (up to 16 octets)      PONG   that context
//! ```
//!
//! The RFC's rules that are not checked: the padding and the filler, which mean nothing, and as-server, which means nothing with the
//! mechanism NULL.

use super::close_reason::CloseReason;
use bytes::{BufMut, BytesMut};

/// The maximum length of a command's body. READY carries a socket type, an identity of up to 255 bytes, and what a program adds.
pub const COMMAND_MAX: usize = 1024;
/// The maximum length of what a PING carries for its PONG.
const CONTEXT_MAX: usize = 16;
const GREETING: usize = 64;
/// The mechanism NULL, as a greeting names it.
const NULL: [u8; 20] = *b"NULL\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;

/// What bytes mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ZmtpEvent<'a> {
    /// A whole greeting that offers version 3 or later and the mechanism NULL.
    Greeting,
    /// A frame of a message begins.
    Frame(FrameHeader),
    /// The next part of its body; never empty.
    Body(&'a [u8]),
    /// The frame is complete; without `more` so is its message.
    End {
        more: bool,
    },
    Command(ZmtpCommand),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// More frames of the same message follow.
    pub more: bool,
    /// Of the body, in bytes; at most 2^63-1.
    pub length: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ZmtpCommand {
    /// `None`: none of the socket types that may talk to a ROUTER.
    Ready(Option<ClientType>),
    /// The peer gives up, and is about to close.
    Error,
    Ping {
        ttl_tenths: u16,
        context: PingContext,
    },
    Pong,
    /// SUBSCRIBE, or a command of a later version. It is not for a ROUTER.
    Other,
}

/// The socket types that may talk to a ROUTER.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientType {
    Req,
    Dealer,
    Router,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PingContext {
    bytes: [u8; CONTEXT_MAX],
    length: u8,
}

/// Finds the events in the bytes of one direction of a connection.
#[derive(Debug, Default)]
pub struct ZmtpParser {
    state: State,
    /// The bytes so far of a greeting, a header or a command's body.
    kept: Vec<u8>,
}

#[derive(Debug, Default, Clone, Copy)]
enum State {
    #[default]
    Greeting,
    Header,
    Body {
        more: bool,
        left: u64,
    },
    CommandBody {
        length: usize,
    },
}

impl ZmtpParser {
    /// For what follows a greeting.
    pub fn after_greeting() -> ZmtpParser {
        ZmtpParser { state: State::Header, kept: Vec::new() }
    }

    /// Whether the bytes so far end between two frames.
    pub fn is_between_frames(&self) -> bool {
        matches!(self.state, State::Header) && self.kept.is_empty()
    }

    /// How much of the body of the current frame is missing.
    pub fn missing(&self) -> u64 {
        match self.state {
            State::Body { left, .. } => left,
            _ => 0,
        }
    }

    /// Takes the bytes of the next event off the front of `input`, all of them if there is none yet. After an error the connection
    /// makes no more sense.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<ZmtpEvent<'a>>, CloseReason> {
        loop {
            match self.state {
                State::Greeting => {
                    while self.kept.len() < GREETING {
                        let Some(byte) = take_first(input) else { return Ok(None) };
                        self.kept.push(byte);
                        check_greeting(&self.kept)?;
                    }
                    self.goes_on(State::Header);
                    return Ok(Some(ZmtpEvent::Greeting));
                }
                State::Header => {
                    let header = loop {
                        let Some(byte) = take_first(input) else { return Ok(None) };
                        self.kept.push(byte);
                        if let Some(header) = read_header(&self.kept)? {
                            break header;
                        }
                    };
                    let is_command = self.kept[0] & COMMAND != 0;
                    if is_command {
                        let length =
                            usize::try_from(header.length).ok().filter(|length| *length <= COMMAND_MAX);
                        self.goes_on(State::CommandBody { length: length.ok_or(CloseReason::TooLarge)? });
                    } else {
                        self.goes_on(State::Body { more: header.more, left: header.length });
                        return Ok(Some(ZmtpEvent::Frame(header)));
                    }
                }
                State::Body { more, left: 0 } => {
                    self.goes_on(State::Header);
                    return Ok(Some(ZmtpEvent::End { more }));
                }
                State::Body { more, left } => {
                    let length = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                    if length == 0 {
                        return Ok(None);
                    }
                    let (body, rest) = input.split_at(length);
                    *input = rest;
                    self.state = State::Body { more, left: left - length as u64 };
                    return Ok(Some(ZmtpEvent::Body(body)));
                }
                State::CommandBody { length } => {
                    let (part, rest) = input.split_at((length - self.kept.len()).min(input.len()));
                    *input = rest;
                    self.kept.extend_from_slice(part);
                    if self.kept.len() < length {
                        return Ok(None);
                    }
                    let command = read_command(&self.kept)?;
                    self.goes_on(State::Header);
                    return Ok(Some(ZmtpEvent::Command(command)));
                }
            }
        }
    }

    fn goes_on(&mut self, state: State) {
        self.state = state;
        self.kept.clear();
        // Most connections are idle most of the time.
        self.kept.shrink_to(GREETING);
    }
}

fn take_first(input: &mut &[u8]) -> Option<u8> {
    let (first, rest) = input.split_first()?;
    *input = rest;
    Some(*first)
}

/// Refuses the beginning of a greeting as soon as it cannot become one.
fn check_greeting(bytes: &[u8]) -> Result<(), CloseReason> {
    match *bytes {
        // ZMTP 1: the length of an identity plus one, and the flags of a frame.
        [1..=0xFE, 0] => Err(CloseReason::OldZmtp),
        [1..=0xFE] | [0xFF, ..] if bytes.len() < 10 => Ok(()),
        // ZMTP 1 with an identity of 255 bytes or more has the flags of a frame here.
        [0xFF, .., 0] if bytes.len() == 10 => Err(CloseReason::OldZmtp),
        [0xFF, .., 0x7F] if bytes.len() == 10 => Ok(()),
        // ZMTP 2 announces itself as 1 or 2.
        [0xFF, .., 0..=2] if bytes.len() == 11 => Err(CloseReason::OldZmtp),
        [0xFF, ..] if bytes.len() == 32 && bytes[12..] != NULL => Err(CloseReason::MechanismUnsupported),
        [0xFF, ..] if bytes.len() > 10 => Ok(()),
        _ => Err(CloseReason::NotZmtp),
    }
}

/// `None`: it is not complete.
fn read_header(bytes: &[u8]) -> Result<Option<FrameHeader>, CloseReason> {
    let (flags, length) = bytes.split_first().map_or((0, bytes), |(flags, length)| (*flags, length));
    if flags & !(MORE | LONG | COMMAND) != 0 || flags & (MORE | COMMAND) == MORE | COMMAND {
        return Err(CloseReason::FrameInvalid);
    }
    let length = match (flags & LONG, length) {
        (0, [length]) => u64::from(*length),
        (LONG, length) => match <[u8; 8]>::try_from(length) {
            Ok(length) => u64::from_be_bytes(length),
            Err(_) => return Ok(None),
        },
        _ => return Ok(None),
    };
    if length > i64::MAX as u64 {
        return Err(CloseReason::FrameInvalid);
    }
    Ok(Some(FrameHeader { more: flags & MORE != 0, length }))
}

fn read_command(body: &[u8]) -> Result<ZmtpCommand, CloseReason> {
    let (name, data) = split_sized(body).ok_or(CloseReason::FrameInvalid)?;
    if name.is_empty() || !name.iter().all(u8::is_ascii_alphabetic) {
        return Err(CloseReason::FrameInvalid);
    }
    match name {
        b"READY" => read_ready(data).map(ZmtpCommand::Ready).ok_or(CloseReason::FrameInvalid),
        b"ERROR" => Ok(ZmtpCommand::Error),
        b"PING" => read_ping(data).ok_or(CloseReason::FrameInvalid),
        b"PONG" => Ok(ZmtpCommand::Pong),
        _ => Ok(ZmtpCommand::Other),
    }
}

/// The part that the first byte gives the length of, and the rest.
fn split_sized(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(*length))
}

/// The socket type. `None`: these are not properties.
fn read_ready(mut properties: &[u8]) -> Option<Option<ClientType>> {
    let mut socket_type = None;
    while !properties.is_empty() {
        let (name, rest) = split_sized(properties)?;
        let is_name_char = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.+".contains(byte);
        if name.is_empty() || !name.iter().all(is_name_char) {
            return None;
        }
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (value, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        properties = rest;
        if name.eq_ignore_ascii_case(b"Socket-Type") {
            socket_type = match value {
                b"REQ" => Some(ClientType::Req),
                b"DEALER" => Some(ClientType::Dealer),
                b"ROUTER" => Some(ClientType::Router),
                _ => None,
            };
        } else if name.eq_ignore_ascii_case(b"Identity") && value.len() > 255 {
            return None;
        }
    }
    Some(socket_type)
}

fn read_ping(data: &[u8]) -> Option<ZmtpCommand> {
    let (ttl, context) = data.split_first_chunk::<2>()?;
    let mut bytes = [0; CONTEXT_MAX];
    bytes.get_mut(..context.len())?.copy_from_slice(context);
    let context = PingContext { bytes, length: context.len() as u8 };
    Some(ZmtpCommand::Ping { ttl_tenths: u16::from_be_bytes(*ttl), context })
}

/// A greeting with version 3.1 and the mechanism NULL.
pub fn greeting() -> [u8; GREETING] {
    let mut bytes = [0; GREETING];
    bytes[0] = 0xFF;
    bytes[9..12].copy_from_slice(&[0x7F, 3, 1]);
    bytes[12..32].copy_from_slice(&NULL);
    bytes
}

/// Appends the header of a frame of a message.
pub fn put_header(header: FrameHeader, to: &mut BytesMut) {
    put_flags_and_length(if header.more { MORE } else { 0 }, header.length, to);
}

/// Appends READY, as a ROUTER sends it.
pub fn put_ready_of_router(to: &mut BytesMut) {
    put_command(b"READY", &[&property(b"Socket-Type", b"ROUTER")], to);
}

/// Appends READY, as a DEALER with this identity sends it.
pub fn put_ready_of_dealer(identity: &[u8], to: &mut BytesMut) {
    put_command(b"READY", &[&property(b"Socket-Type", b"DEALER"), &property(b"Identity", identity)], to);
}

/// Appends ERROR with a reason that the peer may log: printable ASCII, at most 255 characters.
pub fn put_error(reason: &str, to: &mut BytesMut) {
    put_command(b"ERROR", &[&[reason.len() as u8], reason.as_bytes()], to);
}

/// Appends the answer to a PING.
pub fn put_pong(context: &PingContext, to: &mut BytesMut) {
    put_command(b"PONG", &[&context.bytes[..usize::from(context.length)]], to);
}

fn property(name: &[u8], value: &[u8]) -> Vec<u8> {
    [&[name.len() as u8], name, &(value.len() as u32).to_be_bytes(), value].concat()
}

fn put_command(name: &[u8], data: &[&[u8]], to: &mut BytesMut) {
    let length = 1 + name.len() + data.iter().map(|part| part.len()).sum::<usize>();
    put_flags_and_length(COMMAND, length as u64, to);
    to.put_u8(name.len() as u8);
    to.put_slice(name);
    data.iter().for_each(|part| to.put_slice(part));
}

fn put_flags_and_length(flags: u8, length: u64, to: &mut BytesMut) {
    match u8::try_from(length) {
        Ok(length) => to.put_slice(&[flags, length]),
        Err(_) => {
            to.put_u8(flags | LONG);
            to.put_u64(length);
        }
    }
}

#[cfg(test)]
mod tests;
