//! Follows which drafts a change of the rules changes, and by how much.

use super::super::pages::SlotAddress;
use super::draft::Draft;
use super::totals::Sign;
use crate::parking::money::{Amount, Money, MoneySums};
use serde::Serialize;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// What a change would do to drafts, or did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RatingEffect {
    /// How many drafts change: their account, amount, state or month.
    pub drafts: u64,
    /// How many of them had a price.
    pub priced_before: u64,
    /// By how much all drafts together change, for each currency.
    pub amounts: Vec<Money>,
}

/// Follows which drafts change.
#[derive(Debug, Default)]
pub struct DraftRecorder(HashMap<SlotAddress, (Option<DraftMark>, Option<DraftMark>)>);

type DraftMark = (u64, Option<Money>);

impl DraftRecorder {
    pub(super) fn note(&mut self, sign: Sign, address: SlotAddress, draft: &Draft) {
        let mut hasher = DefaultHasher::new();
        postcard::to_stdvec(draft).expect("a draft always encodes").hash(&mut hasher);
        let mark = (hasher.finish(), draft.amount);
        let (before, after) = self.0.entry(address).or_default();
        match sign {
            // A draft that was added on the way is none of those before.
            Sign::Subtract if after.take().is_some() => {}
            Sign::Subtract => *before = Some(mark),
            Sign::Add => *after = Some(mark),
        }
    }

    pub fn effect(&self) -> RatingEffect {
        let mut effect = RatingEffect::default();
        let mut amounts = MoneySums::default();
        for (before, after) in self.0.values().filter(|(before, after)| before != after) {
            effect.drafts += 1;
            effect.priced_before += u64::from(before.is_some_and(|(_, money)| money.is_some()));
            let before = before
                .and_then(|(_, money)| money)
                .map(|money| Money { amount: money.amount.negated(), ..money });
            let after = after.and_then(|(_, money)| money);
            [before, after].into_iter().flatten().for_each(|money| amounts.add(money));
        }
        effect.amounts = amounts.list();
        effect.amounts.retain(|money| money.amount != Amount::ZERO);
        effect
    }
}
