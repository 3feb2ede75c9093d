//! Reads a CSV file with a header line by line, and collects everything that is wrong with it.

use crate::parking::json::other_encoding;
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
    pub(super) fn new(line: usize, field: &'static str, reason: impl fmt::Display) -> BadLine {
        BadLine { line, field: Some(field), reason: reason.to_string() }
    }
    fn whole(line: usize, reason: impl fmt::Display) -> BadLine {
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
pub(super) fn whole<T>(read: T, mut bad: Vec<BadLine>) -> Result<T, ImportError> {
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

/// One record: a cell for each column, in the order of the columns that were asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CsvRow<const N: usize> {
    pub(super) line: usize,
    pub(super) cells: [String; N],
}

/// The records below the header, and the bad lines. The header names `columns`, in any order; the separator is what a first
/// line `sep=;` says, else the one of comma, semicolon and tab that the header has most of. Spreadsheets save empty rows, and
/// empty columns without a name: they say nothing and are passed over.
pub(super) fn read<const N: usize>(
    text: &str,
    columns: [&'static str; N],
) -> Result<(Vec<CsvRow<N>>, Vec<BadLine>), ImportError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (separator, table_at) = separator(text);
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(separator)
        .from_reader(&text.as_bytes()[table_at..]);
    let mut lines = Lines::FIRST;
    let mut places = None;
    let (mut rows, mut bad) = (Vec::new(), Vec::new());
    let mut record = csv::StringRecord::new();
    while reader.read_record(&mut record).expect("a text is readable and UTF-8") {
        let begin =
            record.position().map_or(0, |place| usize::try_from(place.byte()).expect("it is within memory"));
        let line = lines.at(text.as_bytes(), table_at + begin);
        // Behind the last cell that says something, a spreadsheet may write any number of empty ones.
        let says = |place: &usize| !record[*place].trim().is_empty();
        let Some(length) = (0..record.len()).rev().find(says).map(|last| last + 1) else {
            continue;
        };
        let Some((places, width)) = &places else {
            places = Some((find(&record, columns, line)?, length));
            continue;
        };
        if record.len() < *width || length > *width {
            let fields = if length > *width { length } else { record.len() };
            bad.push(BadLine::whole(line, format!("it has {fields} fields, the header has {width}")));
            continue;
        }
        let is_nameless = |(place, cell): &(usize, &str)| !places.contains(place) && !cell.trim().is_empty();
        if let Some((place, cell)) = record.iter().enumerate().find(is_nameless) {
            let reason = format!("cell {} holds {:?}, and its column has no name", place + 1, cell.trim());
            bad.push(BadLine::whole(line, reason));
            continue;
        }
        rows.push(CsvRow { line, cells: std::array::from_fn(|n| record[places[n]].trim().to_owned()) });
    }
    match places {
        None => Err(no_header(1, &columns, "the file is empty")),
        Some(_) => Ok((rows, bad)),
    }
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

/// Where in a record the columns are. Cells without a name say nothing.
fn find<const N: usize>(
    header: &csv::StringRecord,
    columns: [&'static str; N],
    line: usize,
) -> Result<[usize; N], ImportError> {
    let mut places = [None; N];
    for (place, name) in header.iter().enumerate().filter(|(_, name)| !name.trim().is_empty()) {
        let name = name.trim();
        match columns.iter().position(|column| column.eq_ignore_ascii_case(name)) {
            None => return Err(no_header(line, &columns, &format!("{name:?} is not a column"))),
            Some(column) if places[column].is_some() => {
                return Err(no_header(line, &columns, &format!("{name:?} stands twice")));
            }
            Some(column) => places[column] = Some(place),
        }
    }
    match places.iter().position(Option::is_none) {
        Some(column) => Err(no_header(line, &columns, &format!("{:?} is missing", columns[column]))),
        None => Ok(places.map(|place| place.expect("none is missing"))),
    }
}

fn no_header(line: usize, columns: &[&str], what: &str) -> ImportError {
    let reason = format!("{what}; the first line names the columns {}", columns.join(","));
    ImportError(vec![BadLine::whole(line, reason)])
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

    fn rows(text: &str) -> Vec<(usize, [String; 2])> {
        let (rows, bad) = read(text, ["a", "b"]).unwrap();
        assert_eq!(bad, []);
        rows.into_iter().map(|row| (row.line, row.cells)).collect()
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
        let (rows, bad) = read("a,b\n1\n1,2\n1,2,3\n", ["a", "b"]).unwrap();
        assert_eq!(rows.len(), 1);
        let bad: Vec<String> = bad.iter().map(ToString::to_string).collect();
        assert_eq!(
            bad,
            ["line 2: it has 1 fields, the header has 2", "line 4: it has 3 fields, the header has 2"]
        );
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
        let (_, bad) = read("a,,b\n1,,2\n1, why ,2\n1,,2,,x\n", ["a", "b"]).unwrap();
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
            ("1,2\n", "line 1: \"1\" is not a column"),
            ("a\n1\n", "line 1: \"b\" is missing"),
            ("\na,b,a\n", "line 2: \"a\" stands twice"),
            ("a,b,colour\n", "line 1: \"colour\" is not a column"),
        ] {
            assert_eq!(
                read(text, ["a", "b"]).unwrap_err().to_string(),
                format!("{reason}{hint}"),
                "{text:?}"
            );
        }
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
