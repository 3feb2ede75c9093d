//! The outbox keeps what a simple model keeps, through power cuts.

use super::pages::Pages;
use super::tests::{open, payloads, post, record};
use super::*;
use crate::messaging::page::SealedPage;
use crate::store::simulated::Disk;
use bytes::Bytes;
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum OutboxStep {
    /// A group of appends, each with a number of messages and their size in bytes.
    Commit(Vec<(u8, u16)>),
    Take {
        skip: u8,
        max_bytes: u16,
    },
    /// Acknowledge this number of the pages that were taken.
    Acknowledge {
        pages: u8,
    },
    /// The receiver has this many messages fewer than it acknowledged.
    Unacknowledge {
        messages: u8,
    },
    /// The power goes after this many more writes of the steps to come; of what is in doubt, a part survives.
    CutPower {
        after_steps: u8,
        survivors: u8,
    },
    Reopen,
}

fn step() -> impl Strategy<Value = OutboxStep> {
    prop_oneof![
        5 => proptest::collection::vec((1u8..150, 8u16..300), 1..5).prop_map(OutboxStep::Commit),
        1 => proptest::collection::vec((1u8..20, 3000u16..4096), 1..3).prop_map(OutboxStep::Commit),
        4 => (0u8..4, 1u16..20_000).prop_map(|(skip, max_bytes)| OutboxStep::Take { skip, max_bytes }),
        3 => (0u8..10).prop_map(|pages| OutboxStep::Acknowledge { pages }),
        1 => (1u8..200).prop_map(|messages| OutboxStep::Unacknowledge { messages }),
        3 => (0u8..8, 0u8..8).prop_map(|(after_steps, survivors)| OutboxStep::CutPower { after_steps, survivors }),
        1 => Just(OutboxStep::Reopen),
    ]
}

/// What must be true of an outbox, kept too simply to be wrong.
#[derive(Default)]
struct Model {
    /// By sequence - 1: the message, and whether it was confirmed.
    messages: Vec<Bytes>,
    acknowledged: u64,
    /// Every page ever given out, by its first sequence.
    given: std::collections::BTreeMap<u64, SealedPage>,
    written: u64,
}

impl Model {
    fn group(&mut self, sizes: &[(u8, u16)]) -> Vec<Vec<Message>> {
        let mut append = |(count, length): &(u8, u16)| -> Vec<Message> {
            (0..*count)
                .map(|_| {
                    self.written += 1;
                    record(self.written, usize::from(*length))
                })
                .collect()
        };
        sizes.iter().map(&mut append).collect()
    }

    /// After a crash during a commit: a prefix of the group's appends may be there, each whole. Returns what is.
    fn after_crash(&mut self, pages: &Pages, interrupted: Option<Vec<Vec<Message>>>) {
        let found = pages.position();
        let confirmed = self.messages.len() as u64;
        assert!(found.durable >= confirmed, "a confirmed message was lost");
        let mut allowed = vec![confirmed];
        for append in interrupted.into_iter().flatten() {
            self.messages.extend(append.into_iter().map(|r| r.payload));
            allowed.push(self.messages.len() as u64);
        }
        assert!(
            allowed.contains(&found.durable),
            "half an append is there: {} of {allowed:?}",
            found.durable
        );
        self.messages.truncate(found.durable as usize);
        assert!(found.acknowledged <= self.acknowledged);
        assert!(found.oldest <= self.acknowledged.max(1) + 1);
    }

    fn check_pages(&mut self, from: u64, taken: &Taken) {
        let mut next = from;
        for sealed in &taken.pages {
            let page = sealed.open().unwrap();
            assert!(page.first.get() <= next);
            for (sequence, payload) in (page.first.get()..).zip(payloads(std::slice::from_ref(sealed))) {
                assert_eq!(self.messages[sequence as usize - 1], payload, "at {sequence}");
            }
            next = page.last() + 1;
            let given = self.given.entry(page.first.get()).or_insert_with(|| sealed.clone());
            assert_eq!(given, sealed, "one place, two contents");
        }
        assert!(next - 1 <= self.messages.len() as u64, "gave out what is not on disk");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// Crashes between any two writes: what was confirmed is there, in order, in pages that never change; an append is
    /// there whole or not at all; nothing that was not acknowledged is deleted.
    #[test]
    fn the_outbox_keeps_what_a_simple_model_keeps(steps in proptest::collection::vec(step(), 1..40)) {
        let disk = Disk::default();
        let mut pages = open(Store::on(disk.clone())).unwrap();
        let mut model = Model::default();
        let mut taken = Taken::default();
        let mut survivors = 0;
        let mut interrupted = None;
        for step in steps {
            match &step {
                OutboxStep::Commit(sizes) => {
                    let group = model.group(sizes);
                    let posts: Vec<_> = group.iter().cloned().map(post).collect();
                    match pages.commit(&posts) {
                        Ok(places) => {
                            for (append, place) in group.into_iter().zip(places) {
                                prop_assert_eq!(place.first.get(), model.messages.len() as u64 + 1);
                                model.messages.extend(append.into_iter().map(|r| r.payload));
                                prop_assert_eq!(place.last.get(), model.messages.len() as u64);
                            }
                        }
                        Err(_) => interrupted = Some(group),
                    }
                }
                OutboxStep::Take { skip, max_bytes } => {
                    let oldest = pages.position().acknowledged + 1;
                    taken = pages.take(0, oldest, (*max_bytes).into()).unwrap();
                    model.check_pages(oldest, &taken);
                    if let Some(last) = taken.last && *skip > 0 {
                        let more = pages.take(0, last + 1, (*max_bytes).into()).unwrap();
                        model.check_pages(last + 1, &more);
                    }
                }
                OutboxStep::Acknowledge { pages: count } => {
                    let last = taken.pages.iter().take((*count).into()).next_back();
                    if let Some(last) = last {
                        let through = last.open().unwrap().last();
                        pages.acknowledge(0, through);
                        model.acknowledged = model.acknowledged.max(through);
                        let _ = pages.sweep(); // the power may be off
                    }
                }
                OutboxStep::Unacknowledge { messages } => {
                    let mark = model.acknowledged.saturating_sub((*messages).into());
                    let oldest = pages.position().oldest;
                    if pages.unacknowledge(0, mark).is_ok() {
                        model.acknowledged = model.acknowledged.min(mark.max(oldest - 1));
                        prop_assert!(pages.position().acknowledged <= model.acknowledged);
                    }
                }
                OutboxStep::CutPower { after_steps, survivors: some } => {
                    disk.cut_power_after((*after_steps).into());
                    survivors = usize::from(*some);
                }
                OutboxStep::Reopen => {}
            }
            if disk.is_off() || matches!(step, OutboxStep::Reopen) {
                let survivors = if disk.is_off() { survivors } else { disk.in_doubt() };
                disk.power_on(survivors);
                pages = open(Store::on(disk.clone())).unwrap();
                model.after_crash(&pages, interrupted.take());
                taken = Taken::default();
            }
        }
        // Everything that is not acknowledged can still be read.
        let oldest = pages.position().acknowledged + 1;
        let mut next = oldest;
        while next <= pages.position().durable {
            let some = pages.take(0, next, 10_000).unwrap();
            model.check_pages(next, &some);
            next = some.last.expect("there is more") + 1;
        }
        let waiting = pages.peek(None, usize::MAX).unwrap().0;
        prop_assert_eq!(waiting.len() as u64, pages.position().durable + 1 - oldest);
    }
}
