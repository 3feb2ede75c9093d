//! A small server store, and whether one that was damaged tells the truth.

use super::{Store, copy};
use fogpost::messaging::page::{Content, Message, Page, SealedPage};
use fogpost::messaging::wire::{Request, Verdict};
use fogpost::messaging::{ClockReading, Epoch, Sequence, SiteName};
use fogpost::parking::Event;
use fogpost::server::applying::{catch_up, open_view};
use fogpost::server::ledger::{Ledger, RecordOrDamage};
use fogpost::server::opening::{self, OpenedLedger};
use fogpost::server::record::{Command, Record};
use fogpost::server::verify::verify;
use fogpost::server::view::Snapshot;
use fogpost::server::view::charges::{self, ChargeFilter};
use fogpost::server::view::{self, View};
use fogpost::store;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const GARAGES: [&str; 4] = ["Bull Ring", "Moor Street", "NCP", "Snow Hill"];

/// What the garages sent, and what stands in the ledger.
#[derive(Default, Serialize, Deserialize)]
struct Sound {
    pages: Vec<(SiteName, Epoch, Vec<SealedPage>)>,
    /// By position.
    records: Vec<Vec<u8>>,
    occupied: Vec<(SiteName, i64)>,
    /// Events that are missing from the books.
    missing: usize,
}

/// An edge of one epoch that remembers everything.
struct Sender {
    site: SiteName,
    epoch: Epoch,
    next: u64,
    pages: Vec<SealedPage>,
}

