//! The changes that an import of plates would make, to be shown before it is done.

use super::plates::Registration;
use crate::parking::Plate;
use std::collections::BTreeSet;
use std::fmt;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlateChange {
    /// `None`: it is added.
    before: Option<Registration>,
    pub after: Registration,
}

/// `+ BAB123  account miller, name "Jo"` or `~ BAB123  account miller -> smith`.
impl fmt::Display for PlateChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Registration { plate, account, name } = &self.after;
        let Some(before) = &self.before else {
            return write!(f, "+ {plate}  account {account}, name {name:?}");
        };
        write!(f, "~ {plate}  account {}", before.account)?;
        if before.account != *account {
            write!(f, " -> {account}")?;
        }
        write!(f, ", name {:?}", before.name)?;
        if before.name != *name {
            write!(f, " -> {name:?}")?;
        }
        Ok(())
    }
}

/// What taking `new` does to the registry `old`, in the order of `new`. A plate that it does not name stays ([`unnamed`]).
pub fn changes<'a>(
    old: impl Fn(&Plate) -> Option<&'a Registration>,
    new: &'a [Registration],
) -> impl Iterator<Item = PlateChange> {
    let change = move |after: &Registration| {
        let before = old(&after.plate);
        (before != Some(after)).then(|| PlateChange { before: before.cloned(), after: after.clone() })
    };
    new.iter().filter_map(change)
}

/// The registered plates that `new` does not name. They stay, which surprises an operator who thinks that it is the whole registry.
pub fn unnamed<'a>(
    old: impl Iterator<Item = &'a Registration>,
    new: &[Registration],
) -> Vec<&'a Registration> {
    let named: BTreeSet<&Plate> = new.iter().map(|registration| &registration.plate).collect();
    old.filter(|registration| !named.contains(&registration.plate)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parking::name::Account;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn registration(plate: &str, account: &str, name: &str) -> Registration {
        Registration {
            plate: Plate::new(plate).unwrap(),
            account: Account::new(account).unwrap(),
            name: name.to_owned(),
        }
    }
    fn registry(all: &[Registration]) -> BTreeMap<Plate, Registration> {
        all.iter().map(|its| (its.plate.clone(), its.clone())).collect()
    }

    #[test]
    fn changes_read_like_this() {
        let old = registry(&[
            registration("AB1", "miller", "Jo"),
            registration("AB2", "miller", "Jo"),
            registration("AB3", "miller", "Jo"),
            registration("AB4", "miller", "Jo"),
        ]);
        let new = [
            registration("CD1", "smith", "Al"),
            registration("AB1", "miller", "Jo"),
            registration("AB2", "smith", "Jo"),
            registration("AB3", "smith", "Al"),
        ];
        let shown: Vec<String> =
            changes(|plate| old.get(plate), &new).map(|change| change.to_string()).collect();
        let expected = [
            "+ CD1  account smith, name \"Al\"",
            "~ AB2  account miller -> smith, name \"Jo\"",
            "~ AB3  account miller -> smith, name \"Jo\" -> \"Al\"",
        ];
        assert_eq!(shown, expected);
        assert_eq!(unnamed(old.values(), &new), [&registration("AB4", "miller", "Jo")]);
    }

    fn some() -> impl Strategy<Value = Vec<Registration>> {
        let cars = prop::collection::btree_map(0..6u8, (0..2u8, 0..2u8), 0..6);
        cars.prop_map(|cars| {
            let car = |(plate, (account, name))| {
                registration(&format!("AB{plate}"), &format!("a{account}"), &format!("n{name}"))
            };
            cars.into_iter().map(car).collect()
        })
    }

    proptest! {
        #[test]
        fn making_the_changes_gives_the_new_and_leaves_the_unnamed(old in some(), new in some()) {
            let old = registry(&old);
            let mut result = old.clone();
            for change in changes(|plate| old.get(plate), &new) {
                result.insert(change.after.plate.clone(), change.after.clone());
            }
            let mut expected: Vec<Registration> = new.clone();
            expected.extend(unnamed(old.values(), &new).into_iter().cloned());
            prop_assert_eq!(&result, &registry(&expected));
            prop_assert_eq!(changes(|plate| result.get(plate), &new).next(), None);
        }
    }
}
