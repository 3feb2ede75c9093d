//! The part of the books of money that is in memory and shown to readers; see [`super::super::state`].

use super::super::SharedMap;
use super::entries::AccountBook;
use super::terms::InForce;
use crate::parking::tariff::Money;
use std::sync::Arc;

#[derive(Debug, Clone, Default, PartialEq)]
pub struct ShownBooks {
    pub in_force: Arc<InForce>,
    accounts: SharedMap<u32, AccountBook>,
    account_numbers: SharedMap<String, u32>,
    /// What was taken in each garage, less what was given back; once for each currency, in their order.
    taken: SharedMap<u32, Vec<Money>>,
}

impl ShownBooks {
    pub(super) fn of(in_force: InForce) -> ShownBooks {
        ShownBooks { in_force: Arc::new(in_force), ..ShownBooks::default() }
    }

    pub(super) fn add_account(&mut self, book: AccountBook) -> u32 {
        let number = self.accounts_end();
        self.account_numbers.insert_mut(book.name.clone(), number);
        self.accounts.insert_mut(number, book);
        number
    }

    pub(super) fn account_mut(&mut self, number: u32) -> &mut AccountBook {
        self.accounts.get_mut(&number).expect("an account that has entries is known")
    }

    pub fn account_book(&self, number: u32) -> Option<&AccountBook> {
        self.accounts.get(&number)
    }

    pub fn account(&self, name: &str) -> Option<u32> {
        self.account_numbers.get(name).copied()
    }

    pub fn accounts_end(&self) -> u32 {
        u32::try_from(self.accounts.size()).expect("there are fewer accounts than people")
    }

    pub fn taken(&self, garage: u32) -> &[Money] {
        self.taken.get(&garage).map_or(&[], Vec::as_slice)
    }

    pub(super) fn put_taken(&mut self, garage: u32, taken: Vec<Money>) {
        self.taken.insert_mut(garage, taken);
    }

    pub(super) fn take(&mut self, garage: u32, money: Money) {
        let mut taken = self.taken(garage).to_vec();
        match taken.iter_mut().find(|sum| sum.currency == money.currency) {
            Some(sum) => sum.amount = sum.amount.saturating_add(money.amount),
            None => {
                taken.push(money);
                taken.sort_by_key(|sum| sum.currency);
            }
        }
        self.put_taken(garage, taken);
    }
}
