//! The state of the views while they are built: what readers see, and what only the applying of records needs.

use super::billing::Billing;
use super::changes::ViewChanges;
use super::garages::GarageState;
use super::snapshot::{Snapshot, VisibleState};
use super::stays::StayIndex;
use crate::messaging::SiteName;
use std::ops::{Deref, DerefMut};

/// The views at a position: what readers see, and what only applying further records needs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct View {
    pub(super) shown: VisibleState,
    pub billing: Billing,
    pub(super) stays: StayIndex,
}

impl Deref for View {
    type Target = VisibleState;
    fn deref(&self) -> &VisibleState {
        &self.shown
    }
}

impl DerefMut for View {
    fn deref_mut(&mut self) -> &mut VisibleState {
        &mut self.shown
    }
}

impl View {
    /// What readers see of it. Nothing is copied but a few pointers.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { shown: self.shown.clone(), billing: self.billing.shown().clone() }
    }

    /// A garage that is about to change, added where it was never seen; and the stays and the books of money of all garages.
    pub(super) fn garage_mut(
        &mut self,
        site: &SiteName,
        changes: &mut ViewChanges,
    ) -> (&mut GarageState, &mut StayIndex, &mut Billing) {
        if !changes.garages.contains(site) {
            changes.garages.insert(site.clone());
        }
        let View { shown, stays, billing } = self;
        if !shown.garages.contains_key(site) {
            let garage = GarageState { stays: stays.begin_garage(), ..GarageState::default() };
            shown.put_garage(site.clone(), garage);
        }
        (shown.garages.get_mut(site).expect("it is there"), stays, billing)
    }
}
