//! Tokens: who may ask for what, from a file.
//!
//! **Promise.** Nobody learns a token from the file, nor from how long a refusal takes. A token that was added or revoked is taken up
//! without a restart. A file that cannot be used lets nobody in that was not let in before.
//! **Kept by.** The file has the BLAKE3 digest of each token. A token has 256 random bits, so that no guess finds it: a slow digest, as
//! passwords need, would protect nothing more. Digests are compared in constant time, with each token of the file.
//! **Not promised.** Protection from somebody who can write the file. It has mode 0600.

use crate::codes::{self, Code, Coded};
use crate::config::{FileStamp, stamp};
use crate::messaging::SiteName;
use crate::store::directory::parent_of;
use crate::store::private::hand_over_file;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, RwLock};
use zeroize::Zeroizing;

/// What a token begins with, so that a person or a program that finds one knows what it is.
const PREFIX: &str = "fogpost_";
const NAME_MAX: usize = 32;
/// The only version of the file.
const VERSION: u32 = 1;

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Post the events of one garage.
    Ingest,
    /// See the board and the occupancy.
    Board,
    /// See everything except what belongs to [`Role::Money`], with the plates and metrics.
    Read,
    /// See everything, with charges, statements and documents.
    Money,
}

impl Role {
    /// Whether this role may do what needs `need`.
    pub fn includes(self, need: Role) -> bool {
        match self {
            Role::Ingest => need == Role::Ingest,
            Role::Board => need == Role::Board,
            Role::Read => matches!(need, Role::Board | Role::Read),
            Role::Money => need != Role::Ingest,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Role::Ingest => "ingest",
            Role::Board => "board",
            Role::Read => "read",
            Role::Money => "money",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Role {
    type Err = String;
    fn from_str(text: &str) -> Result<Role, String> {
        let all = [Role::Ingest, Role::Board, Role::Read, Role::Money];
        let found = all.into_iter().find(|role| role.as_str() == text);
        found.ok_or_else(|| format!("{text:?} is not a role. The roles are ingest, board, read and money"))
    }
}

/// The name of a token: 1 to 32 letters, digits, dots, dashes and underscores.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct TokenName(String);

impl TokenName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TokenName {
    type Err = String;
    fn from_str(text: &str) -> Result<TokenName, String> {
        let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        match (1..=NAME_MAX).contains(&text.len()) && text.bytes().all(is_valid) {
            true => Ok(TokenName(text.to_owned())),
            false => Err(format!(
                "{text:?} has not 1 to {NAME_MAX} letters (a-z, A-Z), digits, dots, dashes and underscores"
            )),
        }
    }
}

impl TryFrom<String> for TokenName {
    type Error = String;
    fn try_from(text: String) -> Result<TokenName, String> {
        text.parse()
    }
}

impl fmt::Display for TokenName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A token as its file has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    pub name: TokenName,
    pub role: Role,
    /// The garage of [`Role::Ingest`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub garage: Option<SiteName>,
    pub created_at: Timestamp,
    /// The BLAKE3 digest of the token, in hexadecimal digits.
    digest: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokensTable {
    version: u32,
    #[serde(default, rename = "token")]
    tokens: Vec<Token>,
}

#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    #[error("cannot use the file of tokens {path:?}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("the file of tokens {path:?} is not valid: {reason}")]
    Invalid { path: PathBuf, reason: String },
    #[error(
        "there is a token named {0:?} already. Nothing was changed. Revoke it first, or choose another name"
    )]
    NameTaken(String),
    #[error("there is no token named {0:?}. Nothing was changed. To list them: tokens list")]
    NoSuchToken(String),
}

impl Coded for TokensError {
    fn code(&self) -> Code {
        match self {
            TokensError::File { .. } | TokensError::Invalid { .. } => codes::TOKENS_UNUSABLE,
            TokensError::NameTaken(_) | TokensError::NoSuchToken(_) => codes::COMMAND_REFUSED,
        }
    }
}

/// The file of tokens, as commands change it.
pub struct TokensFile<'a>(pub &'a Path);

