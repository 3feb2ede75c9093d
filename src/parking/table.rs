//! CSV files with a header, as operators write them by hand or save them from a spreadsheet.
//!
//! **Promise.** A file is read whole or not at all; when it is not, every bad line is named with its number, its field and the
//! reason. Columns are found by their names, in any order; a column that is not known is ignored, with a warning.
//! **Kept by.** [`CsvFile::each_row`] hands every line to its reader and collects what is wrong; [`whole`] returns what was read only
//! when nothing is.

use super::json::other_encoding;
use jiff::civil::Date;
use std::fmt;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct BadLine {
    /// From 1, as an editor counts; where a record spans several, the first.
    pub line: usize,
    /// The column, where one is to blame.
    pub field: Option<&'static str>,
    pub reason: String,
}

impl BadLine {
    pub fn new(line: usize, field: &'static str, reason: impl fmt::Display) -> BadLine {
        BadLine { line, field: Some(field), reason: reason.to_string() }
    }
    pub fn whole(line: usize, reason: impl fmt::Display) -> BadLine {
        BadLine { line, field: None, reason: reason.to_string() }
    }
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.field {
            Some(field) => write!(f, "line {}, {field}: {}", self.line, self.reason),
            None => write!(f, "line {}: {}", self.line, self.reason),
        }
    }
}

/// Nothing of the file was used. Contains all bad lines in order, at least one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct ImportError(pub Vec<BadLine>);

/// What was read of a file, when no line of it is bad.
pub fn whole<T>(read: T, mut bad: Vec<BadLine>) -> Result<T, ImportError> {
    bad.sort();
    if bad.is_empty() { Ok(read) } else { Err(ImportError(bad)) }
}

/// The text of a file. Spreadsheets often save other encodings: the error names the encoding, or the line.
pub fn decode(bytes: &[u8]) -> Result<&str, ImportError> {
    if let Some(encoding) = other_encoding(bytes) {
        let reason = format!("it looks like {encoding}; save the file as \"CSV UTF-8\"");
        return Err(ImportError(vec![BadLine::whole(1, reason)]));
    }
    std::str::from_utf8(bytes).map_err(|error| {
        let mut lines = Lines::FIRST;
        let line = lines.at(&bytes[..error.valid_up_to()], error.valid_up_to());
        ImportError(vec![BadLine::whole(line, "it is not UTF-8; save the file as \"CSV UTF-8\"")])
    })
}

/// The date in a cell. One form only: 1.2.2026 is another day elsewhere.
pub fn date(text: &str) -> Result<Date, String> {
    let is_digit_or_dash =
        |(place, c): (usize, u8)| if matches!(place, 4 | 7) { c == b'-' } else { c.is_ascii_digit() };
    let has_form = text.len() == 10 && text.bytes().enumerate().all(is_digit_or_dash);
    let date = text.parse::<Date>().ok().filter(|_| has_form);
    date.ok_or_else(|| format!("{text:?} is not a date; a date looks like 2026-11-30"))
}

/// A column that a reader asks for, by its name in the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Column {
    Required(&'static str),
    /// Its cells are empty where the header does not name it.
    Optional(&'static str),
}

impl Column {
    const fn name(self) -> &'static str {
        match self {
            Column::Required(name) | Column::Optional(name) => name,
        }
    }
}

/// One record: a cell for each column, in the order of the columns that were asked for, without spaces at its ends.
#[derive(Debug)]
pub struct CsvRow<'a, const N: usize> {
    pub line: usize,
    pub cells: [&'a str; N],
}

impl<const N: usize> CsvRow<'_, N> {
    /// The value of a cell; `None` when it is wrong, which is then noted in `bad`.
    pub fn check<T, E: fmt::Display>(
        &self,
        field: &'static str,
        value: Result<T, E>,
        bad: &mut Vec<BadLine>,
    ) -> Option<T> {
        value.map_err(|error| bad.push(BadLine::new(self.line, field, error))).ok()
    }
}

