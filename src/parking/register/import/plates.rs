//! `plates import`: adds registrations.

use super::{RegisterImport, Warnings};
use crate::parking::Plate;
use crate::parking::name::{Account, printable};
use crate::parking::register::state::disagreements;
use crate::parking::register::{
    CustomerFields, CustomerRecord, DateRange, Disagreement, Held, PlateEntry, Register, RegisterFact,
};
use crate::parking::table::{BadLine, Column, CsvFile, CsvRow, ImportError, date, whole};
use std::collections::BTreeMap;

/// A line of the file. They are sorted by plate, then by dates.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct PlateLine {
    plate: Plate,
    dates: DateRange,
    account: Account,
    line: usize,
}

const COLUMNS: [Column; 5] = [
    Column::Required("plate"),
    Column::Required("account"),
    Column::Optional("name"),
    Column::Optional("valid_from"),
    Column::Optional("valid_to"),
];

impl Register {
    /// Reads `plate,account,name,valid_from,valid_to`. Each line registers a plate in its dates; an empty date is open, the last day is
    /// included. A line that gives a plate to two accounts on one day, within the file or with what is registered, is refused. `name`
    /// makes the customer record of an account that has none.
    pub fn import_plates(&self, text: &str) -> Result<RegisterImport, ImportError> {
        let file = CsvFile::open(text, COLUMNS)?;
        let mut warnings = Warnings { list: file.warnings().to_vec(), more: 0 };
        let mut names: BTreeMap<Account, (usize, String)> = BTreeMap::new();
        let mut lines: Vec<PlateLine> = Vec::new();
        let mut bad = file.each_row(|row, bad| {
            let Some((line, name)) = read_line(&row, bad) else { return };
            self.note_name(&mut names, &mut warnings, &line, name);
            lines.push(line);
        });
        lines.sort_unstable();
        let named = |(account, (_, name)): (Account, (usize, String))| {
            let customer = CustomerRecord::new(CustomerFields { name, ..CustomerFields::default() }).ok()?;
            Some(RegisterFact::Customer { account, customer: Box::new(customer) })
        };
        let mut facts: Vec<RegisterFact> = names.into_iter().filter_map(named).collect();
        let mut disagreements = Vec::new();
        for its in lines.chunk_by(|line, next| line.plate == next.plate) {
            self.check_plate(its, &mut facts, &mut disagreements, &mut bad);
        }
        let is_unnamed = |plate: &Plate| lines.binary_search_by_key(&plate, |line| &line.plate).is_err();
        let held = self.plates().iter().filter(|(_, entry)| !entry.holders.list().is_empty());
        let unnamed = held.map(|(plate, _)| plate).filter(|plate| is_unnamed(plate)).cloned().collect();
        whole(RegisterImport { facts, warnings: warnings.finish(), disagreements, unnamed }, bad)
    }

    /// Keeps the first name of an account without a record.
    fn note_name(
        &self,
        names: &mut BTreeMap<Account, (usize, String)>,
        warnings: &mut Warnings,
        PlateLine { account, line, .. }: &PlateLine,
        name: String,
    ) {
        if name.is_empty() {
            return;
        }
        let known = self.customer(account).map(|customer| customer.name.as_str());
        match (known, names.get(account)) {
            (Some(known), _) if known != name => warnings.add(format!(
                "line {line}: the name {name:?} is not used: account {account:?} has a record, with the name {known:?}; \"server accounts set\" changes it"
            )),
            (None, Some((first, known))) if *known != name => warnings.add(format!(
                "line {line}: the name {name:?} is not used: line {first} says {known:?} for account {account:?}"
            )),
            (None, None) => _ = names.insert(account.clone(), (*line, name)),
            _ => {}
        }
    }

    /// Checks the lines of one plate, in the order of their dates, and adds what they change.
    fn check_plate(
        &self,
        lines: &[PlateLine],
        facts: &mut Vec<RegisterFact>,
        found: &mut Vec<Disagreement>,
        bad: &mut Vec<BadLine>,
    ) {
        let Some(PlateLine { plate, .. }) = lines.first() else { return };
        let entry = self.plate(plate).cloned().unwrap_or_default();
        let mut holders = entry.holders.clone();
        // Of the lines before, the one that ends last: a line that begins later overlaps with it, or with none.
        let mut reaching: Option<&PlateLine> = None;
        for line in lines {
            let PlateLine { dates, account, line: number, .. } = line;
            let others = entry.holders.overlapping(*dates).find(|held| held.account != *account);
            if let Some(Held { dates, account }) = others {
                let reason = format!(
                    "{plate} is registered to {account:?} {dates}; to end that first, use \"server plates remove {plate} --on DATE\""
                );
                bad.push(BadLine::new(*number, "plate", reason));
                continue;
            }
            let overlaps = |first: &&PlateLine| first.dates.overlap(*dates).is_some();
            if let Some(first) = reaching.filter(overlaps).filter(|first| first.account != *account) {
                let reason = format!(
                    "{plate} has account {:?} {} in line {}: one plate has one account on a day",
                    first.account, first.dates, first.line
                );
                bad.push(BadLine::new(*number, "plate", reason));
                continue;
            }
            if reaching.is_none_or(|first| first.dates.around(*dates) != first.dates) {
                reaching = Some(line);
            }
            if holders.differing(*dates, Some(account)).is_empty() {
                continue;
            }
            holders = holders.set(*dates, Some(account));
            if !entry.clone().with_holders(holders.clone()).fits() {
                let reason = format!(
                    "{plate} has more registrations than can be kept, {} bytes",
                    PlateEntry::MAX_BYTES
                );
                bad.push(BadLine::new(*number, "plate", reason));
                return;
            }
            let (plate, account) = (plate.clone(), Some(account.clone()));
            facts.push(RegisterFact::Holder { plate, dates: *dates, account });
        }
        let after = entry.with_holders(holders);
        found.extend(disagreements(plate, &after, |line| self.account_of_line(line)));
    }
}

fn read_line(row: &CsvRow<'_, 5>, bad: &mut Vec<BadLine>) -> Option<(PlateLine, String)> {
    let [plate, account, name, from, to] = row.cells;
    let plate = row.check("plate", Plate::new(plate), bad);
    let account = row.check("account", Account::new(account), bad);
    let name = row.check("name", printable(name, CustomerRecord::NAME_BYTES), bad);
    let dates = read_dates(row, from, to, bad);
    Some((PlateLine { plate: plate?, account: account?, dates: dates?, line: row.line }, name?))
}

/// The columns `valid_from` and `valid_to`. An empty one is open.
pub(super) fn read_dates<const N: usize>(
    row: &CsvRow<'_, N>,
    from: &str,
    to: &str,
    bad: &mut Vec<BadLine>,
) -> Option<DateRange> {
    let read = |text: &str| if text.is_empty() { Ok(None) } else { date(text).map(Some) };
    let (from, to) = (row.check("valid_from", read(from), bad), row.check("valid_to", read(to), bad));
    row.check("valid_to", DateRange::new(from?, to?), bad)
}
