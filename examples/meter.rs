//! Electricity readings travel from a meter to a utility, exactly once, over a link that loses every third message.
//! Nothing here is parking: `fogpost::messaging` carries any bytes. Run it with `cargo run --example meter`.

use fogpost::messaging::outbox::Outbox;
use fogpost::messaging::page::{Content, Record, SealedPage};
use fogpost::messaging::receiver::{Judgement, Mark, Place, judge};
use fogpost::messaging::sender::{Action, Outcome, Sender, SenderConfig};
use fogpost::messaging::wire::{Reply, Verdict};
use fogpost::messaging::{Digest, LedgerId};
use fogpost::store::{Purpose, Store};
use std::{collections::HashMap, convert::Infallible, time::Duration};

/// The utility's book: what it has read, and which pages it took.
#[derive(Default)]
struct Utility {
    readings: Vec<String>,
    taken: HashMap<u64, Digest>,
    mark: Mark,
}

impl Utility {
    /// Applies what is next; a real one makes it durable before it answers.
    fn receive(&mut self, id: u64, oldest: u64, pages: &[SealedPage]) -> Reply {
        for sealed in pages {
            let page = sealed.open().expect("nobody damages pages here");
            let (first, last, digest) = (page.first.get(), page.last(), sealed.digest);
            let place = Place { first, last, digest, previous: page.previous };
            let taken = |first| Ok::<_, Infallible>(self.taken.get(&first).copied());
            if judge(place, self.mark, oldest, taken) == Ok(Judgement::Next) {
                let Content::Records(records) = page.content else {
                    continue;
                };
                let text = |record: Record| String::from_utf8_lossy(&record.payload).into_owned();
                self.readings.extend(records.into_iter().map(text));
                self.taken.insert(first, digest);
                self.mark = Mark { sequence: last, digest: Some(digest) };
            }
        }
        let ledger = LedgerId::from_bytes([0; 16]);
        Reply { id, ledger, mark: self.mark.sequence, verdict: Verdict::Accepted, pause_ms: 0, answer: None }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let outbox = Outbox::open(Store::open(dir.path(), Purpose::Other("meter"))?)?;
    for hour in 0..500 {
        let reading = format!("meter 4711, hour {hour}: {} Wh", hour * 230);
        outbox.append(vec![Record { key: None, payload: reading.into() }], 0).await?;
    }
    let config = SenderConfig { servers: 1, window: 3, ask_every: Duration::from_secs(900), seed: 1 };
    let mut sender = Sender::new(config, 1, 0, outbox.position().durable);
    let (mut utility, mut now, mut messages) = (Utility::default(), Duration::ZERO, 0);
    while outbox.status()?.depth > 0 {
        match sender.poll(now) {
            Action::Connect { .. } => sender.connected(now),
            Action::Disconnect => println!("{:>4} s: no answer, a new connection", now.as_secs()),
            Action::Wait { until } => now = until, // time is a value: no need to sit it out
            Action::Send { id, pages_from, ask } => {
                let taken = pages_from.map(|from| outbox.take(from, 4096)).transpose()?.unwrap_or_default();
                sender.sent(now, id, taken.last, ask);
                messages += 1;
                if messages % 3 == 0 {
                    continue; // lost
                }
                let reply = utility.receive(id, sender.oldest(), &taken.pages);
                if let Outcome::Settled { through } = sender.replied(now, &reply)? {
                    outbox.settle(through);
                }
            }
        }
    }
    assert!((0..500).zip(&utility.readings).all(|(hour, r)| r.contains(&format!("hour {hour}:"))));
    println!("{} readings booked once, in order, after {} resends", utility.readings.len(), sender.resends());
    Ok(())
}
