//! What an import of payments would do: shown before it is done, and recorded when it is.

use super::rows::named;
use super::*;
use crate::parking::payment::PaymentFile;

/// The effect of an import, by what is known now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportPlan {
    /// What is to be recorded. Empty: nothing is.
    pub payments: Vec<Payment>,
    pub skipped: Vec<SkippedPayment>,
    /// Those of the payments that would pay no document: (line, reason).
    pub waiting: Vec<(usize, Waits)>,
}

/// A line that is not imported, because it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkippedPayment {
    pub line: usize,
    pub reason: SkipReason,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SkipReason {
    Imported(PaymentId),
    Undone(PaymentId, Date),
    /// The same as this line of the same file.
    Repeats(usize),
}

impl fmt::Display for SkippedPayment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: skipped: ", self.line)?;
        match self.reason {
            SkipReason::Imported(id) => write!(
                f,
                "it was imported as payment {id}; if it is another payment of the same number, amount and date, give it a reference of its own"
            ),
            SkipReason::Undone(id, date) => write!(
                f,
                "it was imported as payment {id}, which was undone on {date}; to import it again, give it another reference"
            ),
            SkipReason::Repeats(first) => write!(
                f,
                "it says the same as line {first}; if there were two payments, give them different references"
            ),
        }
    }
}

impl<S: SavedRows> Receivables<'_, S> {
    pub fn plan_import(&self, file: &PaymentFile) -> Result<ImportPlan, S::Error> {
        let mut plan = ImportPlan { payments: Vec::new(), skipped: Vec::new(), waiting: Vec::new() };
        for its in &file.lines {
            let known = self.rows.get::<u64>(&named(b'k', &its.payment.key()))?.map(PaymentId);
            let undone = known.map(|id| self.payment(id)).transpose()?.flatten().and_then(|row| row.undone);
            let reason = match (known, undone, its.repeats) {
                (Some(id), Some(date), _) => SkipReason::Undone(id, date),
                (Some(id), None, _) => SkipReason::Imported(id),
                (None, _, Some(first)) => SkipReason::Repeats(first),
                (None, _, None) => {
                    if let PaymentState::Waiting(why) = self.state_of(&its.payment)? {
                        plan.waiting.push((its.line, why));
                    }
                    plan.payments.push(its.payment.clone());
                    continue;
                }
            };
            plan.skipped.push(SkippedPayment { line: its.line, reason });
        }
        Ok(plan)
    }
}
