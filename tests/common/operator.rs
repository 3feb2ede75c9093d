//! Somebody who gives commands to a server, or at an edge, on the command line.

use super::daemon::{EDGE, SERVER, command};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// How a command ended.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Said {
    /// What it said about what it did. Panics when it refused.
    pub fn done(self) -> String {
        assert_eq!((self.code, self.stderr.as_str()), (Some(0), ""), "{}", self.stdout);
        self.stdout
    }

    /// The JSON that it printed. Panics when it refused.
    pub fn json(self) -> Value {
        serde_json::from_str(&self.done()).unwrap()
    }

    /// Why it did nothing, with code 1. Panics when it did something.
    pub fn refused(self) -> String {
        assert_eq!((self.code, self.stdout.as_str()), (Some(1), ""), "{}", self.stderr);
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        self.stderr
    }
}

/// `edge ARGS --data-dir DIR`, which must succeed.
pub fn at_the_edge(dir: &Path, args: &[&str]) -> String {
    let dir = ["--data-dir", dir.to_str().unwrap()];
    let args: Vec<String> = args.iter().chain(&dir).map(ToString::to_string).collect();
    let output = command(EDGE, &args).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Works on one data directory, whether a server runs there or not.
pub struct Operator {
    data_dir: PathBuf,
}

impl Operator {
    pub fn of(data_dir: &Path) -> Operator {
        Operator { data_dir: data_dir.to_owned() }
    }

    /// `server ARGS --data-dir DIR`.
    pub fn says(&self, args: &[&str]) -> Said {
        let dir = ["--data-dir", self.data_dir.to_str().unwrap()];
        let args: Vec<String> = args.iter().chain(&dir).map(ToString::to_string).collect();
        let output = command(SERVER, &args).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Said { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// `server verify` finds everything in order; gives back what it says.
    pub fn verifies(&self) -> String {
        let said = self.says(&["verify"]);
        assert!(said.code == Some(0) && said.stdout.contains("everything agrees"), "{said:?}");
        said.stdout
    }

    /// The line of `server garages list` for a garage, by the name that it has now.
    pub fn garage(&self, name: &str) -> Option<Value> {
        let list = self.says(&["garages", "list", "--json"]).json();
        list["garages"].as_array().unwrap().iter().find(|line| line["name"] == name).cloned()
    }
}
