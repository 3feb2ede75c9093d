//! Why an event is not applied, and why a command is refused.

use crate::messaging::{Epoch, SiteName};
use crate::parking::event::KindName;
use crate::parking::money::Money;
use crate::parking::receivables::UndoError;
use crate::parking::{ChargeId, EventId, Moment};
use crate::server::record::{Command, QuarantinePlace};
use crate::server::view::billing::draft::LONGEST_BILLED_DAYS;
use crate::store::StoreError;

/// How many visits a correction may look through, back from the newest: a tenth of a second.
pub const LOOK_BACK: usize = 10_000;

/// Why an event could not be applied. It goes to quarantine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotApplied {
    #[error("{0}")]
    NotUnderstood(String),
    #[error("it corrects an event of epoch {0:?}, which is not an epoch: an epoch is a UUID")]
    NoEpoch(String),
    #[error(
        "it corrects sequence {sequence} of epoch {epoch}, but no such event of this garage came before it"
    )]
    NoSuchEvent { epoch: Epoch, sequence: u64 },
    #[error("it corrects the plate of an event of kind \"{0}\", which is neither an entry nor an exit")]
    NoPassage(KindName),
    #[error("it corrects an event that is itself in quarantine")]
    InQuarantine,
    #[error("it corrects an event that was released from quarantine, so it has another place in the order")]
    AtAnotherPlace,
    #[error("it corrects an event that more than {LOOK_BACK} visits of its plate follow")]
    TooFarBack,
}

