//! A CSV file with a header, line by line, with everything that is wrong with it.

use std::fmt;

/// A line of a file that cannot be taken, and why.
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

/// Nothing of the file was taken. At least one line is bad; all that are stand here, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportError(pub Vec<BadLine>);

impl std::error::Error for ImportError {}

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, bad) in self.0.iter().enumerate() {
            let before = if n == 0 { "" } else { "\n" };
            write!(f, "{before}{bad}")?;
        }
        Ok(())
    }
}

/// The text of a file. Spreadsheets on Windows like to save another encoding: that is said with the line.
pub fn decode(bytes: &[u8]) -> Result<&str, ImportError> {
    std::str::from_utf8(bytes).map_err(|error| {
        let mut lines = Lines::default();
        let line = lines.at(&bytes[..error.valid_up_to()], error.valid_up_to());
        ImportError(vec![BadLine::whole(line, "it is not UTF-8; save the file as \"CSV UTF-8\"")])
    })
}

/// One record: a cell for each column, in the order of the columns that were asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Row<const N: usize> {
    pub(super) line: usize,
    pub(super) cells: [String; N],
}

/// The records below the header, and the lines that are none. The header names `columns`, in any order; the separator is a
/// comma, or a semicolon where the header has that. A record whose cells are all empty says nothing and is passed over.
pub(super) fn read<const N: usize>(
    text: &str,
    columns: [&'static str; N],
) -> Result<(Vec<Row<N>>, Vec<BadLine>), ImportError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let header = text.trim_start().lines().next().unwrap_or_default();
    let separator = if header.matches(';').count() > header.matches(',').count() { b';' } else { b',' };
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(separator)
        .from_reader(text.as_bytes());
    let mut lines = Lines::default();
    let mut places = None;
    let (mut rows, mut bad) = (Vec::new(), Vec::new());
    let mut record = csv::StringRecord::new();
    while reader.read_record(&mut record).expect("a text is readable and UTF-8") {
        let begin =
            record.position().map_or(0, |place| usize::try_from(place.byte()).expect("it is within memory"));
        let line = lines.at(text.as_bytes(), begin);
        let Some((places, width)) = &places else {
            places = Some((find(&record, columns, line)?, record.len()));
            continue;
        };
        if record.iter().all(|cell| cell.trim().is_empty()) {
            continue;
        }
        if record.len() != *width {
            let reason = format!("it has {} fields, the header has {width}", record.len());
            bad.push(BadLine::whole(line, reason));
            continue;
        }
        rows.push(Row { line, cells: std::array::from_fn(|n| record[places[n]].trim().to_owned()) });
    }
    match places {
        None => Err(ImportError(vec![no_header(1, &columns, "the file is empty")])),
        Some(_) => Ok((rows, bad)),
    }
}

/// Where in a record the columns are.
fn find<const N: usize>(
    header: &csv::StringRecord,
    columns: [&'static str; N],
    line: usize,
) -> Result<[usize; N], ImportError> {
    let mut places = [None; N];
    for (place, name) in header.iter().enumerate() {
        let name = name.trim();
        match columns.iter().position(|column| column.eq_ignore_ascii_case(name)) {
            None => {
                return Err(ImportError(vec![no_header(line, &columns, &format!("{name:?} is no column"))]));
            }
            Some(column) if places[column].is_some() => {
                return Err(ImportError(vec![no_header(line, &columns, &format!("{name:?} stands twice"))]));
            }
            Some(column) => places[column] = Some(place),
        }
    }
    match places.iter().position(Option::is_none) {
        Some(column) => {
            Err(ImportError(vec![no_header(line, &columns, &format!("{:?} is missing", columns[column]))]))
        }
        None => Ok(places.map(|place| place.expect("none is missing"))),
    }
}

fn no_header(line: usize, columns: &[&str], what: &str) -> BadLine {
    BadLine::whole(line, format!("{what}; the first line names the columns {}", columns.join(",")))
}

/// Counts lines up to places that only ever move on.
struct Lines {
    line: usize,
    place: usize,
}

impl Default for Lines {
    fn default() -> Lines {
        Lines { line: 1, place: 0 }
    }
}

impl Lines {
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

    #[test]
    fn a_file_without_its_header_is_refused() {
        let hint = "; the first line names the columns a,b";
        for (text, reason) in [
            ("", "line 1: the file is empty"),
            ("\u{feff}\r\n", "line 1: the file is empty"),
            ("1,2\n", "line 1: \"1\" is no column"),
            ("a\n1\n", "line 1: \"b\" is missing"),
            ("\na,b,a\n", "line 2: \"a\" stands twice"),
            ("a,b,colour\n", "line 1: \"colour\" is no column"),
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
    }
}
