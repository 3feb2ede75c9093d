//! A small edge store, and whether one that was damaged tells the truth.

use super::{Store, copy};
use fogpost::daemon::DaemonError;
use fogpost::messaging::outbox::{Options, Outbox};
use fogpost::messaging::page::{Content, IdempotencyKey, Message, SealedPage};
use fogpost::messaging::wire::{Request, Verdict};
use fogpost::messaging::{ClockReading, Digest, Epoch, SiteName};
use fogpost::server::ledger::{Ledger, RecordOrDamage};
use fogpost::server::record::Record as Entry;
use fogpost::store::{self, Purpose, scratch};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const NOW: ClockReading = ClockReading { wall_ms: 5_000, monotonic_ms: 5_000, boot: [1; 16], set: true };
/// So much of the first epoch is acknowledged.
const ACKNOWLEDGED: u64 = 250;

/// What was confirmed, and what the server has of it.
#[derive(Serialize, Deserialize)]
struct History {
    /// By epoch and sequence.
    confirmed: Vec<(Epoch, u64, Vec<u8>)>,
    /// What was delivered.
    acknowledged: Vec<(Epoch, Vec<SealedPage>)>,
    /// Under which key the message at this place was posted.
    keys: Vec<(Epoch, u64, String)>,
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

fn open(dir: &Path) -> Result<Outbox, String> {
    let options = |_: &store::Store, _| Ok(Options { machine: Some([7; 16]), ..Options::default() });
    let opened = Outbox::open_in::<DaemonError>(dir, Purpose::Edge, Some(0), NOW, options);
    opened.map_err(|error| error.to_string())
}

fn record(text: &str, key: Option<&str>) -> Message {
    let key = key.map(|key| IdempotencyKey {
        text: key.to_owned().into(),
        body: Digest::of(key.as_bytes()),
        count: 1,
    });
    Message { key, ..Message::of(format!("{text} {}", "x".repeat(text.len() * 7 % 90)).into_bytes()) }
}

/// Two data directories of one history: as a kill leaves it, and as a stop does and another start.
pub fn make(dir: &Path) -> Vec<PathBuf> {
    let live = dir.join("live");
    std::fs::create_dir(&live).unwrap();
    let mut content = History { confirmed: Vec::new(), acknowledged: Vec::new(), keys: Vec::new() };
    let outbox = open(&live).unwrap();
    let first = outbox.epoch();
    let mut states = Vec::new();
    let mut n = 0;
    let mut post = |outbox: &Outbox, posts: usize, content: &mut History| {
        for size in (1..=posts).map(|post| 1 + post % 25) {
            n += 1;
            let key = (n % 3 == 0).then(|| format!("key-{n}"));
            let records: Vec<Message> = (0..size)
                .map(|index| record(&format!("{n}/{index}"), key.as_deref().filter(|_| index == 0)))
                .collect();
            let place = runtime().block_on(outbox.append(records.clone(), NOW)).unwrap();
            for (sequence, record) in (place.first.get()..).zip(&records) {
                content.confirmed.push((place.epoch, sequence, record.payload.to_vec()));
            }
            content.keys.extend(key.map(|key| (place.epoch, place.first.get(), key)));
        }
    };
    post(&outbox, 30, &mut content);
    let epoch_index = outbox.position().epoch_index;
    let taken = outbox.take(epoch_index, 1, usize::MAX).unwrap();
    let delivered: Vec<_> =
        taken.pages.into_iter().take_while(|page| page.open().unwrap().last() <= ACKNOWLEDGED).collect();
    let through = delivered.last().unwrap().open().unwrap().last();
    content.acknowledged.push((first, delivered));
    outbox.acknowledge(epoch_index, through);
    post(&outbox, 20, &mut content);
    runtime().block_on(outbox.begin_epoch(first)).unwrap();
    post(&outbox, 12, &mut content);
    let mut save = |name: &str, content: &History| {
        let state = dir.join(name);
        copy(&live, &state);
        std::fs::write(state.join("content"), postcard::to_stdvec(content).unwrap()).unwrap();
        states.push(state);
    };
    save("killed", &content);
    drop(outbox);
    let outbox = open(&live).unwrap();
    assert_eq!(outbox.position().oldest, through + 1, "what is acknowledged is deleted");
    post(&outbox, 3, &mut content);
    drop(outbox);
    save("stopped", &content);
    states
}

/// What it comes to: `intact`, `reported …`, `refused …`, or something worse.
pub fn look_into(store: &Store) -> String {
    let content: History =
        postcard::from_bytes(&std::fs::read(store.sound.join("content")).unwrap()).unwrap();
    let outbox = match open(&store.dir) {
        Ok(outbox) => outbox,
        Err(error) if error.contains("Nothing was") => return format!("refused {error}"),
        Err(error) => return format!("refused-unclearly {error}"),
    };
    let confirmed: BTreeMap<(Epoch, u64), &[u8]> = content
        .confirmed
        .iter()
        .map(|(epoch, sequence, payload)| ((*epoch, *sequence), &payload[..]))
        .collect();
    // A server that has what was delivered.
    let ledger = Ledger::open(scratch::store().unwrap()).unwrap();
    for (epoch, pages) in &content.acknowledged {
        let answer = ledger.commit(&[request(*epoch, 1, pages.clone())], 1).unwrap().remove(0);
        assert_eq!(answer.verdict, Verdict::Accepted);
    }
    if let Err(lie) = deliver(&outbox, &ledger) {
        return lie;
    }
    // What is new gets a place that nothing else ever had.
    let new = runtime().block_on(outbox.append(vec![record("new", None), record("newer", None)], NOW));
    let new = match new {
        Ok(new) => new,
        Err(error) => return format!("lie: nothing more is taken: {error}"),
    };
    if [new.first, new.last].iter().any(|sequence| confirmed.contains_key(&(new.epoch, sequence.get()))) {
        return format!("lie: new events got the places {} to {} of {}", new.first, new.last, new.epoch);
    }
    if let Err(lie) = deliver(&outbox, &ledger) {
        return format!("{lie} (new)");
    }
    let mut news = BTreeSet::from([(new.epoch, new.first.get()), (new.epoch, new.last.get())]);
    let (mut missing, mut applied) = (0, BTreeSet::new());
    for found in ledger.records(1) {
        let (position, RecordOrDamage::Record(entry)) = found.unwrap() else { panic!("the server is sound") };
        match entry {
            Entry::Page { stream, page, .. } => {
                let page = page.open().unwrap();
                let Content::Records(records) = &page.content else { panic!("of a loss at {position}") };
                for (sequence, record) in (page.first.get()..).zip(records) {
                    let place = (stream.epoch, sequence);
                    if !applied.insert(place) {
                        return format!("lie: {place:?} is applied twice");
                    }
                    if !news.remove(&place) && confirmed.get(&place) != Some(&&record.payload[..]) {
                        return format!("lie: {place:?} is not what was confirmed there");
                    }
                }
            }
            Entry::MissingRange { stream, first, last, .. } => {
                for sequence in first..=last {
                    let place = (stream.epoch, sequence);
                    if !applied.insert(place) {
                        return format!("lie: {place:?} is applied and missing");
                    }
                    missing += u64::from(confirmed.contains_key(&place));
                }
            }
            other => panic!("{other:?}"),
        }
    }
    if let Some(place) = confirmed.keys().find(|place| !applied.contains(place)) {
        return format!("lie: {place:?} was confirmed, and is neither applied nor told to be missing");
    }
    if !news.is_empty() {
        return format!("lie: new events were not delivered: {news:?}");
    }
    let inspected = match outbox.inspect() {
        Ok(inspected) => inspected,
        Err(error) => return format!("lie: it cannot be looked over: {error}"),
    };
    let damages: Vec<String> = outbox.damages().iter().map(|damage| damage.reason.clone()).collect();
    if missing > 0 && (damages.is_empty() || inspected.faults.is_empty()) {
        return format!("lie: {missing} are missing, and the edge does not say so");
    }
    // A key stands for what it stood for, or damage was reported.
    for (epoch, first, key) in &content.keys {
        match runtime().block_on(outbox.append(vec![record("again", Some(key))], NOW)) {
            Ok(again) if again.repeated && (again.epoch, again.first.get()) == (*epoch, *first) => {}
            Ok(again) if again.repeated => return format!("lie: {key} stands for {again:?}"),
            Ok(_) if damages.is_empty() => {
                return format!("lie: {key} is forgotten, and nothing is reported");
            }
            Ok(_) => {}
            Err(error) => return format!("lie: posting {key} again: {error}"),
        }
    }
    match damages.is_empty() {
        true => "intact".into(),
        false => format!("reported {missing} {}", damages.join("; ")),
    }
}

fn request(epoch: Epoch, oldest: u64, pages: Vec<SealedPage>) -> Request {
    Request {
        id: 1,
        site: SiteName::new("Bull Ring").unwrap(),
        epoch,
        oldest,
        ledger: None,
        instance: 1,
        clock_ms: 0,
        pages,
        ask: None,
        observation: None,
    }
}

/// Everything that waits, as the sender would.
fn deliver(outbox: &Outbox, ledger: &Ledger) -> Result<(), String> {
    let mut progress = outbox.progress();
    loop {
        let position = outbox.position();
        let taken = outbox
            .take(position.epoch_index, position.acknowledged + 1, usize::MAX)
            .map_err(|error| format!("lie: {error}"))?;
        if let Some(last) = taken.last {
            let request = request(position.epoch, taken.oldest, taken.pages);
            let answer = ledger.commit(&[request], 2).unwrap().remove(0);
            if answer.verdict != Verdict::Accepted || answer.mark < last {
                return Err(format!("lie: the server answers {answer:?} to {position:?} through {last}"));
            }
            outbox.acknowledge(position.epoch_index, last);
        }
        if outbox.positions().len() == 1 {
            return Ok(());
        }
        // The next epoch comes when this one is swept away.
        outbox.acknowledge(position.epoch_index, position.durable);
        let swept = async {
            let next = |now: &fogpost::messaging::outbox::OutboxProgress| {
                now.position.epoch_index != position.epoch_index
            };
            progress.wait_for(next).await.map(drop).map_err(|error| format!("lie: {error}"))
        };
        runtime().block_on(swept)?;
    }
}
