//! What the disk gives back. Checksums are made here: a fuzzer does not find them, and hostile records would have them.

use super::{comes_back, event, kind, page};
use crate::parking::document::{
    DocumentHead, FileError, ReadDocument, Rendering, decode_lines, encode_lines, render,
};
use crate::parking::payment;
use crate::parking::register::{Register, RegisterFact};
use crate::server::record::documents::{DocumentNote, lines_of, unpack_lines};
use crate::server::record::{Record, VERSION};

/// The position that a record is read at: a loss of 1 to 4000 can stand there.
const POSITION: u64 = 4001;

/// Records of the ledger and what is in them, pages of an outbox, documents.
pub fn stored(input: &[u8]) -> bool {
    let Some((kind, bytes)) = kind(input, 8) else { return false };
    match kind {
        0 => record(bytes),
        1 => page(bytes),
        2 => event(bytes),
        3 => comes_back(bytes, |bytes| DocumentNote::from_bytes(bytes).ok_or(()), DocumentNote::to_bytes),
        4 => {
            let packed = unpack_lines(bytes).is_ok();
            comes_back(bytes, decode_lines, |lines| encode_lines(lines.iter().cloned())) || packed
        }
        5 => document(bytes),
        6 => comes_back(bytes, payment::from_bytes, |payments| payment::to_bytes(payments)),
        _ => {
            let Ok(facts) = postcard::from_bytes::<Vec<RegisterFact>>(bytes) else { return false };
            let mut register = Register::default();
            facts.iter().for_each(|fact| _ = register.apply(fact));
            true
        }
    }
}

fn record(body: &[u8]) -> bool {
    let sum = blake3::Hasher::new().update(&[VERSION]).update(body).finalize();
    let bytes = [&[VERSION], &sum.as_bytes()[..8], body].concat();
    let record = Record::decode(POSITION, &bytes);
    if let Err(error) = &record {
        assert!(
            !error.to_string().contains("checksum"),
            "this target does not reach what it is for: {error}"
        );
    }
    comes_back(&bytes, |bytes| Record::decode(POSITION, bytes), Record::encode)
}

/// A file of a document, which anybody may hand to an operator for import.
fn document(body: &[u8]) -> bool {
    let file = [body, blake3::hash(body).as_bytes()].concat();
    let document = match ReadDocument::from_bytes(&file) {
        Err(FileError::Damaged) => panic!("this target does not reach what it is for"),
        Err(_) => return false,
        Ok(document) => document,
    };
    DocumentNote::of(&document.head, &file);
    comes_back(&document.head.to_bytes(), DocumentHead::from_bytes, DocumentHead::to_bytes);
    for rendering in Rendering::ALL {
        let Ok(shown) = render(rendering, &document.head, lines_of(&document.pieces), Vec::new()) else {
            continue;
        };
        assert!(str::from_utf8(&shown).is_ok());
    }
    lines_of(&document.pieces).filter_map(Result::ok).for_each(|line| _ = line.without_plate());
    true
}
