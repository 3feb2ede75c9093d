//! The files of a month: statements in a directory of their own, the journal in one file.
//!
//! **Promise.** A file or directory under the requested name is complete: every account's statement in every format, and an index
//! that names them all. On an error nothing is left under that name, and nothing that was there before is touched.
//! **Kept by.** The files are written next to it under another name, and renamed as the last step.
//! **Not promised.** That the files survive a power cut within the next seconds: they can be written again.

use super::flags::StatementFormat;
use crate::codes::{self, Code, Coded};
use crate::parking::statement::overview::Overview;
use crate::parking::statement::{Month, Statement};
use crate::store::directory::parent_of;
use crate::store::if_there;
use std::collections::HashSet;
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use tempfile::{NamedTempFile, TempDir};

const INDEX: &str = "index.csv";

impl StatementFormat {
    fn ending(self) -> &'static str {
        match self {
            StatementFormat::Text => "txt",
            StatementFormat::Json => "json",
            StatementFormat::Csv => "csv",
            StatementFormat::Html => "html",
        }
    }

    pub(super) fn render(self, statement: &Statement) -> String {
        match self {
            StatementFormat::Text => statement.to_text(),
            StatementFormat::Json => {
                let json = serde_json::to_string_pretty(&statement.to_json());
                json.expect("a statement always encodes") + "\n"
            }
            StatementFormat::Csv => statement.to_csv(),
            StatementFormat::Html => statement.to_html(),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error("{0:?} is not empty. Nothing was written. Give a new directory, or an empty one")]
    NotEmpty(PathBuf),
    #[error("{0:?} exists already. Nothing was written. Give another --out, or move it away")]
    There(PathBuf),
    #[error(
        "cannot write {path:?}: {source}. Nothing was left under that name, and the books are not changed"
    )]
    Io { path: PathBuf, source: io::Error },
}

impl Coded for ExportError {
    fn code(&self) -> Code {
        codes::EXPORT_FAILED
    }
}

pub(super) struct Directory {
    out: PathBuf,
    month: Month,
    formats: Vec<StatementFormat>,
    /// Gone with us, unless it got its name.
    unfinished: TempDir,
    names: HashSet<String>,
    overview: Overview,
    pub(super) statements: u64,
    pub(super) lines: u64,
}

impl Directory {
    /// `out` must not exist, or be empty.
    pub(super) fn begin(
        out: &Path,
        month: Month,
        formats: &[StatementFormat],
    ) -> Result<Directory, ExportError> {
        let failed = |source| ExportError::Io { path: out.to_owned(), source };
        let entries = if_there(fs::read_dir(out)).map_err(failed)?;
        if entries.is_some_and(|mut entries| entries.next().is_some()) {
            return Err(ExportError::NotEmpty(out.to_owned()));
        }
        let parent = parent_of(out);
        fs::create_dir_all(parent).map_err(failed)?;
        let unfinished = tempfile::Builder::new().prefix(".fogpost-").tempdir_in(parent).map_err(failed)?;
        Ok(Directory {
            out: out.to_owned(),
            month,
            formats: formats.to_vec(),
            unfinished,
            names: HashSet::from([INDEX.trim_end_matches(".csv").to_owned()]),
            overview: Overview::default(),
            statements: 0,
            lines: 0,
        })
    }

