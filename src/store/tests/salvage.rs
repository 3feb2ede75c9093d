use super::*;
use proptest::prelude::*;
use std::os::unix::fs::FileExt;

const VALUES: u32 = 400;

fn value(n: u32) -> Vec<u8> {
    (0..1500u32).map(|at| (at.wrapping_mul(n | 1) >> 3) as u8).collect()
}

fn key(n: u32) -> Vec<u8> {
    [b"p", &n.to_be_bytes()[..]].concat()
}

fn all(found: &Salvaged, new: &Store) -> Result<(), StoreError> {
    for entry in found.range(&[1], &[u8::MAX]) {
        let SalvagedValue { key, value, .. } = entry?;
        new.put(&key, &value)?;
    }
    Ok(())
}

fn open(dir: &Path) -> Result<OpenedStore, StoreOpenError> {
    open_store(dir, Purpose::Edge, Some(0), &all)
}

/// A data directory with values under `key(0)` to `key(VALUES - 1)`, written over three runs, some of them twice.
fn filled() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for run in 0..3 {
        let store = open(dir.path()).unwrap().store;
        for n in (0..VALUES).filter(|n| n % 3 == run || n % 7 == run) {
            store.put(&key(n), &value(n)).unwrap();
            if n % 5 == 0 {
                store.flush().unwrap();
            }
        }
        store.flush().unwrap();
    }
    dir
}

fn copy_of(dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    let store = copy.path().join(STORE);
    fs::create_dir(&store).unwrap();
    for entry in fs::read_dir(dir.join(STORE)).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), store.join(entry.file_name())).unwrap();
        }
    }
    copy
}

fn log(dir: &Path) -> File {
    File::options().read(true).write(true).open(dir.join(STORE).join(LOG_FILE)).unwrap()
}

/// How many values are missing from a directory that was damaged, after it opened by itself and was salvaged when something of
/// it could not be read.
fn missing(dir: &Path) -> u32 {
    let read = |store: &Store| -> Result<u32, StoreError> {
        let mut missing = 0;
        for n in 0..VALUES {
            match store.get(&key(n))? {
                Some(found) => assert_eq!(found, value(n), "value {n} is another one"),
                None => missing += 1,
            }
        }
        Ok(missing)
    };
    let opened = open(dir).unwrap();
    match read(&opened.store) {
        Ok(0) => 0,
        first => {
            assert!(first.is_err() || opened.condition == StoreCondition::Salvaged || first.unwrap() > 0);
            drop(opened);
            request(dir).unwrap();
            let opened = open(dir).unwrap();
            let missing = read(&opened.store).expect("a store that was salvaged can be read");
            drop(opened);
            assert_eq!(read(&open(dir).unwrap().store).unwrap(), missing, "and it stays as it is");
            missing
        }
    }
}

#[test]
fn a_flipped_byte_costs_one_value_at_most() {
    let dir = filled();
    let length = log(dir.path()).metadata().unwrap().len();
    let mut worst = 0;
    for flip in 0..scaled(60, 2000) {
        let copy = copy_of(dir.path());
        // Spread over the file, by the golden ratio.
        let at = ((flip as f64 * 0.618_033_988_75).fract() * length as f64) as u64;
        let mut byte = [0];
        log(copy.path()).read_exact_at(&mut byte, at).unwrap();
        log(copy.path()).write_all_at(&[byte[0] ^ 0xFF], at).unwrap();
        let missing = missing(copy.path());
        assert!(missing <= 1, "{missing} values are missing after a flip at {at}");
        worst = worst.max(missing);
    }
    println!("at most {worst} values of {VALUES} lost for a flipped byte");
}

#[test]
fn a_zeroed_block_costs_what_stood_in_it() {
    const BLOCK: u64 = 4096;
    let dir = filled();
    let blocks = log(dir.path()).metadata().unwrap().len() / BLOCK;
    let step = (blocks as usize / scaled(40, usize::MAX)).max(1);
    for block in (0..blocks).step_by(step) {
        let copy = copy_of(dir.path());
        log(copy.path()).write_all_at(&[0; BLOCK as usize], block * BLOCK).unwrap();
        let missing = missing(copy.path());
        // A value is 1,500 bytes long: four may touch a block.
        assert!(missing <= 4, "{missing} values are missing after block {block} was zeroed");
    }
}

/// Only the values behind the cut may be missing; what was there before is not.
#[test]
fn a_log_that_was_cut_short_gives_what_is_left() {
    let dir = filled();
    let id = Marker::read(&dir.path().join(STORE)).unwrap().unwrap().salvageable().unwrap();
    let whole = Salvaged::scan(&dir.path().join(STORE), id, Boot::Same).unwrap();
    let length = log(dir.path()).metadata().unwrap().len();
    let cuts = scaled(20, 400) as u64;
    for cut in (1..cuts).map(|n| n * length / cuts) {
        let copy = copy_of(dir.path());
        log(copy.path()).set_len(cut).unwrap();
        let left = (0..VALUES).filter(|n| {
            whole.versions(&[key(*n)]).is_ok()
                && whole.places.get(&key(*n)[..]).is_some_and(|place| place.at + FRAME_MAX as u64 <= cut)
        });
        let left = left.count() as u32;
        assert!(VALUES - missing(copy.path()) >= left, "cut at {cut}: {left} values stand before it");
    }
}