/// Why an event was not applied: it goes to quarantine, or the disk failed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyEventError {
    #[error(transparent)]
    NotApplied(#[from] NotApplied),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a command makes no sense. Nothing was recorded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("no garage named {:?} is known; \"server garages list\" shows all garages", .0.as_str())]
    UnknownGarage(SiteName),
    #[error(
        "the name {:?} belongs to the garage {:?}: its edge may use it. Choose another name",
        .name.as_str(),
        .owner.as_str()
    )]
    NameTaken { name: SiteName, owner: SiteName },
    #[error("the garage is called {:?} already", .0.as_str())]
    SameName(SiteName),
    #[error("an operator has already set the capacity of the garage {:?} to {capacity}", .garage.as_str())]
    SameCapacity { garage: SiteName, capacity: u32 },
    #[error("the capacity of the garage {:?} is already what its edge reports", .0.as_str())]
    NoCapacitySet(SiteName),
    #[error("no operator has opened or closed the garage {:?}: its own events and its hours decide already", .0.as_str())]
    DecidesItself(SiteName),
    #[error("the garage {:?} is decommissioned already, since position {position}", .garage.as_str())]
    Decommissioned { garage: SiteName, position: u64 },
    #[error("the garage {:?} is not decommissioned", .0.as_str())]
    NotDecommissioned(SiteName),
    #[error(
        "no event waits in quarantine at {0}: none was quarantined there, or it was already released or discarded; \"server quarantine list\" shows those that wait"
    )]
    NothingWaits(QuarantinePlace),
    #[error(
        "the events at {place} still cannot be applied: {reason}. They stay in quarantine. A later version of fogpost may be able to apply them; \"server quarantine discard\" discards them"
    )]
    NotUnderstood { place: QuarantinePlace, reason: String },
    #[error(
        "no edge ever sent events under the name {:?}, so no conflict can exist under it; the edge of this garage sends under {}",
        .garage.as_str(),
        in_quotes(.sites)
    )]
    NotSentUnder { garage: SiteName, sites: Vec<SiteName> },
    #[error(
        "the events at {0} can no longer be read: their record in the ledger is damaged. They were not released; \"server verify\" says more"
    )]
    Unreadable(QuarantinePlace),
    #[error("a reason needs 1 to {max} bytes, this one has {bytes}", max = Command::REASON_MAX)]
    Reason { bytes: usize },
    #[error("the events that wait there cannot be applied yet: {0}")]
    NotAppliedYet(NotApplied),
    #[error(transparent)]
    NotApplied(#[from] NotApplied),
    /// The pieces before a list do not give what the command says, or the list is not understood.
    #[error("{0}")]
    List(String),

    #[error("documents with numbers from {first} on cannot be issued: the last number is {given}")]
    NumbersGiven { first: u64, given: u64 },
    #[error(
        "the last number that is known is {given}, so no number is lost after {last}; \"server documents list\" shows all documents"
    )]
    NumberKnown { last: u64, given: u64 },
    #[error(
        "the last number that is known is {given}: more than 10,000 numbers up to {last} would be lost. Check the number; it cannot be taken back"
    )]
    TooManyLost { last: u64, given: u64 },
    #[error(
        "no decision was made at position {0}, or it was taken back; \"server decisions list\" shows all decisions"
    )]
    NoSuchDecision(u64),
    #[error("there is no charge {0}; \"server charges list\" shows all charges with their ids")]
    NoSuchCharge(ChargeId),
    #[error("the stay of {0} was never charged, so there is nothing to give back")]
    NotCharged(ChargeId),
    #[error("the charge {0} was already voided")]
    TakenBack(ChargeId),
    #[error(
        "{left} of the charge {charge} can still be given back: a credit must be more than 0 and at most that, not {asked}"
    )]
    TooMuch { charge: ChargeId, left: Money, asked: Money },
    #[error("the stay of {0} is not held")]
    NotHeld(ChargeId),
    #[error("no stay or charge has the plate {0}: there is nothing to forget, or it was already forgotten")]
    NothingToForget(String),
    #[error(
        "the plate {0} is registered, or in a contract: remove it there first (\"server plates remove\", \"server contracts\"), so that it does not come back with the next stay"
    )]
    Registered(String),
    #[error("the car {0} is inside a garage; forget it when it has left")]
    Inside(String),

    #[error("{0}")]
    Payment(UndoError),

    #[error(
        "there is no event {0}: GET /v1/events shows all events, \"server stays review\" those that may need a repair"
    )]
    NoSuchEvent(EventId),
    #[error("the event {event} cannot be used: {why}")]
    NotUsable { event: EventId, why: NotApplied },
    #[error("the event {0} is not an entry with a readable plate")]
    NoEntry(EventId),
    #[error(
        "the plate of the exit {exit} was forgotten, and that of the entry {entry} was not: the exit would have a plate again. End the stay when the exit was: \"server stays close '{entry}' --left {at} --reason TEXT\""
    )]
    ForgottenExit { entry: EventId, exit: EventId, at: Box<Moment> },
    #[error(
        "the exit {exit} ends a stay whose plate was forgotten, and whose amount is kept. If that stay is wrong, void its charge (\"server charges void '{exit}' --reason TEXT\"), and end the other one when the exit was: \"server stays close '{entry}' --left {at} --reason TEXT\""
    )]
    EndsForgottenStay { entry: EventId, exit: EventId, at: Box<Moment> },
    #[error("the event {0} is not an exit")]
    NoExit(EventId),
    #[error("the entry and the exit are events of different garages")]
    TwoGarages,
    #[error(
        "the two would not become one stay: another event of the plate {plate} lies between {entry} and {exit}, or the exit is older"
    )]
    NoNeighbours { entry: EventId, exit: EventId, plate: String },
    #[error("the stay that begins with {0} has already ended, and its exit is not before its entry")]
    HasEnded(EventId),
    #[error("the stay that begins with {event} does not include that time: {why}")]
    NotThen { event: EventId, why: &'static str },
    #[error("more than {LOOK_BACK} visits of its plate follow the stay")]
    TooFarBack,
    #[error("{0} milliseconds since 1970 is not a time of years -9999 to 9999")]
    NotATime(i64),
    #[error(
        "the stay of {charge} is longer than {} days: a clock was wrong at its entry or at its exit. It stays held",
        LONGEST_BILLED_DAYS
    )]
    TooLongToBill { charge: ChargeId },
}

fn in_quotes(sites: &[SiteName]) -> String {
    let quoted: Vec<String> = sites.iter().map(|site| format!("{:?}", site.as_str())).collect();
    quoted.join(", ")
}

/// Why a command was not judged: it is refused, or the disk failed.
#[derive(Debug, thiserror::Error)]
pub enum JudgeError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<ApplyEventError> for JudgeError {
    fn from(error: ApplyEventError) -> JudgeError {
        match error {
            ApplyEventError::NotApplied(why) => Refusal::NotApplied(why).into(),
            ApplyEventError::Store(error) => error.into(),
        }
    }
}
