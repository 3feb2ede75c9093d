//! How fast events are confirmed, as a ratio to what the disk allows: a preallocated file that gets one small write and
//! one `fdatasync` at a time. All figures are taken in one run, alternating, because disks and machines differ and change.
//!
//! `cargo bench --bench commit [-- DIRECTORY]`: the directory chooses the disk, default the package's target directory.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a measurement is not a daemon")]

use bytes::Bytes;
use fogpost::daemon::clock;
use fogpost::messaging::outbox::{Options, Outbox, Room};
use fogpost::messaging::page::Message;
use fogpost::store::Purpose;
use fogpost::store::salvage::{self, OpenedStore};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(2);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = std::env::args().skip(1).find(|arg| !arg.starts_with("--"));
    let directory = directory.unwrap_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/target").into());
    let dir = tempfile::tempdir_in(&directory)?;
    let file = preallocated(&dir.path().join("plain"))?;
    let outbox = {
        // As an edge opens it: it asks for room before each write.
        let OpenedStore { store, room, .. } =
            salvage::open_store(dir.path(), Purpose::Other("bench"), None, &|_, _| Ok(()))?;
        let room: Room = Arc::new(move |stored, coming| room.check_inside(stored, coming));
        Outbox::open(store, Options { room: Some(room), ..Options::default() }, clock::read())?
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build()?;
    let mut plain = Vec::new();
    let mut one = Vec::new();
    let mut many = Vec::new();
    for _ in 0..ROUNDS {
        plain.push(plain_syncs(&file)?);
        one.push(runtime.block_on(appends(&outbox, 1)));
        many.push(runtime.block_on(appends(&outbox, 64)));
        outbox.acknowledge(outbox.position().epoch_index, outbox.position().durable);
    }
    let (plain, one, many) = (median(plain), median(one), median(many));
    println!("plain file, one write and one fdatasync: {plain:>8.0} /s");
    println!("outbox,  1 producer:                     {one:>8.0} /s, ratio {:.2}", one / plain);
    println!(
        "outbox, 64 producers:                    {many:>8.0} /s, {:.1} events for each plain sync",
        many / plain
    );
    Ok(())
}

fn preallocated(path: &Path) -> std::io::Result<File> {
    std::fs::write(path, vec![0; 16 << 20])?;
    let file = File::options().write(true).open(path)?;
    file.sync_all()?;
    Ok(file)
}

fn plain_syncs(file: &File) -> std::io::Result<f64> {
    let (began, mut count) = (Instant::now(), 0u64);
    while began.elapsed() < ROUND {
        file.write_all_at(&[0xA5; 200], (count * 200) % (15 << 20))?;
        file.sync_data()?;
        count += 1;
    }
    Ok(count as f64 / began.elapsed().as_secs_f64())
}

async fn appends(outbox: &Outbox, producers: usize) -> f64 {
    let began = Instant::now();
    let producers: Vec<_> = (0..producers)
        .map(|_| {
            let outbox = outbox.clone();
            tokio::spawn(async move {
                let mut count = 0u64;
                while began.elapsed() < ROUND {
                    let payload = Bytes::from_static(&[0x5A; 40]);
                    outbox.append(vec![Message::of(payload)], clock::read()).await.expect("the disk works");
                    count += 1;
                }
                count
            })
        })
        .collect();
    let mut count = 0;
    for producer in producers {
        count += producer.await.expect("no producer panics");
    }
    count as f64 / began.elapsed().as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
