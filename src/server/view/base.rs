//! The base: a compacted ledger has lost plates on purpose, so the views can no longer be rebuilt from its first records. It keeps
//! the views at the position of its compaction beside them; rebuilding begins there.
//!
//! **Promise.** A base that can be read gives the views at its position, whatever version of the views continues from there. A
//! base that cannot be read, or whose form this program does not know, is refused: no record is applied on top of it.
//! **Kept by.** It has a form of its own, [`FORM`], which says what its keys and values are; the position in it is a number, and not the
//! views' own note of it. Each record says its form and carries a checksum, and the first one says how many there are and what
//! they are together.
//! **Not promised.** That a later form of the values is understood. A change of a value or key that [`super`] lists raises
//! [`FORM`] and says what becomes of a base of the form before; `the_form_of_a_base_is_this` fails until then.
//!
//! | key | value |
//! | --- | --- |
//! | `b` | a record of the [`Summary`], written last |
//! | `b` + n (u32) | a record of the n-th piece of the entries, from 0 |
//!
//! A record is `fogb`, the form (u8), a checksum (the first 8 bytes of the BLAKE3 hash of the key and what follows), and bytes. The
//! entries are those of the views, without the position, mostly in the order of their keys: the length of the key (u16), the key, the
//! length of the value (u16), the value; cut into pieces of at most [`PIECE`] bytes.

use super::billing::forgettings::without_seed;
use super::codec::{decode, encode};
use super::pages::{Readings, all_visits, is_token};
use super::written::{KEYS, POSITION, position_value, written_position};
use crate::messaging::Digest;
use crate::server::record::checksum;
use crate::store::{BATCH_MAX, Batch, Store, StoreError};
use serde::{Deserialize, Serialize};

/// All keys of the base: from here on, and to the second (exclusive).
pub const BASE: (&[u8], &[u8]) = (b"b", b"c");

const FORM: u8 = 3;
/// The same without [`curves`](super::curves), those of whose garages begin with the first event after the base, and without the
/// totals of days ([`charges::write_days`](super::charges::write_days) computes them).
const WITHOUT_CURVES: u8 = 2;
const MAGIC: &[u8; 4] = b"fogb";
const PIECE: usize = 5 * 1024;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Summary {
    position: u64,
    pieces: u32,
    digest: Digest,
}

fn piece_key(n: u32) -> Vec<u8> {
    [BASE.0, &n.to_be_bytes()].concat()
}

fn record(key: &[u8], bytes: &[u8]) -> Vec<u8> {
    [&MAGIC[..], &[FORM], &checksum(&[key, bytes].concat()), bytes].concat()
}

fn read<'a>(key: &[u8], record: &'a [u8]) -> Result<&'a [u8], StoreError> {
    let (form, rest) = match record.strip_prefix(MAGIC).and_then(<[u8]>::split_first) {
        Some(found) => found,
        None => {
            return Err(unreadable("it was written by a version of fogpost that was never released".into()));
        }
    };
    if ![FORM, WITHOUT_CURVES].contains(form) {
        return Err(unreadable(format!(
            "it has form {form}, this program knows form {FORM}. Run the version of fogpost that wrote it"
        )));
    }
    match rest.split_first_chunk() {
        Some((sum, bytes)) if *sum == checksum(&[key, bytes].concat()) => Ok(bytes),
        _ => Err(unreadable("a checksum does not match".into())),
    }
}

fn unreadable(reason: String) -> StoreError {
    StoreError::Damaged {
        place: "the base of this compacted ledger".into(),
        reason: format!(
            "{reason}; without it the views cannot be rebuilt, and a backup of the ledger has it, too"
        ),
    }
}

/// Puts the views of the base of a ledger into `store`. Returns false where the ledger has no base.
pub fn copy_into(ledger: &Store, store: &Store) -> Result<bool, StoreError> {
    match ledger.get(BASE.0)? {
        Some(summary) => {
            let summary = read(BASE.0, &summary)?;
            let summary = postcard::from_bytes(summary).map_err(|error| unreadable(error.to_string()))?;
            copy(ledger, &summary, store).map(|()| true)
        }
        None if ledger.range(BASE.0, BASE.1).next().is_some() => {
            Err(unreadable("its first record is missing".into()))
        }
        None => Ok(false),
    }
}

