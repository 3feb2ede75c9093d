use super::simulated::Disk;
use super::*;
use std::fs;

#[test]
fn flushes_pass_through_the_write_barrier() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Purpose::Edge).unwrap();
    let before = barrier::calls();
    store.put(b"k", b"v").unwrap();
    store.flush().unwrap();
    assert!(barrier::calls() > before);
}

#[test]
fn a_value_above_the_limit_is_refused_and_nothing_is_written() {
    let store = Store::on(Disk::default());
    let long = vec![7; VALUE_MAX + 1];
    assert!(matches!(
        store.put(b"k", &long),
        Err(StoreError::ValueTooLong { bytes }) if bytes == VALUE_MAX + 1
    ));
    let mut batch = Batch::default();
    batch.put(*b"a", *b"short");
    batch.put(*b"b", long);
    assert!(matches!(store.apply(&batch), Err(StoreError::ValueTooLong { .. })));
    assert_eq!(store.get(b"a").unwrap(), None);
    assert_eq!(store.get(b"k").unwrap(), None);
}

#[test]
fn a_batch_above_the_limit_is_refused_and_nothing_is_written() {
    let store = Store::on(Disk::default());
    let mut batch = Batch::default();
    for n in 0..=BATCH_MAX {
        batch.put(n.to_be_bytes(), *b"v");
    }
    assert!(matches!(store.apply(&batch), Err(StoreError::BatchTooLong { .. })));
    assert_eq!(store.get(&0usize.to_be_bytes()).unwrap(), None);
}

#[test]
fn after_a_failed_flush_nothing_more_is_accepted() {
    let disk = Disk::default();
    let store = Store::on(disk.clone());
    store.put(b"a", b"1").unwrap();
    disk.cut_power_after(0);
    assert!(matches!(store.flush(), Err(StoreError::Disk(_))));
    disk.power_on(0); // the disk is well again, but this store no longer knows what it holds
    assert!(matches!(store.put(b"b", b"2"), Err(StoreError::Poisoned { .. })));
    assert!(matches!(store.flush(), Err(StoreError::Poisoned { .. })));
}

#[test]
fn a_half_made_snapshot_of_a_crash_does_not_stop_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Purpose::Edge).unwrap();
    store.put(b"k", b"v").unwrap();
    store.flush().unwrap();
    drop(store);
    let left_over = dir.path().join("snap.00000000000AAAAA.generating");
    fs::write(&left_over, b"half").unwrap();
    let store = Store::open(dir.path(), Purpose::Edge).unwrap();
    assert_eq!(store.get(b"k").unwrap().as_deref(), Some(&b"v"[..]));
    assert!(!left_over.exists());
}

#[test]
fn a_newer_format_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Purpose::Edge).unwrap();
    let mut value = (FORMAT + 1).to_be_bytes().to_vec();
    value.extend_from_slice(b"edge");
    store.put(b"\0format", &value).unwrap();
    store.flush().unwrap();
    drop(store);
    for _ in 0..2 {
        assert!(matches!(
            Store::open(dir.path(), Purpose::Edge),
            Err(StoreOpenError::NewerFormat { found, .. }) if found == FORMAT + 1
        ));
    }
}

#[test]
fn a_store_of_another_purpose_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(Store::open(dir.path(), Purpose::Server).unwrap());
    let error = Store::open(dir.path(), Purpose::Edge).unwrap_err();
    assert!(error.to_string().contains("belongs to \"server\""), "{error}");
}

/// sled takes a log that it cannot read for an empty one. A garage would begin a new life, and what it had confirmed
/// would be forgotten without a word.
#[test]
fn a_store_that_lost_its_log_is_not_taken_for_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Purpose::Edge).unwrap();
    store.put(b"k", b"v").unwrap();
    store.flush().unwrap();
    drop(store);
    for entry in fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap() == "db" || path.to_string_lossy().contains("snap.") {
            fs::remove_file(path).unwrap();
        }
    }
    let error = Store::open(dir.path(), Purpose::Edge).unwrap_err();
    assert!(error.to_string().contains("reads as empty"), "{error}");
}

#[test]
fn an_error_that_sled_kept_is_told_in_words() {
    let kept =
        |error: std::io::Error| sled::Error::Io(std::io::Error::new(error.kind(), format!("{error:?}")));
    let error = on_sled::disk(kept(std::io::Error::from_raw_os_error(28)));
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    assert_eq!(error.to_string(), "No space left on device (os error 28)");
    assert!(on_sled::disk(kept(std::io::Error::other("else"))).to_string().contains("else"));
}

#[test]
fn damage_becomes_an_error_not_a_panic() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Purpose::Edge).unwrap();
    store.put(b"k", b"v").unwrap();
    store.flush().unwrap();
    drop(store);
    fs::write(dir.path().join("db"), vec![0xB7; 1 << 20]).unwrap();
    let error = Store::open(dir.path(), Purpose::Edge).unwrap_err();
    assert!(matches!(error, StoreOpenError::Damaged { .. }), "{error}");
}

/// The ledger of a city is such a store: many ranges of keys that grow at the same time. sled puts leaves that
/// become too large into `blobs/`, which it never syncs.
#[test]
fn thirty_interleaved_garages_leave_no_unsynced_blobs() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), Purpose::Server).unwrap();
    let value = vec![0xA5; VALUE_MAX];
    for round in 0..60u32 {
        let mut batch = Batch::default();
        for garage in 0..30u32 {
            let key = [garage.to_be_bytes(), round.to_be_bytes()].concat();
            batch.put(key, value.clone());
        }
        store.apply(&batch).unwrap();
        store.flush().unwrap();
    }
    let blobs = dir.path().join("blobs");
    let left: Vec<_> = fs::read_dir(&blobs).into_iter().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}

/// The runway must never cost data: it is cut off and laid again at each opening, and the log grows into it.
#[test]
fn what_was_written_into_the_runway_is_there_after_each_opening() {
    let dir = tempfile::tempdir().unwrap();
    let value = vec![0x5A; 4000];
    let mut written = 0u32;
    for _ in 0..4 {
        let store = Store::open(dir.path(), Purpose::Edge).unwrap();
        for n in 0..written {
            assert_eq!(store.get(&n.to_be_bytes()).unwrap(), Some(value.clone()));
        }
        for _ in 0..1000 {
            store.put(&written.to_be_bytes(), &value).unwrap();
            store.flush().unwrap();
            written += 1;
        }
    }
    let length = fs::metadata(dir.path().join("db")).unwrap().len();
    assert!(length > 16 << 20 && length < 80 << 20, "{length}");
}