#[test]
fn a_lost_log_is_refused_and_stays_as_it_is() {
    let dir = filled();
    fs::remove_file(dir.path().join(STORE).join(LOG_FILE)).unwrap();
    for _ in 0..2 {
        assert!(matches!(open(dir.path()), Err(StoreOpenError::Damaged { .. })));
    }
    assert!(
        fs::read_dir(dir.path())
            .unwrap()
            .all(|entry| { !entry.unwrap().file_name().to_string_lossy().contains("damaged") })
    );
}

#[test]
fn the_damaged_store_is_kept_aside_under_a_name_with_the_date() {
    let dir = filled();
    request(dir.path()).unwrap();
    let OpenedStore { condition, store, .. } = open(dir.path()).unwrap();
    assert_eq!(condition, StoreCondition::Salvaged);
    drop(store);
    assert_eq!(open(dir.path()).unwrap().condition, StoreCondition::Opened, "it is done once");
    #[expect(clippy::disallowed_methods, reason = "the name is made from the same clock")]
    let today = jiff::Timestamp::now().strftime("%Y-%m-").to_string();
    let names = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let kept: Vec<String> = names
        .map(|name| name.to_string_lossy().into_owned())
        .filter(|name| name.starts_with("store.damaged-"))
        .collect();
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert!(kept[0].contains(&today), "{kept:?}");
}

/// A crash between any two steps of putting the new store in the place of the old one.
#[test]
fn a_crash_while_stores_are_swapped_leaves_one_that_is_whole() {
    for step in 0..4 {
        let dir = filled();
        let (store, new) = (dir.path().join(STORE), dir.path().join(NEW));
        let id = Marker::read(&store).unwrap().unwrap().salvageable().unwrap();
        let found = Salvaged::scan(&store, id, Boot::Same).unwrap();
        let room = DiskRoom::of(dir.path(), Some(0));
        let target = Store::open_after(&new, Purpose::Edge, &room, found.next_opening()).unwrap();
        all(&found, &target).unwrap();
        drop(target);
        request(dir.path()).unwrap();
        if step >= 1 {
            File::create(new.join(WHOLE)).unwrap();
        }
        if step >= 2 {
            fs::rename(&store, aside_name(dir.path())).unwrap();
        }
        if step >= 3 {
            fs::rename(&new, &store).unwrap();
        }
        assert_eq!(missing(dir.path()), 0, "after step {step}");
        assert!(!dir.path().join(REQUEST).exists());
    }
}

/// A producer chooses what stands in a value: one that looks like a frame must not be taken for a record.
#[test]
fn a_frame_within_a_value_is_not_found() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap().store;
    let id = Marker::read(&dir.path().join(STORE)).unwrap().unwrap().salvageable().unwrap();
    let forged = id.frames().encode(Stamp(u64::MAX), b"forged", b"value");
    store.put(b"p", &[b"before", &forged[..], b"behind"].concat()).unwrap();
    store.flush().unwrap();
    drop(store);
    let found = Salvaged::scan(&dir.path().join(STORE), id, Boot::Same).unwrap();
    assert!(found.get(b"p").unwrap().is_some());
    assert_eq!(found.get(b"forged").unwrap(), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(scaled(30, 500) as u32))]

    /// Of each key the value that was written last is found, wherever sled moved it.
    #[test]
    fn the_newest_value_of_each_key_is_found(
        writes in prop::collection::vec((0u8..40, 0usize..4000), 1..200),
        runs in 1usize..4,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut newest = BTreeMap::new();
        for run in writes.chunks(writes.len().div_ceil(runs)) {
            let store = open(dir.path()).unwrap().store;
            for (n, (key, length)) in run.iter().enumerate() {
                let value = [&(n as u32).to_be_bytes()[..], &vec![*key; *length]].concat();
                store.put(&[b'p', *key], &value).unwrap();
                newest.insert(vec![b'p', *key], value);
            }
            store.flush().unwrap();
        }
        let store = dir.path().join(STORE);
        let id = Marker::read(&store).unwrap().unwrap().salvageable().unwrap();
        let found = Salvaged::scan(&store, id, Boot::Same).unwrap();
        let found: BTreeMap<_, _> =
            found.range(b"p", b"q").map(|found| found.map(|found| (found.key, found.value)).unwrap()).collect();
        prop_assert_eq!(found, newest);
    }
}

/// More cases with `./test --long`.
fn scaled(usual: usize, long: usize) -> usize {
    if std::env::var("FOGPOST_TEST_SCALE").as_deref() == Ok("long") { long } else { usual }
}
