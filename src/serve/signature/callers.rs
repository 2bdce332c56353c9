//! Who may ask: each caller by its name, with its tokens and its policy.

use std::io;
use std::path::{Path, PathBuf};

use tencentcloud_signing::Secret;
use tencentcloud_signing::bearer::TokenTable;
use tencentcloud_signing::upload::NoRandom;
use vodrelay_host::regular_file;

use super::limits::Rate;
use super::policy::CallerPolicy;

/// Fewer characters can be guessed, or were never meant to be a secret.
const SHORTEST_TOKEN: usize = 32;
/// More than any token has.
const LONGEST_TOKEN: usize = 1_024;
/// What the folder of the service manager's credentials is called.
pub const DIRECTORY_VARIABLE: &str = "CREDENTIALS_DIRECTORY";

/// A caller, as it is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallerOptions {
    /// Its name in the log, in metrics and in contexts.
    pub name: String,
    /// Where its tokens are; without one, everybody who reaches the listener is this caller.
    pub tokens: Vec<TokenFile>,
    /// What it may have.
    pub policy: CallerPolicy,
    /// Requests a second.
    pub requests_per_second: u32,
}

impl Default for CallerOptions {
    fn default() -> Self {
        Self {
            name: String::new(),
            tokens: Vec::new(),
            policy: CallerPolicy::default(),
            requests_per_second: 20,
        }
    }
}

/// The file with a token: a path, or the name of one of the service manager's credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenFile(pub PathBuf);

impl TokenFile {
    fn place(&self, credentials: Option<&Path>) -> Result<PathBuf, TokenError> {
        if self.0.is_absolute() {
            return Ok(self.0.clone());
        }
        match credentials {
            Some(folder) => Ok(folder.join(&self.0)),
            None => Err(TokenError::NoDirectory(self.0.clone())),
        }
    }
}