/// A file whose header was read. The separator is what a first line `sep=;` says, else the one of comma, semicolon and tab that the
/// header has most of. Spreadsheets save empty rows, and empty columns without a name: they say nothing and are passed over.
pub struct CsvFile<'a, const N: usize> {
    text: &'a [u8],
    /// Where the reader began in the text.
    table_at: usize,
    reader: csv::Reader<&'a [u8]>,
    lines: Lines,
    places: HeaderPlaces<N>,
}

/// Where in a record the columns are.
struct HeaderPlaces<const N: usize> {
    /// `None`: an optional column that the header does not name.
    columns: [Option<usize>; N],
    nameless: Vec<usize>,
    /// Number of fields of the header, without empty ones behind the last name.
    width: usize,
    warnings: Vec<String>,
}

impl<'a, const N: usize> CsvFile<'a, N> {
    /// Reads the header. `Err`: it lacks a required column, or names one twice.
    pub fn open(text: &'a str, columns: [Column; N]) -> Result<CsvFile<'a, N>, ImportError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let (separator, table_at) = separator(text);
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(separator)
            .from_reader(&text.as_bytes()[table_at..]);
        let mut lines = Lines::FIRST;
        let mut record = csv::StringRecord::new();
        while read_record(&mut reader, &mut record) {
            let line = lines.at(text.as_bytes(), table_at + begin(&record));
            if let Some(width) = width(&record) {
                let places = find(&record, width, columns, line)?;
                return Ok(CsvFile { text: text.as_bytes(), table_at, reader, lines, places });
            }
        }
        Err(no_header(1, &columns, "the file is empty"))
    }

    /// Whether the header names the column with this index in the columns that were asked for.
    pub fn has(&self, column: usize) -> bool {
        self.places.columns[column].is_some()
    }

    /// A sentence for each column that is ignored.
    pub fn warnings(&self) -> &[String] {
        &self.places.warnings
    }