/// Makes the written views of `views` the base of `store`, and its written views; `keep` may leave out or change a value. The
/// entries of `added` come last, whatever their keys.
pub fn found<'e>(
    views: &Store,
    store: &Store,
    keep: impl Fn(&[u8], Vec<u8>) -> Result<Option<Vec<u8>>, StoreError>,
    added: impl Iterator<Item = (&'e [u8], &'e [u8])>,
) -> Result<(), StoreError> {
    let Some(position) = written_position(views)? else { return Ok(()) };
    let mut pieces = Pieces { store, entries: Vec::new(), hash: blake3::Hasher::new(), count: 0 };
    let mut batch = Batch::default();
    for entry in views.range(KEYS.0, KEYS.1) {
        let (key, value) = entry?;
        if key == POSITION {
            continue;
        }
        let Some(value) = keep(&key, value)? else { continue };
        pieces.add(&key, &value)?;
        batch.put(key, value);
        if batch.len() == BATCH_MAX / 2 {
            store.apply(&std::mem::take(&mut batch))?;
        }
    }
    for (key, value) in added {
        pieces.add(key, value)?;
        batch.put(key.to_vec(), value.to_vec());
        if batch.len() == BATCH_MAX / 2 {
            store.apply(&std::mem::take(&mut batch))?;
        }
    }
    store.apply(&batch)?;
    store.put(POSITION, &position_value(position))?;
    let summary = pieces.finish(position)?;
    let summary = postcard::to_stdvec(&summary).expect("it always encodes");
    store.put(BASE.0, &record(BASE.0, &summary))
}

struct Pieces<'a> {
    store: &'a Store,
    entries: Vec<u8>,
    hash: blake3::Hasher,
    count: u32,
}

impl Pieces<'_> {
    fn add(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        for part in [key, value] {
            let length =
                u16::try_from(part.len()).map_err(|_| StoreError::ValueTooLong { bytes: part.len() })?;
            self.entries.extend(length.to_be_bytes());
            self.entries.extend(part);
        }
        while self.entries.len() >= PIECE {
            let rest = self.entries.split_off(PIECE);
            self.write()?;
            self.entries = rest;
        }
        Ok(())
    }

    fn write(&mut self) -> Result<(), StoreError> {
        let key = piece_key(self.count);
        self.hash.update(&self.entries);
        self.store.put(&key, &record(&key, &self.entries))?;
        self.count += 1;
        Ok(())
    }

    fn finish(mut self, position: u64) -> Result<Summary, StoreError> {
        if !self.entries.is_empty() {
            self.write()?;
        }
        let digest = *self.hash.finalize().as_bytes().first_chunk().expect("a hash is longer");
        Ok(Summary { position, pieces: self.count, digest: Digest::from_bytes(digest) })
    }
}

/// Copies the base into the views, their position last: until then a crash leaves views that do not count.
fn copy(from: &Store, summary: &Summary, to: &Store) -> Result<(), StoreError> {
    let mut hash = blake3::Hasher::new();
    let mut entries: Vec<u8> = Vec::new();
    let mut batch = Batch::default();
    for n in 0..summary.pieces {
        let key = piece_key(n);
        let piece = from.get(&key)?.ok_or_else(|| unreadable(format!("its piece {n} is missing")))?;
        let piece = read(&key, &piece)?;
        hash.update(piece);
        entries.extend(piece);
        let mut taken = 0;
        while let Some((key, value, length)) = first_entry(&entries[taken..]) {
            batch.put(key, value);
            taken += length;
            if batch.len() == BATCH_MAX / 2 {
                to.apply(&std::mem::take(&mut batch))?;
            }
        }
        entries.drain(..taken);
    }
    if !entries.is_empty() || hash.finalize().as_bytes()[..Digest::LEN] != *summary.digest.as_bytes() {
        return Err(unreadable("its pieces are not those that it says".into()));
    }
    to.apply(&batch)?;
    to.put(POSITION, &position_value(summary.position))
}

