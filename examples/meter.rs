//! Electricity readings travel from a meter to a utility, exactly once, over a link that loses every third message.
//! Nothing here is parking: `fogpost::messaging` carries any bytes. Run it with `cargo run --example meter`.

use fogpost::messaging::outbox::{Options, Outbox};
use fogpost::messaging::page::{Content, Message, SealedPage};
use fogpost::messaging::receiver::{Judgement, Mark, PageSpan, judge};
use fogpost::messaging::sender::{Action, Outcome, Sender, SenderConfig};
use fogpost::messaging::wire::{Reply, Verdict};
use fogpost::messaging::{ClockReading, Digest, LedgerId};
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
            let span = PageSpan::of(&page, sealed.digest);
            let taken = |first| Ok::<_, Infallible>(self.taken.get(&first).copied());
            if judge(span, self.mark, oldest, taken) == Ok(Judgement::Next) {
                let Content::Records(records) = page.content else { continue };
                let text = |record: Message| String::from_utf8_lossy(&record.payload).into_owned();
                self.readings.extend(records.into_iter().map(text));
                self.taken.insert(span.first, span.digest);
                self.mark = Mark { sequence: span.last, digest: Some(span.digest) };
            }
        }
        let (mark, verdict) = (self.mark.sequence, Verdict::Accepted);
        Reply { id, ledger: BOOK, mark, verdict, pause_ms: 0, clock_ms: 0, notice: None, answer: None }
    }
}

const BOOK: LedgerId = LedgerId::from_bytes([1; 16]);
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let store = Store::open(dir.path(), Purpose::Other("meter"))?;
    let outbox = Outbox::open(store, Options::default(), ClockReading::at_wall_ms(0))?;
    for hour in 0..500 {
        let reading = Message::of(format!("meter 4711, hour {hour}: {} Wh", hour * 230));
        outbox.append(vec![reading], ClockReading::at_wall_ms(0)).await?;
    }
    let config = SenderConfig { servers: 1, window: 3, ask_every: Duration::from_secs(900), seed: 1 };
    let (mut sender, mut utility) = (Sender::new(config, outbox.position(), Some(BOOK)), Utility::default());
    let (mut now, mut messages) = (Duration::ZERO, 0);
    while outbox.status()?.depth > 0 {
        match sender.poll(now) {
            Action::Connect { .. } => sender.connected(now),
            Action::Disconnect => println!("{:>4} s: no answer, a new connection", now.as_secs()),
            Action::Wait { until } => now = until, // time is a value: no need to sit it out
            Action::Send { id, pages_from, .. } => {
                let taken = pages_from.map(|from| outbox.take(0, from, 4096)).transpose()?;
                let taken = taken.unwrap_or_default();
                sender.sent(now, id, taken.last);
                messages += 1;
                if messages % 3 > 0 {
                    let reply = utility.receive(id, sender.position().oldest, &taken.pages);
                    if let Outcome::Acknowledged { through } = sender.replied(now, &reply).outcome {
                        outbox.acknowledge(0, through);
                    }
                } // else it was lost
            }
        }
    }
    assert!((0..500).zip(&utility.readings).all(|(hour, r)| r.contains(&format!("hour {hour}:"))));
    println!("{} readings booked once, in order, after {} resends", utility.readings.len(), sender.resends());
    Ok(())
}