    pub(super) fn add(&mut self, statement: &Statement) -> Result<(), ExportError> {
        let name = self.free_name(statement.head().customer.id());
        for format in &self.formats {
            let file = format!("{name}.{}", format.ending());
            self.write(&file, &format.render(statement))?;
        }
        self.overview.add(statement, &name);
        self.statements += 1;
        self.lines += statement.lines().len() as u64;
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<(), ExportError> {
        let index = std::mem::take(&mut self.overview).to_csv();
        self.write(INDEX, &index)?;
        let failed = |source: io::Error| match source.kind() {
            // Somebody was faster.
            ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists => {
                ExportError::NotEmpty(self.out.clone())
            }
            _ => ExportError::Io { path: self.out.clone(), source },
        };
        fs::rename(self.unfinished.path(), &self.out).map_err(failed)?;
        let _moved = self.unfinished.keep();
        Ok(())
    }

    fn write(&self, file: &str, content: &str) -> Result<(), ExportError> {
        let failed = |source| ExportError::Io { path: self.out.join(file), source };
        fs::write(self.unfinished.path().join(file), content).map_err(failed)
    }

    /// A name for the files of an account, the month included, that no other has: also where upper and lower case are one.
    fn free_name(&mut self, account: &str) -> String {
        let wanted = format!("{}-{}", safe(account), self.month);
        let numbered = (2u64..).map(|n| format!("{wanted}-{n}"));
        let mut names = std::iter::once(wanted.clone()).chain(numbered);
        names.find(|name| self.names.insert(name.to_lowercase())).expect("numbers do not end")
    }
}

/// Letters and digits of any script, `-` and `_`: what every filesystem takes. Anything else is `_`.
fn safe(account: &str) -> String {
    let plain = |c: char| if c.is_alphanumeric() || c == '-' { c } else { '_' };
    let name: String = account.chars().map(plain).collect();
    // A name that begins with a dash is taken for an option.
    match name.strip_prefix('-') {
        Some(rest) => format!("_{rest}"),
        None => name,
    }
}

/// Writes a new file whole or not at all.
pub(super) fn write_new(path: &Path, content: &str) -> Result<(), ExportError> {
    let failed = |source| ExportError::Io { path: path.to_owned(), source };
    if fs::symlink_metadata(path).is_ok() {
        return Err(ExportError::There(path.to_owned()));
    }
    let mut file = NamedTempFile::new_in(parent_of(path)).map_err(failed)?;
    file.write_all(content.as_bytes()).map_err(failed)?;
    match file.persist_noclobber(path) {
        Ok(_) => Ok(()),
        Err(error) if error.error.kind() == ErrorKind::AlreadyExists => {
            Err(ExportError::There(path.to_owned()))
        }
        Err(error) => Err(failed(error.error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parking::statement::{Customer, StatementHead};

    fn statement(account: &str) -> Statement {
        let head = StatementHead {
            operator: Default::default(),
            customer: Customer::Account { account: account.to_owned(), name: None },
            month: "2026-11".parse().unwrap(),
            number: Some(1),
            position: 1,
        };
        Statement::new(head, vec![]).unwrap()
    }

    fn files(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn every_account_gets_files_of_its_own_whatever_it_is_called() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("new/out");
        let mut export =
            Directory::begin(&out, "2026-11".parse().unwrap(), &[StatementFormat::Text]).unwrap();
        for account in
            ["../../etc/passwd", "Miller", "miller", "-rf", "Süd & Co.", "index", "a/b", "a b", "京"]
        {
            export.add(&statement(account)).unwrap();
        }
        assert!(!out.exists(), "it gets its name last");
        export.finish().unwrap();
        let expected = [
            "Miller-2026-11.txt",
            "Süd___Co_-2026-11.txt",
            "______etc_passwd-2026-11.txt",
            "_rf-2026-11.txt",
            "a_b-2026-11-2.txt",
            "a_b-2026-11.txt",
            "index-2026-11.txt",
            "index.csv",
            "miller-2026-11-2.txt",
            "京-2026-11.txt",
        ];
        assert_eq!(files(&out), expected);
        assert_eq!(files(dir.path().join("new").as_path()), ["out"], "nothing is left beside it");
        let refused = Directory::begin(&out, "2026-11".parse().unwrap(), &[]).err().unwrap();
        assert!(matches!(refused, ExportError::NotEmpty(_)));
    }

    #[test]
    fn a_directory_that_was_filled_meanwhile_is_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        fs::create_dir(&out).unwrap();
        let mut export =
            Directory::begin(&out, "2026-11".parse().unwrap(), &[StatementFormat::Text]).unwrap();
        export.add(&statement("a")).unwrap();
        fs::write(out.join("theirs"), "x").unwrap();
        assert!(matches!(export.finish(), Err(ExportError::NotEmpty(_))));
        assert_eq!(files(&out), ["theirs"]);
        assert_eq!(files(dir.path()), ["out"]);
    }

    #[test]
    fn a_file_is_written_whole_and_never_over_another() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.csv");
        write_new(&path, "one").unwrap();
        assert!(matches!(write_new(&path, "two"), Err(ExportError::There(_))));
        assert_eq!((fs::read_to_string(&path).unwrap(), files(dir.path()).len()), ("one".into(), 1));
    }
}
