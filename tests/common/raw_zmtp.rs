//! Peers of the server that write every byte of ZMTP by themselves, right or wrong.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// Longer than any connection lasts that does something wrong.
const PATIENCE: Duration = Duration::from_secs(90);

pub struct RawPeer(pub TcpStream);

/// A greeting with this version and mechanism.
pub fn greeting(version: [u8; 2], mechanism: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 64];
    (bytes[0], bytes[9]) = (0xFF, 0x7F);
    bytes[10..12].copy_from_slice(&version);
    bytes[12..12 + mechanism.len()].copy_from_slice(mechanism);
    bytes
}

/// A frame with these flags that announces `length` in eight bytes, and has this body.
pub fn long_frame(flags: u8, length: u64, body: &[u8]) -> Vec<u8> {
    [&[flags | 2], &length.to_be_bytes()[..], body].concat()
}

pub fn ready(socket_type: &str, identity: &[u8]) -> Vec<u8> {
    let property = |name: &str, value: &[u8]| {
        [&[name.len() as u8], name.as_bytes(), &(value.len() as u32).to_be_bytes(), value].concat()
    };
    let identity = property("Identity", identity);
    let body = [b"\x05READY".to_vec(), property("Socket-Type", socket_type.as_bytes()), identity].concat();
    long_frame(4, body.len() as u64, &body)
}

/// A delimiter and one body.
pub fn message(body: &[u8]) -> Vec<u8> {
    [&[1, 0], &long_frame(0, body.len() as u64, body)[..]].concat()
}

impl RawPeer {
    pub fn connect(to: SocketAddr) -> RawPeer {
        let stream = TcpStream::connect(to).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        RawPeer(stream)
    }

    /// A DEALER after its handshake.
    pub fn dealer(to: SocketAddr, identity: &[u8]) -> RawPeer {
        let mut peer = RawPeer::connect(to);
        peer.say(&[greeting([3, 0], b"NULL"), ready("DEALER", identity)].concat());
        let mut reply = [0; 64 + 2 + 28];
        peer.0.read_exact(&mut reply).unwrap();
        assert!(reply.ends_with(b"ROUTER"), "{}", reply.escape_ascii());
        peer
    }

    /// Writes as much as the server takes before it closes.
    pub fn say(&mut self, bytes: &[u8]) {
        match self.0.write_all(bytes) {
            Err(error) if !is_reset(&error) => panic!("{error}"),
            _ => {}
        }
    }

    /// What comes until the server closes the connection.
    pub fn hear_the_end(mut self) -> Vec<u8> {
        let mut heard = Vec::new();
        match self.0.read_to_end(&mut heard) {
            Err(error) if !is_reset(&error) => panic!("the connection is still open: {error}"),
            _ => heard,
        }
    }

    /// Writes a byte whenever the server was silent for a second, until it closes.
    pub fn drip(mut self, bytes: &[u8]) {
        self.0.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        for byte in bytes {
            self.say(&[*byte]);
            match self.0.read(&mut [0; 256]) {
                Ok(0) => return,
                Err(error) if is_reset(&error) => return,
                _ => {}
            }
        }
        panic!("all {} bytes were taken", bytes.len());
    }

    pub fn stop_sending(&self) {
        self.0.shutdown(Shutdown::Write).unwrap();
    }

    /// The body of a message of a delimiter and a body.
    pub fn hear(&mut self) -> Vec<u8> {
        assert_eq!(self.hear_frame(), (1, Vec::new()), "a delimiter");
        let (flags, body) = self.hear_frame();
        assert_eq!(flags, 0);
        body
    }

    fn hear_frame(&mut self) -> (u8, Vec<u8>) {
        let mut byte = [0; 1];
        self.0.read_exact(&mut byte).unwrap();
        let [flags] = byte;
        let length = if flags & 2 == 0 {
            self.0.read_exact(&mut byte).unwrap();
            u64::from(byte[0])
        } else {
            let mut length = [0; 8];
            self.0.read_exact(&mut length).unwrap();
            u64::from_be_bytes(length)
        };
        let mut body = vec![0; length as usize];
        self.0.read_exact(&mut body).unwrap();
        (flags & !2, body)
    }
}

fn is_reset(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted)
}