/// Why a token cannot be used. None of them shows anything of it.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// A credential is named, and the service manager has given none.
    #[error(
        "the token {} cannot be read: CREDENTIALS_DIRECTORY is not set; start the server by its unit with LoadCredential=, or write an absolute path", .0.display()
    )]
    NoDirectory(PathBuf),
    /// The file cannot be read.
    #[error("the token of {caller} cannot be read from {}: {source}; write it there, for this user to read", path.display())]
    Unreadable {
        /// Whose token it is.
        caller: String,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What is in the file is no token.
    #[error("the token of {caller} in {} {problem}; make one with `openssl rand -hex 32`", path.display())]
    Unusable {
        /// Whose token it is.
        caller: String,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Two callers would be one.
    #[error("{one} and {other} have the same token; give each a token of its own")]
    Shared {
        /// A caller.
        one: String,
        /// The other one.
        other: String,
    },
    /// The digests need a key.
    #[error(transparent)]
    NoRandom(#[from] NoRandom),
}

/// A caller at work.
#[derive(Debug)]
pub struct Caller {
    /// Its name.
    pub name: String,
    /// What it may have.
    pub policy: CallerPolicy,
    pub(super) rate: Rate,
}

/// All callers, and whose token is whose.
#[derive(Debug)]
pub struct Callers {
    callers: Vec<Caller>,
    table: TokenTable,
    /// The caller of each token.
    owners: Vec<usize>,
    anonymous: Option<usize>,
}

/// Who sends a request.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asker<'a> {
    Known(&'a Caller),
    Anonymous(&'a Caller),
    Unknown,
}

impl Callers {
    /// Reads the tokens of all callers.
    ///
    /// # Errors
    ///
    /// [`TokenError`], of the first that cannot be used.
    pub fn read(options: &[CallerOptions], credentials: Option<&Path>) -> Result<Self, TokenError> {
        let mut read: Vec<(usize, Secret)> = Vec::new();
        for (number, caller) in options.iter().enumerate() {
            for file in &caller.tokens {
                let token = token(&caller.name, &file.place(credentials)?)?;
                // Here and not over digests: it happens once, and nobody can time it.
                if let Some((other, _)) = read.iter().find(|(_, earlier)| *earlier == token) {
                    let one = options[*other].name.clone();
                    return Err(TokenError::Shared { one, other: caller.name.clone() });
                }
                read.push((number, token));
            }
        }
        let mut table = TokenTable::new()?;
        let mut owners = Vec::new();
        for (number, token) in &read {
            table.add(token.expose());
            owners.push(*number);
        }
        let callers = options.iter().map(|caller| Caller {
            name: caller.name.clone(),
            policy: caller.policy.clone(),
            rate: Rate::new(caller.requests_per_second),
        });
        let anonymous = options.iter().position(|caller| caller.tokens.is_empty());
        Ok(Self { callers: callers.collect(), table, owners, anonymous })
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Caller> {
        self.callers.iter()
    }

    /// How many tokens are known.
    pub fn tokens(&self) -> usize {
        self.owners.len()
    }

    /// Whose token this is. Without one it is the caller that needs none, if there is one.
    pub(super) fn of(&self, token: Option<&str>) -> Asker<'_> {
        let caller = |number: usize| &self.callers[number];
        match (token, self.anonymous) {
            (Some(token), _) => match self.table.find(token) {
                Some(number) => Asker::Known(caller(self.owners[number])),
                None => Asker::Unknown,
            },
            (None, Some(number)) => Asker::Anonymous(caller(number)),
            (None, None) => Asker::Unknown,
        }
    }
}

fn token(caller: &str, path: &Path) -> Result<Secret, TokenError> {
    let unreadable =
        |source| TokenError::Unreadable { caller: caller.to_owned(), path: path.to_owned(), source };
    let bytes = regular_file::read(path, LONGEST_TOKEN as u64 + 16).map_err(unreadable)?;
    let unusable =
        |problem| TokenError::Unusable { caller: caller.to_owned(), path: path.to_owned(), problem };
    let text = String::from_utf8(bytes).map_err(|_| unusable("is not ASCII"))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    // Editors write a line break at the end.
    let text = text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line));
    match text {
        "" => Err(unusable("is empty")),
        // What RFC 6750 lets stand in the header.
        text if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b)) => {
            Err(unusable("has a character other than letters, digits and -._~+/="))
        }
        text if text.len() < SHORTEST_TOKEN => Err(unusable("has fewer than 32 characters")),
        text if text.len() > LONGEST_TOKEN => Err(unusable("has more than 1024 characters")),
        text => Ok(Secret::new(text)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn options(name: &str, tokens: &[&str]) -> CallerOptions {
        let tokens = tokens.iter().map(|file| TokenFile(PathBuf::from(file))).collect();
        CallerOptions { name: name.to_owned(), tokens, ..CallerOptions::default() }
    }

    #[test]
    fn a_token_has_one_owner_and_a_caller_may_have_two_tokens() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new, other) = ("o".repeat(32), "n".repeat(40), "p".repeat(64));
        fs::write(folder.path().join("web"), format!("{old}\n")).unwrap();
        fs::write(folder.path().join("web-next"), format!("\u{feff}{new}\r\n")).unwrap();
        let path = folder.path().join("elsewhere");
        fs::write(&path, &other).unwrap();
        let all = [options("web", &["web", "web-next"]), options("app", &[path.to_str().unwrap()])];
        let callers = Callers::read(&all, Some(folder.path())).unwrap();
        let name = |token: Option<&str>| match callers.of(token) {
            Asker::Known(caller) => caller.name.clone(),
            Asker::Anonymous(_) => "anonymous".to_owned(),
            Asker::Unknown => "unknown".to_owned(),
        };
        assert_eq!((name(Some(&old)), name(Some(&new))), ("web".to_owned(), "web".to_owned()));
        assert_eq!(name(Some(&other)), "app");
        assert_eq!((name(Some(&old[1..])), name(None), name(Some(""))).0, "unknown");
        assert_eq!((name(None).as_str(), name(Some("")).as_str()), ("unknown", "unknown"));
        let shown = format!("{callers:?}");
        assert!(!shown.contains(&old) && !shown.contains(&new), "{shown}");
        fs::write(&path, &new).unwrap();
        let shared = Callers::read(&all, Some(folder.path())).unwrap_err().to_string();
        assert!(shared.contains("web and app have the same token"), "{shared}");
    }

    #[test]
    fn who_needs_no_token_is_not_whom_a_wrong_token_makes() {
        let callers = Callers::read(&[options("laptop", &[])], None).unwrap();
        assert!(matches!(callers.of(None), Asker::Anonymous(caller) if caller.name == "laptop"));
        assert!(matches!(callers.of(Some("wrong")), Asker::Unknown));
    }

    #[test]
    fn a_file_without_a_good_token_is_named_and_nothing_of_it_is_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web");
        for (text, words) in [
            ("", "is empty"),
            ("\n", "is empty"),
            ("hush-hush-hush", "has fewer than 32 characters"),
            ("hush hush hush hush hush hush hush hush", "has a character other than"),
            ("hush\nhush-hush-hush-hush-hush-hush-hush-hush\n", "has a character other than"),
            ("häsh-hush-hush-hush-hush-hush-hush-hush", "has a character other than"),
            (&"hush".repeat(257), "has more than 1024 characters"),
            (&"hush".repeat(10_000), "cannot be read"),
        ] {
            fs::write(&path, text).unwrap();
            let told =
                Callers::read(&[options("web", &["web"])], Some(folder.path())).unwrap_err().to_string();
            assert!(told.contains(words) && told.contains(path.to_str().unwrap()), "{told}");
            assert!(!told.contains("hush"), "{told}");
        }
        let told = Callers::read(&[options("web", &["gone"])], Some(folder.path())).unwrap_err().to_string();
        assert!(told.contains("cannot be read from") && told.contains("gone"), "{told}");
        let told = Callers::read(&[options("web", &["web"])], None).unwrap_err().to_string();
        assert!(told.contains("CREDENTIALS_DIRECTORY is not set"), "{told}");
    }
}