/// The first entry in these bytes, and how long it is; none when its end is in the next piece.
fn first_entry(bytes: &[u8]) -> Option<(&[u8], &[u8], usize)> {
    fn part(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
        let (length, rest) = bytes.split_first_chunk()?;
        rest.split_at_checked(u16::from_be_bytes(*length).into())
    }
    let (key, rest) = part(bytes)?;
    let (value, rest) = part(rest)?;
    Some((key, value, bytes.len() - rest.len()))
}

/// Calls `tell` with the stream and the sequence of each event of a visit whose plate a token replaced, as the views are written.
pub fn forgotten(views: &Store, tell: &mut dyn FnMut(u32, u64)) -> Result<(), StoreError> {
    for found in all_visits(views) {
        let (_, (plate, visit)) = found?;
        for (_, passage) in visit.events().filter(|(_, its)| is_token(&plate) && !its.is_made()) {
            tell(passage.stream(), passage.sequence);
        }
    }
    Ok(())
}

/// A value of the views without the seed of tokens.
pub fn without_seeds(key: &[u8], value: Vec<u8>) -> Result<Vec<u8>, StoreError> {
    match key.starts_with(b"vbs") {
        true => without_seed(key, value),
        false => Ok(value),
    }
}

/// A value of the views without the better readings for which `forgotten`, given the position and the place of their event,
/// returns true. `None`: nothing is left of the value.
pub fn without_readings(
    key: &[u8],
    value: Vec<u8>,
    forgotten: impl Fn(u64, u8) -> Result<bool, StoreError>,
) -> Result<Option<Vec<u8>>, StoreError> {
    let Some(position) = key.strip_prefix(b"vr").and_then(|place| place.first_chunk()) else {
        return Ok(Some(value));
    };
    let position = u64::from_be_bytes(*position);
    let mut readings: Readings = decode(key, &value)?;
    for index in readings.keys().copied().collect::<Vec<u8>>() {
        if forgotten(position, index)? {
            readings.remove(&index);
        }
    }
    Ok((!readings.is_empty()).then(|| encode(&readings)))
}

#[cfg(test)]
mod tests {
    use super::super::curves::CurveUnit;
    use super::super::curves::read::WrittenCurve;
    use super::super::tests::{apply, apply_at, apply_ledger, event, page_after, world};
    use super::super::written::{VERSION, discard};
    use super::*;
    use crate::messaging::SiteName;
    use crate::server::applying::{catch_up, open_view};
    use crate::server::ledger::Ledger;
    use crate::server::record::Command;
    use crate::server::view::View;

    const TARIFFS: &str = r#"
        [[tariff]]
        name = "centre"
        garages = ["*"]
        currency = "EUR"
        time_zone = "Europe/Berlin"
        valid_from = 2020-01-01
        vat_reason = "a test"
        unit_minutes = 60
        bands = [{ days = "all", from = "00:00", to = "24:00", per_unit = 250 }]
    "#;