    /// Reads the rows below the header one by one, and returns the bad lines: those that are no row of this table, and what `each` adds.
    pub fn each_row(mut self, mut each: impl FnMut(CsvRow<'_, N>, &mut Vec<BadLine>)) -> Vec<BadLine> {
        let mut bad = Vec::new();
        let mut record = csv::StringRecord::new();
        let HeaderPlaces { columns, nameless, width: header_width, .. } = self.places;
        while read_record(&mut self.reader, &mut record) {
            let line = self.lines.at(self.text, self.table_at + begin(&record));
            let Some(width) = width(&record) else { continue };
            if record.len() < header_width || width > header_width {
                let fields = match if width > header_width { width } else { record.len() } {
                    1 => "1 field".to_owned(),
                    fields => format!("{fields} fields"),
                };
                // A cell that is not closed goes on to the next quotation mark, or to the end of the file.
                let quote = match record.iter().any(|cell| cell.contains(['\n', '\r'])) {
                    true => "; one of them goes over several lines: is a quotation mark missing?",
                    false => "",
                };
                bad.push(BadLine::whole(
                    line,
                    format!("it has {fields}, the header has {header_width}{quote}"),
                ));
                continue;
            }
            if let Some(place) = nameless.iter().find(|place| !cell(&record, **place).is_empty()) {
                let reason = format!(
                    "cell {} holds {:?}, and its column has no name",
                    place + 1,
                    cell(&record, *place)
                );
                bad.push(BadLine::whole(line, reason));
                continue;
            }
            let cells = columns.map(|place| place.map_or("", |place| cell(&record, place)));
            each(CsvRow { line, cells }, &mut bad);
        }
        bad
    }
}

fn read_record(reader: &mut csv::Reader<&[u8]>, record: &mut csv::StringRecord) -> bool {
    reader.read_record(record).expect("a text is readable and UTF-8")
}

/// Where a record begins, counted from where the reader began.
fn begin(record: &csv::StringRecord) -> usize {
    record.position().map_or(0, |place| usize::try_from(place.byte()).expect("it is within memory"))
}

fn cell(record: &csv::StringRecord, place: usize) -> &str {
    record.get(place).unwrap_or_default().trim()
}

/// The number of fields through the last that says something; behind it a spreadsheet may write any number of empty ones.
fn width(record: &csv::StringRecord) -> Option<usize> {
    (0..record.len()).rev().find(|place| !cell(record, *place).is_empty()).map(|last| last + 1)
}

/// The separator, and where the table begins.
fn separator(text: &str) -> (u8, usize) {
    let mut begin = 0;
    for line in text.split_inclusive(['\r', '\n']) {
        let said = line.trim_end_matches(['\r', '\n']);
        // What Excel reads and some programs write: `sep=;`, with other separators behind it where it was saved again.
        let said = said.trim_start_matches('"').as_bytes();
        match said {
            [b's' | b'S', b'e' | b'E', b'p' | b'P', b'=', separator, ..] => {
                return (*separator, begin + line.len());
            }
            _ if said.trim_ascii().is_empty() => begin += line.len(),
            _ => break,
        }
    }
    let header = text[begin..].split(['\r', '\n']).next().unwrap_or_default();
    let count = |separator: &u8| header.bytes().filter(|byte| byte == separator).count();
    // Of several with as many, the last: a comma, where there is none of any.
    (b"\t;,".iter().copied().max_by_key(count).unwrap_or(b','), 0)
}

fn find<const N: usize>(
    header: &csv::StringRecord,
    width: usize,
    columns: [Column; N],
    line: usize,
) -> Result<HeaderPlaces<N>, ImportError> {
    let mut places = HeaderPlaces { columns: [None; N], nameless: Vec::new(), width, warnings: Vec::new() };
    for place in 0..width {
        let name = cell(header, place);
        match columns.iter().position(|column| column.name().eq_ignore_ascii_case(name)) {
            _ if name.is_empty() => places.nameless.push(place),
            None => places.warnings.push(format!(
                "line {line}: the column {name:?} is not known and was ignored; {}",
                columns_of_a_file(&columns)
            )),
            Some(column) if places.columns[column].is_some() => {
                return Err(no_header(line, &columns, &format!("{name:?} stands twice")));
            }
            Some(column) => places.columns[column] = Some(place),
        }
    }
    let is_missing = |(column, place): &(&Column, &Option<usize>)| {
        matches!(column, Column::Required(_)) && place.is_none()
    };
    match columns.iter().zip(&places.columns).find(is_missing) {
        Some((column, _)) => Err(no_header(line, &columns, &format!("{:?} is missing", column.name()))),
        None => Ok(places),
    }
}

fn no_header(line: usize, columns: &[Column], what: &str) -> ImportError {
    ImportError(vec![BadLine::whole(line, format!("{what}; {}", columns_of_a_file(columns)))])
}

fn columns_of_a_file(columns: &[Column]) -> String {
    let names = |wanted: fn(&Column) -> bool| {
        let names = columns.iter().filter(|column| wanted(column)).map(|column| column.name());
        names.collect::<Vec<_>>().join(",")
    };
    let (required, optional) = (
        names(|column| matches!(column, Column::Required(_))),
        names(|column| matches!(column, Column::Optional(_))),
    );
    match (required.is_empty(), optional.is_empty()) {
        (_, true) => format!("the first line names the columns {required}"),
        (true, false) => format!("the first line may name the columns {optional}"),
        (false, false) => format!("the first line names the columns {required}, and may name {optional}"),
    }
}

/// Counts lines up to places that never move back.
struct Lines {
    line: usize,
    place: usize,
}

impl Lines {
    const FIRST: Lines = Lines { line: 1, place: 0 };