impl TokensFile<'_> {
    /// The tokens of the file. `None`: there is no file.
    pub fn read(&self) -> Result<Option<Vec<Token>>, TokensError> {
        let text = match fs::read_to_string(self.0) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            text => text.map_err(|source| self.failed(source))?,
        };
        let invalid = |reason| TokensError::Invalid { path: self.0.to_owned(), reason };
        let table: TokensTable =
            toml::from_str(&text).map_err(|error| invalid(error.message().to_owned()))?;
        if table.version != VERSION {
            return Err(invalid(format!(
                "its version is {}, and this program reads version {VERSION}",
                table.version
            )));
        }
        if let Some(bad) = table.tokens.iter().find(|token| blake3::Hash::from_hex(&token.digest).is_err()) {
            return Err(invalid(format!("the digest of {:?} is not one", bad.name.as_str())));
        }
        Ok(Some(table.tokens))
    }

    /// Adds a token, and returns it: it cannot be shown again.
    pub fn add(
        &self,
        name: TokenName,
        role: Role,
        garage: Option<SiteName>,
        now: Timestamp,
    ) -> Result<Zeroizing<String>, TokensError> {
        let _lock = self.lock()?;
        let mut tokens = self.read()?.unwrap_or_default();
        if tokens.iter().any(|token| token.name == name) {
            return Err(TokensError::NameTaken(name.0));
        }
        let random = Zeroizing::new(rand::random::<[u8; 32]>());
        let digits = Zeroizing::new(random.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
        let secret = Zeroizing::new(format!("{PREFIX}{}", *digits));
        let digest = blake3::hash(secret.as_bytes()).to_string();
        tokens.push(Token { name, role, garage, created_at: now, digest });
        self.write(tokens)?;
        Ok(secret)
    }

    /// Removes a token.
    pub fn revoke(&self, name: &TokenName) -> Result<(), TokensError> {
        let _lock = self.lock()?;
        let mut tokens = self.read()?.unwrap_or_default();
        let before = tokens.len();
        tokens.retain(|token| token.name != *name);
        if tokens.len() == before {
            return Err(TokensError::NoSuchToken(name.0.clone()));
        }
        self.write(tokens)
    }

    /// Writes the file as a whole, for its owner alone.
    fn write(&self, tokens: Vec<Token>) -> Result<(), TokensError> {
        let text = toml::to_string(&TokensTable { version: VERSION, tokens });
        let text = text.map_err(|error| self.failed(io::Error::other(error)))?;
        let written = || -> io::Result<()> {
            let dir = parent_of(self.0);
            let mut new = tempfile::NamedTempFile::new_in(dir)?; // with mode 0600
            new.write_all(
                b"# Made by \"tokens add\" and \"tokens revoke\". It has no token, only their digests.\n",
            )?;
            new.write_all(text.as_bytes())?;
            new.as_file().sync_all()?;
            hand_over_file(new.path())?;
            new.persist(self.0)?;
            fs::File::open(dir)?.sync_all()
        };
        written().map_err(|source| self.failed(source))
    }

    /// One command at a time changes the file.
    fn lock(&self) -> Result<fs::File, TokensError> {
        let locked = || -> io::Result<fs::File> {
            let dir = parent_of(self.0);
            fs::create_dir_all(dir)?;
            let dir = fs::File::open(dir)?;
            dir.lock()?;
            Ok(dir)
        };
        locked().map_err(|source| self.failed(source))
    }

    fn failed(&self, source: io::Error) -> TokensError {
        TokensError::File { path: self.0.to_owned(), source }
    }
}

/// Who asks, by the token that was shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenHolder {
    pub name: TokenName,
    pub role: Role,
    pub garage: Option<SiteName>,
}

/// Who made a request, for its handler. `None`: nobody needed a token for it, and none was shown.
#[derive(Debug, Clone, Default)]
pub struct SignedIn(pub Option<TokenHolder>);