    /// A ledger with a base at its end, as a compaction leaves it, and the views there.
    fn compacted() -> (Store, Ledger, View) {
        let (_, store, ledger) = world();
        let bytes = TARIFFS.as_bytes().to_vec();
        let digest = Digest::of(&bytes);
        ledger.record_order("me", vec![bytes], Command::Tariffs { pieces: 1, digest }, 5).unwrap();
        let passed = |kind: &str, plate: &str| {
            event(&format!(r#"{{"kind":"{kind}","plate":"{plate}","at":"2026-11-02T08:00:00Z"}}"#))
        };
        let events: Vec<_> = (0..60)
            .map(|n| passed(if n % 3 == 1 { "exit" } else { "entry" }, &format!("AB{}", n / 3)))
            .collect();
        apply(&ledger, "a", vec![page_after(1, &events)]);
        let mut view = View::default();
        let mut changes = apply_ledger(&mut view, &ledger, &store);
        view.save(&mut changes).unwrap();
        found(&store, &store, |_, value| Ok(Some(value)), std::iter::empty()).unwrap();
        (store, ledger, view)
    }

    fn occupied(view: &View) -> i64 {
        view.garages[&SiteName::new("a").unwrap()].occupancy.occupied
    }

    /// A release with another version of the views took the base for views at position 0, and applied everything again on top of
    /// it: every car was counted twice, and `verify` agreed.
    #[test]
    fn views_of_another_version_begin_at_the_position_of_the_base() {
        let (store, ledger, before) = compacted();
        for version in [VERSION + 1, VERSION - 1, 0] {
            store.put(POSITION, &[&[version][..], &before.position.to_be_bytes()].concat()).unwrap();
            let mut view = open_view(&ledger).unwrap();
            assert_eq!(view.position, before.position);
            catch_up(&ledger, &mut view).unwrap();
            assert_eq!((&view, occupied(&view)), (&before, 20));
        }
        apply(&ledger, "a", vec![page_after(61, &[event(r#"{"kind":"entry","plate":null}"#)])]);
        let mut view = open_view(&ledger).unwrap();
        catch_up(&ledger, &mut view).unwrap();
        assert_eq!(occupied(&view), 21);
    }

    #[test]
    fn a_base_of_another_form_or_with_damage_is_refused_and_says_why() {
        let (store, ledger, _) = compacted();
        discard(&store).unwrap();
        let records: Vec<_> = store.range(BASE.0, BASE.1).map(Result::unwrap).collect();
        assert!(records.len() > 2, "a summary and pieces");
        let refused = |reason: &str| {
            let error = open_view(&ledger).unwrap_err().to_string();
            assert!(error.contains("the base of this compacted ledger") && error.contains(reason), "{error}");
        };
        for (key, sound) in &records {
            for (place, reason) in
                [(0, "never released"), (4, "form"), (9, "checksum"), (sound.len() - 1, "checksum")]
            {
                let mut damaged = sound.clone();
                damaged[place] ^= 0x10;
                store.put(key, &damaged).unwrap();
                refused(reason);
            }
            store.remove(key).unwrap();
            refused("missing");
            store.put(key, sound).unwrap();
        }
        let (swapped, other) = (&records[1], &records[2]);
        store.put(&swapped.0, &other.1).unwrap();
        refused("checksum");
        store.put(&swapped.0, &swapped.1).unwrap();
        open_view(&ledger).unwrap();
    }

    /// Form 2 has no curves. They cannot be rebuilt from events whose times are before the base, so they begin after it.
    #[test]
    fn a_base_without_curves_is_read_and_they_begin_after_it() {
        let (store, ledger, before) = compacted();
        let curves: Vec<_> = store.range(b"vl", b"vm").map(|entry| entry.unwrap().0).collect();
        assert!(!curves.is_empty());
        let without = |key: &[u8], value| Ok((!key.starts_with(b"vl")).then_some(value));
        found(&store, &store, without, std::iter::empty()).unwrap();
        for (key, mut record) in store.range(BASE.0, BASE.1).map(Result::unwrap).collect::<Vec<_>>() {
            record[4] = WITHOUT_CURVES;
            store.put(&key, &record).unwrap();
        }
        discard(&store).unwrap();
        let later = |at: &str| event(&format!(r#"{{"kind":"entry","plate":null,"at":"{at}"}}"#));
        let at_ms = 1_795_867_200_000;
        let events = [later("2026-11-28T10:00:00Z"), later("2026-11-28T11:00:00Z")];
        apply_at(&ledger, "a", vec![page_after(61, &events)], at_ms);
        let mut view = open_view(&ledger).unwrap();
        catch_up(&ledger, &mut view).unwrap();
        assert_eq!(occupied(&view), occupied(&before) + 2);
        let curve = WrittenCurve::read(&store, 0, CurveUnit::Hour).unwrap().unwrap();
        let counts: Vec<_> =
            curve.points(at_ms, 4, None).into_iter().map(|its| its.map(|its| its.occupied)).collect();
        assert_eq!(counts, [None, Some(21), Some(22), None]);
    }

    /// The ledgers that were compacted keep these bytes for good. When this fails, a value or a key of the views has another form: raise
    /// [`FORM`], write what becomes of a base of the form before, and put the new digest here.
    #[test]
    fn the_form_of_a_base_is_this() {
        let (store, ..) = compacted();
        let summary = store.get(BASE.0).unwrap().unwrap();
        let summary: Summary = postcard::from_bytes(read(BASE.0, &summary).unwrap()).unwrap();
        assert_eq!(format!("{:?} {}", summary.digest, summary.pieces), "5cbcd047e00ab49e5f96b1e00ac12a83 2");
    }
}