impl Sender {
    fn page(&mut self, count: u64) -> SealedPage {
        let event = |n: u64| {
            let kind = if n % 3 == 2 { "exit" } else { "entry" };
            let json = format!(r#"{{"kind":"{kind}","plate":"AB {} {}"}}"#, self.site.as_str().len(), n / 3);
            Message::of(Event::from_json(json.as_bytes(), jiff::Timestamp::UNIX_EPOCH).unwrap().to_bytes())
        };
        let page = SealedPage::seal(&Page {
            epoch: self.epoch,
            first: Sequence::new(self.next).unwrap(),
            previous: self.pages.last().map(|page| page.digest),
            moved_from: None,
            begun: ClockReading::at_wall_ms(5),
            content: Content::Records((self.next..self.next + count).map(event).collect()),
        });
        self.next += count;
        self.pages.push(page.clone());
        page
    }
}

fn request(site: &SiteName, epoch: Epoch, oldest: u64, pages: Vec<SealedPage>) -> Request {
    Request {
        id: 1,
        site: site.clone(),
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

type Books = (store::Store, Ledger, View);

fn open(dir: &Path) -> Result<Books, String> {
    let OpenedLedger { ledger, .. } = opening::open(dir, Some(0)).map_err(|error| error.to_string())?;
    let opened = open_view(&ledger).and_then(|mut view| {
        catch_up(&ledger, &mut view)?;
        let store = ledger.store().clone();
        store.flush()?;
        Ok((store, ledger, view))
    });
    opened.map_err(|error| error.to_string())
}

/// Two data directories of one history: as a kill leaves it, and as a stop does and another start.
pub fn make(dir: &Path) -> Vec<PathBuf> {
    let live = dir.join("live");
    std::fs::create_dir(&live).unwrap();
    let mut senders: Vec<Sender> = (GARAGES.iter().zip(1u8..))
        .map(|(name, n)| Sender {
            site: SiteName::new(name).unwrap(),
            epoch: Epoch::from_bytes([n; 16]),
            next: 1,
            pages: Vec::new(),
        })
        .collect();
    let (mut store, mut ledger, mut view) = open(&live).unwrap();
    let mut states = Vec::new();
    for round in 0..24u32 {
        for (sender, n) in senders.iter_mut().zip(0u32..) {
            let skipped = round == 7 && n == 1;
            let page = sender.page(u64::from(3 + (round * 5 + n * 7) % 30));
            if skipped {
                continue; // the next one says that this one was deleted: a hole
            }
            let first = page.open().unwrap().first.get();
            let oldest = if round == 8 && n == 1 { first } else { 1 };
            let answer =
                ledger.commit(&[request(&sender.site, sender.epoch, oldest, vec![page])], 6).unwrap();
            assert_eq!(answer[0].verdict, Verdict::Accepted);
        }
        if round % 6 == 0 {
            let told = |_: &[_]| vec![(senders[0].site.clone(), 100 + round)];
            ledger.commit_with_capacities(&[], 6, told).unwrap();
            let command = Command::Capacity { garage: senders[2].site.clone(), spaces: Some(7 + round) };
            ledger.record_order("a test", Vec::new(), command, 6).unwrap();
        }
        catch_up(&ledger, &mut view).unwrap();
        store.flush().unwrap();
        if round == 19 || round == 23 {
            let sound = Sound {
                pages: senders.iter().map(|s| (s.site.clone(), s.epoch, s.pages.clone())).collect(),
                records: ledger.raw_records(1, ledger.position(), usize::MAX).unwrap(),
                missing: view
                    .missing_ranges()
                    .values()
                    .map(|hole| (hole.last - hole.first + 1) as usize)
                    .sum(),
                occupied: view.garages.iter().map(|(site, g)| (site.clone(), g.occupancy.occupied)).collect(),
            };
            assert!(verify(&ledger, None).unwrap().clean);
            if round == 23 {
                drop((store, ledger));
                (store, ledger, view) = open(&live).unwrap();
                drop((store.clone(), ledger.clone()));
            }
            let state = dir.join(format!("round-{round}"));
            copy(&live, &state);
            std::fs::write(state.join("content"), postcard::to_stdvec(&sound).unwrap()).unwrap();
            states.push(state);
        }
    }
    states
}

/// What stands at each place of each stream: its payload, or that it is missing.
type Told = BTreeMap<(SiteName, u64), Option<Vec<u8>>>;

/// What the books tell, or a lie. `lost` are positions of which they tell that nothing can be read. A garage whose name is lost is
/// known by its epoch.
fn told(books: &Books, sound: &Sound, lost: &mut Vec<u64>) -> Result<Told, String> {
    let (_, ledger, view) = books;
    let streams = ledger.streams();
    let named = |site: &SiteName| {
        let nameless = streams.get(site).filter(|_| site.as_str().starts_with("unknown garage "));
        let epoch = nameless.map(|streams| streams[0].id.epoch);
        let its = sound.pages.iter().find(|(_, its, _)| Some(*its) == epoch);
        its.map_or(site, |(its, _, _)| its).clone()
    };
    let mut told = Told::new();
    let mut tell =
        |place: (SiteName, u64), payload: Option<Vec<u8>>| match told.insert(place.clone(), payload) {
            None => Ok(()),
            Some(_) => Err(format!("lie: {place:?} is reported twice")),
        };
    let pages =
        ledger.pages(0, |_| false).map_err(|error| format!("lie: the events cannot be listed: {error}"))?;
    for page in pages.pages {
        let Content::Records(records) = page.page.content else { return Err("lie: a page of a loss".into()) };
        for (sequence, record) in (page.page.first.get()..).zip(records) {
            tell((named(&page.site), sequence), Some(record.payload.to_vec()))?;
        }
    }
    for hole in view.missing_ranges().values() {
        for sequence in hole.first..=hole.last {
            tell((named(&hole.garage), sequence), None)?;
        }
    }
    lost.extend(pages.damaged.iter().flat_map(|(from, to, _)| *from..=*to));
    lost.extend(view.damages.values().flat_map(|damage| damage.from..=damage.last));
    Ok(told)
}

/// Charges are read when somebody asks for them. What cannot be read is reported then, and by `verify`; it is never another charge,
/// and the ledger gives all of it again, or the views are refused in words.
fn only_charges_are_damaged(books: Books, report: &str) -> Result<String, String> {
    let (store, ledger, view) = books;
    let all = |view: &Snapshot| {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let wanted = ChargeFilter { after, limit: usize::MAX, ..ChargeFilter::default() };
            let (_, part) = charges::list((view, &ledger), None, &wanted)?;
            let drafts = part.charges.into_iter().map(|its| (its.plate, its.entry, its.exit, its.draft));
            all.extend(drafts);
            after = part.next;
            if after.is_none() {
                return Ok::<_, store::StoreError>(all);
            }
        }
    };
    let before = all(&view.snapshot());
    if let Err(error) = view::discard(&store) {
        return Ok(format!("refused {error}"));
    }
    drop(view);
    let mut view = open_view(&ledger).map_err(|error| format!("lie: {error}"))?;
    catch_up(&ledger, &mut view).map_err(|error| format!("lie: rebuilding: {error}"))?;
    let after = verify(&ledger, None).map_err(|error| format!("lie: verify: {error}"))?;
    if !after.clean {
        return Err(format!("lie: after the rebuild: {after}"));
    }
    match (before, all(&view.snapshot())) {
        (Ok(before), Ok(after)) if before != after => {
            Err(format!("lie: other charges were shown, and verify alone said: {report}"))
        }
        (_, Err(error)) => Err(format!("lie: after the rebuild: {error}")),
        _ => Ok("reported 0 by verify, and rebuilt".into()),
    }
}

/// What it comes to: `intact`, `reported …`, `refused …`, or something worse.
pub fn look_into(store: &Store) -> String {
    match look(store) {
        Ok(fine) => fine,
        Err(wrong) => wrong,
    }
}

fn look(store: &Store) -> Result<String, String> {
    let sound: Sound = postcard::from_bytes(&std::fs::read(store.sound.join("content")).unwrap()).unwrap();
    let mut books = match open(&store.dir) {
        Ok(books) => books,
        Err(error) if error.contains("Nothing was") => return Ok(format!("refused {error}")),
        Err(error) => return Err(format!("refused-unclearly {error}")),
    };
    let sent: Told = sound
        .pages
        .iter()
        .flat_map(|(site, _, pages)| pages.iter().map(move |page| (site, page.open().unwrap())))
        .flat_map(|(site, page)| {
            let Content::Records(records) = page.content else { unreachable!("all were sent") };
            (page.first.get()..)
                .zip(records)
                .map(|(sequence, record)| ((site.clone(), sequence), Some(record.payload.to_vec())))
                .collect::<Vec<_>>()
        })
        .collect();
    // Every position holds what it held, or is reported as lost.
    let mut lost = Vec::new();
    let told_first = told(&books, &sound, &mut lost)?;
    let mut words = Vec::new();
    let mut beyond = 0;
    for found in books.1.records(1) {
        let (position, found) = found.map_err(|error| format!("lie: {error}"))?;
        match found {
            RecordOrDamage::Damaged { reason, .. } => words.push(reason),
            RecordOrDamage::Record(Record::Truncated { .. }) => words.push("the end is lost".into()),
            RecordOrDamage::Record(record) => match sound.records.get(position as usize - 1) {
                Some(its) if *its == record.encode() => beyond = position,
                Some(_) => return Err(format!("lie: another record stands at position {position}")),
                None => return Err(format!("lie: a record stands at position {position}, behind the end")),
            },
        }
    }
    for position in 1..=sound.records.len() as u64 {
        if lost.contains(&position) || matches!(books.1.has_record(position), Ok(true)) && position <= beyond
        {
            continue;
        }
        return Err(format!("lie: position {position} is gone, and nothing says so (up to {beyond})"));
    }
    for (place, payload) in &told_first {
        match sent.get(place) {
            None => return Err(format!("lie: {place:?} never came")),
            Some(sent) if payload.is_some() && payload != sent => {
                return Err(format!("lie: {place:?} is another event"));
            }
            Some(_) => {}
        }
    }
    // Nothing is acknowledged that is neither there nor told to be missing.
    for (site, streams) in books.1.streams() {
        for stream in streams {
            for sequence in 1..=stream.mark.sequence {
                if !told_first.contains_key(&(site.clone(), sequence)) && lost.is_empty() {
                    return Err(format!(
                        "lie: {site} is acknowledged through {}, and {sequence} is nowhere",
                        stream.mark.sequence
                    ));
                }
            }
        }
    }
    let report = verify(&books.1, None).map_err(|error| format!("lie: verify: {error}"))?;
    if !report.clean && words.is_empty() {
        return only_charges_are_damaged(books, &report.to_string());
    }
    if words.is_empty() {
        let occupied: Vec<_> =
            books.2.garages.iter().map(|(s, g)| (s.clone(), g.occupancy.occupied)).collect();
        if occupied != sound.occupied {
            return Err("lie: the garages hold other numbers of cars".into());
        }
    }
    // The edges deliver again: one has everything still, one only its newest page.
    let end = books.1.position();
    for (n, (site, epoch, pages)) in sound.pages.iter().enumerate() {
        let first = |page: &SealedPage| page.open().unwrap().first.get();
        let kept = if n % 2 == 0 { &pages[..] } else { &pages[pages.len() - 1..] };
        let request = request(site, *epoch, first(&kept[0]), kept.to_vec());
        let answer = books.1.commit(&[request], 10).map_err(|error| format!("lie: {error}"))?.remove(0);
        let last = pages.last().unwrap().open().unwrap().last();
        if answer.verdict != Verdict::Accepted || answer.mark != last {
            return Err(format!("lie: {site} is answered {answer:?}, and has sent up to {last}"));
        }
    }
    let grew = books.1.position() > end;
    // One page was never sent, so that a store that is sound tells of it, too.
    let missing =
        told_first.values().filter(|payload| payload.is_none()).count().saturating_sub(sound.missing);
    catch_up(&books.1, &mut books.2).map_err(|error| format!("lie: {error}"))?;
    let told = told(&books, &sound, &mut lost)?;
    for (place, payload) in &sent {
        match told.get(place) {
            Some(told) if told.is_none() || told == payload => {}
            Some(_) => return Err(format!("lie: {place:?} is another event after it came again")),
            None if !lost.is_empty() => {}
            None => return Err(format!("lie: {place:?} is neither there nor missing")),
        }
    }
    if grew && words.is_empty() {
        return Err("lie: something was missing, and nothing said so".into());
    }
    let after = verify(&books.1, None).map_err(|error| format!("lie: verify: {error}"))?;
    if report.clean && !after.clean {
        return Err(format!("lie: after the edges delivered again: {after}"));
    }
    // It can be opened again, and says the same.
    let position = books.1.position();
    drop(books);
    // Of a copy: sled gives its lock back some time after it was closed.
    let copied = store.dir.with_extension("again");
    let _ = std::fs::remove_dir_all(&copied);
    copy(&store.dir, &copied);
    let again = open(&copied).map_err(|error| format!("lie: the second opening: {error}"))?;
    if again.1.position() != position {
        return Err(format!("lie: it ended at {position}, and at the next start at {}", again.1.position()));
    }
    words.dedup();
    Ok(match words.is_empty() {
        true => "intact".into(),
        false => format!("reported {missing} {}", words.join("; ")),
    })
}