impl SignedIn {
    /// Whether they may do what needs `need`, on a route that let them in.
    pub fn includes(&self, need: Role) -> bool {
        self.0.as_ref().is_none_or(|holder| holder.role.includes(need))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for SignedIn {
    type Rejection = Infallible;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<SignedIn, Infallible> {
        Ok(parts.extensions.get::<SignedIn>().cloned().unwrap_or_default())
    }
}

/// The tokens that are in force. Cloning shares them.
#[derive(Debug, Clone)]
pub struct LiveTokens(Arc<TokensState>);

#[derive(Debug)]
struct TokensState {
    path: PathBuf,
    in_force: RwLock<TokensInForce>,
}

#[derive(Debug)]
struct TokensInForce {
    stamp: FileStamp,
    /// `None`: there was never a file, so nobody needs a token.
    tokens: Option<Arc<[Token]>>,
}

/// What a look at the file found.
#[derive(Debug)]
pub enum TokensReload {
    Unchanged,
    /// The number of tokens in force now.
    TakenUp(usize),
    /// It changed and cannot be used; what was in force before still is.
    Refused(TokensError),
}

impl LiveTokens {
    pub fn open(path: &Path) -> Result<LiveTokens, TokensError> {
        let stamp = stamp(path);
        let tokens = TokensFile(path).read()?.map(Arc::from);
        let in_force = RwLock::new(TokensInForce { stamp, tokens });
        Ok(LiveTokens(Arc::new(TokensState { path: path.to_owned(), in_force })))
    }

    /// The tokens in force; `None` while there was never a file.
    fn in_force(&self) -> Option<Arc<[Token]>> {
        self.0.in_force.read().expect("no thread panics while it holds the tokens").tokens.clone()
    }

    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Whether there is, or was, a file of tokens.
    pub fn exist(&self) -> bool {
        self.in_force().is_some()
    }

    /// Whose token this is.
    pub fn whose(&self, secret: &str) -> Option<TokenHolder> {
        let tokens = self.in_force()?;
        let shown = blake3::hash(secret.as_bytes());
        let mut found = None;
        for token in tokens.iter() {
            // The comparison of `blake3::Hash` takes the same time wherever they differ, and all are compared.
            if blake3::Hash::from_hex(&token.digest).is_ok_and(|digest| digest == shown) {
                found = Some(token);
            }
        }
        found.map(|token| TokenHolder {
            name: token.name.clone(),
            role: token.role,
            garage: token.garage.clone(),
        })
    }

    /// Reads the file again if it changed. It reads the disk, so not on a thread of the runtime. A file that is gone leaves no token:
    /// nobody is let in until there is one again.
    pub fn reload(&self) -> TokensReload {
        let stamp = stamp(&self.0.path);
        if self.0.in_force.read().expect("no thread panics while it holds the tokens").stamp == stamp {
            return TokensReload::Unchanged;
        }
        let read = TokensFile(&self.0.path).read();
        let mut in_force = self.0.in_force.write().expect("no thread panics while it holds the tokens");
        in_force.stamp = stamp;
        match read {
            Ok(tokens) => {
                let tokens: Arc<[Token]> = tokens.unwrap_or_default().into();
                let count = tokens.len();
                in_force.tokens = Some(tokens);
                TokensReload::TakenUp(count)
            }
            Err(error) => TokensReload::Refused(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn name(text: &str) -> TokenName {
        text.parse().unwrap()
    }

    #[test]
    fn a_token_is_known_until_it_is_revoked_and_is_not_in_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.toml");
        let tokens = LiveTokens::open(&path).unwrap();
        assert!(!tokens.exist() && tokens.whose("").is_none());
        let file = TokensFile(&path);
        let ada = file.add(name("ada"), Role::Read, None, Timestamp::UNIX_EPOCH).unwrap();
        let gate =
            file.add(name("gate-1"), Role::Ingest, SiteName::new("1").ok(), Timestamp::UNIX_EPOCH).unwrap();
        assert!(matches!(
            file.add(name("ada"), Role::Money, None, Timestamp::UNIX_EPOCH),
            Err(TokensError::NameTaken(_))
        ));
        assert!(matches!(tokens.reload(), TokensReload::TakenUp(2)));
        assert!(matches!(tokens.reload(), TokensReload::Unchanged));
        let found = tokens.whose(&ada).unwrap();
        assert_eq!((found.name.as_str(), found.role, found.garage), ("ada", Role::Read, None));
        assert_eq!(tokens.whose(&gate).unwrap().garage, SiteName::new("1").ok());
        for other in ["", "fogpost_", &ada[..ada.len() - 1], &format!("{}0", *ada), &ada.to_uppercase()] {
            assert_eq!(tokens.whose(other), None, "{other}");
        }
        let text = fs::read_to_string(&path).unwrap();
        assert!(!text.contains(&ada[PREFIX.len()..]) && ada.len() == PREFIX.len() + 64, "{text}");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);

        file.revoke(&name("ada")).unwrap();
        assert!(matches!(file.revoke(&name("ada")), Err(TokensError::NoSuchToken(_))));
        assert!(matches!(tokens.reload(), TokensReload::TakenUp(1)));
        assert!(tokens.whose(&ada).is_none() && tokens.whose(&gate).is_some());
    }

    #[test]
    fn a_file_that_cannot_be_used_lets_nobody_else_in_and_one_that_is_gone_lets_nobody_in() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.toml");
        let ada = TokensFile(&path).add(name("ada"), Role::Read, None, Timestamp::UNIX_EPOCH).unwrap();
        let good = fs::read_to_string(&path).unwrap();
        let tokens = LiveTokens::open(&path).unwrap();
        for bad in [
            "version = 2",
            "nonsense",
            "version = 1\n[[token]]\nname = \"a\"",
            &good.replace("read", "all"),
            &good.replace("digest = \"", "digest = \"x"),
        ] {
            fs::write(&path, bad).unwrap();
            assert!(matches!(tokens.reload(), TokensReload::Refused(_)), "{bad}");
            assert!(tokens.whose(&ada).is_some() && LiveTokens::open(&path).is_err());
        }
        fs::remove_file(&path).unwrap();
        assert!(matches!(tokens.reload(), TokensReload::TakenUp(0)));
        assert!(tokens.exist() && tokens.whose(&ada).is_none());
        fs::write(&path, good).unwrap();
        assert!(matches!(tokens.reload(), TokensReload::TakenUp(1)));
        assert!(tokens.whose(&ada).is_some());
    }

    #[test]
    fn a_role_includes_those_that_see_less() {
        let roles = [Role::Ingest, Role::Board, Role::Read, Role::Money];
        let of = |role: Role| roles.map(|need| role.includes(need));
        assert_eq!(of(Role::Ingest), [true, false, false, false]);
        assert_eq!(of(Role::Board), [false, true, false, false]);
        assert_eq!(of(Role::Read), [false, true, true, false]);
        assert_eq!(of(Role::Money), [false, true, true, true]);
    }
}