    /// The line of the record that is found from `begin` on: the line ends between it and the one before are not its own.
    fn at(&mut self, text: &[u8], begin: usize) -> usize {
        let ends = text[begin..].iter().take_while(|c| matches!(c, b'\r' | b'\n')).count();
        let begin = (begin + ends).max(self.place);
        let passed = &text[self.place..begin];
        // "\r\n" is one end, and so is either alone.
        let ends = passed
            .iter()
            .enumerate()
            .filter(|(n, c)| **c == b'\n' || (**c == b'\r' && text.get(self.place + n + 1) != Some(&b'\n')));
        self.line += ends.count();
        self.place = begin;
        self.line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AB: [Column; 2] = [Column::Required("a"), Column::Required("b")];

    type Rows = Vec<(usize, [String; 2])>;
    fn read(text: &str, columns: [Column; 2]) -> Result<(Rows, Vec<BadLine>), ImportError> {
        let mut rows = Vec::new();
        let bad = CsvFile::open(text, columns)?
            .each_row(|row, _| rows.push((row.line, row.cells.map(str::to_owned))));
        Ok((rows, bad))
    }
    fn rows(text: &str) -> Rows {
        let (rows, bad) = read(text, AB).unwrap();
        assert_eq!(bad, []);
        rows
    }
    fn cells(a: &str, b: &str) -> [String; 2] {
        [a.to_owned(), b.to_owned()]
    }

    #[test]
    fn a_table_is_read_whatever_program_wrote_it() {
        let expected = vec![(2, cells("1", "x, y")), (3, cells("2", ""))];
        for text in [
            "a,b\n1,\"x, y\"\n2,\n",
            "\u{feff}a,b\r\n1,\"x, y\"\r\n2,\r\n",
            "a;b\r\n1;x, y\r\n2;",
            "A , B\n 1 ,\"x, y\"\n2, ",
            "b,a\n\"x, y\",1\n,2\n",
            "a,b\r1,\"x, y\"\r2,\r",
            "a\tb\r\n1\tx, y\r\n2\t",
        ] {
            assert_eq!(rows(text), expected, "{text:?}");
        }
    }

    #[test]
    fn lines_are_counted_as_an_editor_counts() {
        let text = "\n\na,b\n\n1,2\r\n\r\n,\n\"3\n\",4\n5,6";
        let expected = vec![(5, cells("1", "2")), (8, cells("3", "4")), (10, cells("5", "6"))];
        assert_eq!(rows(text), expected);
    }

    #[test]
    fn a_line_with_another_number_of_fields_is_bad() {
        let (rows, bad) = read("a,b\n1\n1,2\n1,2,3\n", AB).unwrap();
        assert_eq!(rows.len(), 1);
        let bad: Vec<String> = bad.iter().map(ToString::to_string).collect();
        assert_eq!(
            bad,
            ["line 2: it has 1 field, the header has 2", "line 4: it has 3 fields, the header has 2"]
        );
    }

    #[test]
    fn a_quotation_mark_that_is_missing_is_suspected() {
        for text in ["a,b\n1,2\n\"3,4\n5,6\n", "a,b\n1,2\n\"3,4\n5,\"6\n"] {
            let (_, bad) = read(text, AB).unwrap();
            let bad: Vec<String> = bad.iter().map(ToString::to_string).collect();
            assert!(bad[0].starts_with("line 3: it has 1 field, the header has 2; one of them"), "{bad:?}");
            assert!(bad[0].ends_with("is a quotation mark missing?"), "{bad:?}");
        }
    }

    /// What spreadsheets save beside the table was refused with a message about a cell that nobody sees.
    #[test]
    fn what_spreadsheets_save_beside_the_table_is_passed_over() {
        for text in [
            "sep=;\na;b\n1;\"x, y\"\n2;\n",
            "\u{feff}sep=;\r\na;b\r\n1;x, y\r\n2;\r\n",
            "\"sep=;\"\r\na;b\r\n1;x, y\r\n2;\r\n",
            "SEP=\t\na\tb\n1\tx, y\n2\t\n",
            "sep=|\na|b\n1|x, y\n2|\n",
            ",\na,b\n1,\"x, y\"\n2,\n",
        ] {
            let lines = vec![(3, cells("1", "x, y")), (4, cells("2", ""))];
            assert_eq!(rows(text), lines, "{text:?}");
        }
        let expected = vec![(2, cells("1", "x, y")), (3, cells("2", "")), (5, cells("3", "4"))];
        for text in [
            "a,b,,\n1,\"x, y\",,\n2,,,\n,,,\n3,4\n",
            "a,b\n1,\"x, y\",,\n2,,,\n,,,\n3,4,\n",
            ",a,,b,\n,1,,\"x, y\",\n,2,,,\n,,,,\n,3,,4,\n",
            ";a; ;b;\n;1;;x, y;\n;2;;;\n;;;;\n;3;;4;\n",
            "\ta\t\tb\t\n\t1\t\tx, y\t\n\t2\t\t\t\n\t\t\n\t3\t\t4\n",
        ] {
            assert_eq!(rows(text), expected, "{text:?}");
        }
        let (_, bad) = read("a,,b\n1,,2\n1, why ,2\n1,,2,,x\n", AB).unwrap();
        let bad: Vec<String> = bad.iter().map(ToString::to_string).collect();
        assert_eq!(
            bad,
            [
                "line 3: cell 2 holds \"why\", and its column has no name",
                "line 4: it has 5 fields, the header has 3"
            ]
        );
    }

    #[test]
    fn a_file_without_its_header_is_refused() {
        let hint = "; the first line names the columns a,b";
        for (text, reason) in [
            ("", "line 1: the file is empty"),
            ("\u{feff}\r\n", "line 1: the file is empty"),
            ("1,2\n", "line 1: \"a\" is missing"),
            ("a\n1\n", "line 1: \"b\" is missing"),
            ("\na,b,a\n", "line 2: \"a\" stands twice"),
        ] {
            assert_eq!(read(text, AB).unwrap_err().to_string(), format!("{reason}{hint}"), "{text:?}");
        }
    }

    #[test]
    fn an_unknown_column_is_ignored_with_a_warning_and_an_optional_one_may_be_missing() {
        let columns = [Column::Required("a"), Column::Optional("b")];
        let table = CsvFile::open("colour,a,\nred,1,\n", columns).unwrap();
        let warning = "line 1: the column \"colour\" is not known and was ignored; the first line names the columns a, and may name b";
        assert_eq!(table.warnings(), [warning]);
        assert_eq!([table.has(0), table.has(1)], [true, false]);
        assert_eq!(read("colour,a,\nred,1,\n", columns).unwrap().0, [(2, cells("1", ""))]);
        let table = CsvFile::open("b,a\n", columns).unwrap();
        assert_eq!((table.warnings(), table.has(1)), (&[][..], true));
        let error = CsvFile::open("b\n", columns).err().unwrap().to_string();
        assert_eq!(error, "line 1: \"a\" is missing; the first line names the columns a, and may name b");
    }

    #[test]
    fn a_wrong_cell_is_noted_with_its_line_and_field() {
        let bad = CsvFile::open("a,b\n1,2026-11-30\n2,30.11.2026\n", AB).unwrap().each_row(|row, bad| {
            let day = row.check("b", date(row.cells[1]), bad);
            assert_eq!(day.is_some(), row.cells[0] == "1");
        });
        let expected = "line 3, b: \"30.11.2026\" is not a date; a date looks like 2026-11-30";
        assert_eq!(whole((), bad).unwrap_err().to_string(), expected);
    }

    #[test]
    fn another_encoding_is_named_with_its_line() {
        assert_eq!(decode("a,ä\n".as_bytes()), Ok("a,ä\n"));
        let error = decode(b"a,b\r\n1,2\r\nM\xfcller,3\r\n").unwrap_err();
        assert!(error.to_string().starts_with("line 3: it is not UTF-8"), "{error}");
        let unicode_text: Vec<u8> = "\u{feff}a\tb\r\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let error = decode(&unicode_text).unwrap_err();
        assert!(error.to_string().starts_with("line 1: it looks like UTF-16; save"), "{error}");
    }
}
