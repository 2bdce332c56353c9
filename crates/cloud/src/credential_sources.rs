//! The sources of credentials.
//!
//! Names of variables and files are those of the vendor's SDKs (Go, Python, Node) and of tccli. The SDKs use
//! different variables for the token, so all three names are read.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ini::{Ini, ParseOption};
use tokio::io::AsyncReadExt as _;
use url::Url;

use crate::credentials::{Credentials, CredentialsError};
use crate::{role, transport};

const ID_VARIABLE: &str = "TENCENTCLOUD_SECRET_ID";
const KEY_VARIABLE: &str = "TENCENTCLOUD_SECRET_KEY";
const TOKEN_VARIABLES: [&str; 3] =
    ["TENCENTCLOUD_TOKEN", "TENCENTCLOUD_SESSION_TOKEN", "TENCENTCLOUD_SECURITY_TOKEN"];
const FILE_VARIABLE: &str = "TENCENTCLOUD_CREDENTIALS_FILE";
const SYSTEM_FILE: &str = "/etc/tencentcloud/credentials";
const DIRECTORY_VARIABLE: &str = "CREDENTIALS_DIRECTORY";

/// More than any file with credentials.
const LARGEST_FILE: u64 = 64 * 1024;

/// Which credentials to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CredentialSource {
    /// The first source with a key: systemd, environment, file, CVM role.
    #[default]
    Auto,
    /// `TENCENTCLOUD_SECRET_ID` and `TENCENTCLOUD_SECRET_KEY`.
    Env,
    /// `$TENCENTCLOUD_CREDENTIALS_FILE`, else `~/.tencentcloud/credentials`, else `/etc/tencentcloud/credentials`.
    File,
    /// The role of the CVM instance, from the metadata service.
    CvmRole,
    /// `$CREDENTIALS_DIRECTORY/secret_id` and `secret_key`, by `LoadCredential=`.
    Systemd,
}

impl CredentialSource {
    /// Each source by the name that configurations and commands give it.
    pub const NAMES: &[(&str, Self)] = &[
        ("auto", Self::Auto),
        ("env", Self::Env),
        ("file", Self::File),
        ("cvm-role", Self::CvmRole),
        ("systemd", Self::Systemd),
    ];
}

/// Environment variables of any origin.
#[derive(Clone)]
pub struct Environment(Arc<Lookup>);

type Lookup = dyn Fn(&str) -> Option<OsString> + Send + Sync;

impl Environment {
    /// The variables of this process.
    pub fn process() -> Self {
        Self(Arc::new(|name| std::env::var_os(name)))
    }

    /// These variables and no others.
    pub fn fixed<K: Into<String>, V: Into<OsString>>(variables: impl IntoIterator<Item = (K, V)>) -> Self {
        let variables: Vec<(String, OsString)> =
            variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Self::lookup(move |name| variables.iter().rfind(|(n, _)| n == name).map(|(_, value)| value.clone()))
    }

    /// The result of `lookup`, now and later.
    pub fn lookup(lookup: impl Fn(&str) -> Option<OsString> + Send + Sync + 'static) -> Self {
        Self(Arc::new(lookup))
    }

    /// A variable that is set and not empty.
    fn get(&self, name: &str) -> Option<OsString> {
        (self.0)(name).filter(|value| !value.is_empty())
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Environment")
    }
}

/// The places of credentials.
#[derive(Clone, Debug)]
pub struct Places {
    /// The selected source.
    pub source: CredentialSource,
    /// The variables to read.
    pub environment: Environment,
    /// The last credentials file to look for.
    pub system_file: PathBuf,
    /// The metadata service's list of roles; another address than the vendor's must be a loopback address.
    pub metadata: Url,
}

impl Places {
    /// The usual places.
    pub fn new(source: CredentialSource) -> Self {
        Self {
            source,
            environment: Environment::process(),
            system_file: PathBuf::from(SYSTEM_FILE),
            metadata: Url::parse(role::METADATA).expect("a constant that is a URL"),
        }
    }

    /// Whether keys may come from this metadata address by plain HTTP.
    pub(crate) fn metadata_is_safe(&self) -> bool {
        self.metadata.as_str() == role::METADATA || transport::is_loopback(&self.metadata)
    }

    /// Reads the credentials from the selected source, once. [`crate::Client`] renews credentials that expire.
    ///
    /// # Errors
    ///
    /// When there are none, or those of the source cannot be used.
    pub async fn read(&self) -> Result<Credentials, CredentialsError> {
        match self.source {
            CredentialSource::Env => self.in_environment(),
            CredentialSource::File => self.in_file().await,
            CredentialSource::CvmRole => role::read(&self.metadata).await,
            CredentialSource::Systemd => self.in_systemd().await,
            CredentialSource::Auto => self.first_found().await,
        }
    }

    /// The first place that has a key. A wrong key is an error, and no reason to try the next source: the
    /// operator put it there to be used.
    async fn first_found(&self) -> Result<Credentials, CredentialsError> {
        let mut tried = Vec::new();
        let mut note = |result| match result {
            Err(CredentialsError::Absent { origin, cause, .. }) => {
                tried.push(format!("{origin}: {cause}"));
                None
            }
            other => Some(other),
        };
        if let Some(found) = note(self.in_systemd().await) {
            return found;
        }
        if let Some(found) = note(self.in_environment()) {
            return found;
        }
        if let Some(found) = note(self.in_file().await) {
            return found;
        }
        if let Some(found) = note(role::read(&self.metadata).await) {
            return found;
        }
        Err(CredentialsError::NoneFound { tried })
    }

    fn in_environment(&self) -> Result<Credentials, CredentialsError> {
        let origin = || "the environment".to_owned();
        let text = |name: &'static str| match self.environment.get(name).map(OsString::into_string) {
            None => Ok(None),
            Some(Ok(value)) => Ok(Some(value)),
            Some(Err(_)) => {
                Err(CredentialsError::Unusable { origin: origin(), cause: format!("{name} is not UTF-8") })
            }
        };
        let half = |set, unset| CredentialsError::Unusable {
            origin: origin(),
            cause: format!("{set} is set and {unset} is not"),
        };
        let (id, key) = match (text(ID_VARIABLE)?, text(KEY_VARIABLE)?) {
            (Some(id), Some(key)) => (id, key),
            (Some(_), None) => return Err(half(ID_VARIABLE, KEY_VARIABLE)),
            (None, Some(_)) => return Err(half(KEY_VARIABLE, ID_VARIABLE)),
            (None, None) => {
                return Err(CredentialsError::Absent {
                    origin: origin(),
                    cause: format!("{ID_VARIABLE} is not set"),
                    next_step: "set TENCENTCLOUD_SECRET_ID and TENCENTCLOUD_SECRET_KEY",
                });
            }
        };
        let mut token = None;
        for name in TOKEN_VARIABLES {
            if token.is_none() {
                token = text(name)?;
            }
        }
        Credentials::new(origin(), id, key, token)
    }

    async fn in_file(&self) -> Result<Credentials, CredentialsError> {
        const NEXT_STEP: &str =
            "write secret_id and secret_key under [default] into ~/.tencentcloud/credentials";
        if let Some(path) = self.environment.get(FILE_VARIABLE).map(PathBuf::from) {
            // A named file is meant: no other source may replace it.
            let cause = |error: io::Error| CredentialsError::Unusable {
                origin: format!("{} (from {FILE_VARIABLE})", path.display()),
                cause: error.to_string(),
            };
            return from_ini(&path, &read_small(&path).await.map_err(cause)?);
        }
        let home =
            self.environment.get("HOME").map(|home| Path::new(&home).join(".tencentcloud/credentials"));
        let mut causes = Vec::new();
        for path in home.iter().chain([&self.system_file]) {
            match read_small(path).await {
                Ok(text) => return from_ini(path, &text),
                // A service often may not read its home folder.
                Err(error) if is_absent(&error) || error.kind() == io::ErrorKind::PermissionDenied => {
                    causes.push(format!("{}: {error}", path.display()));
                }
                Err(error) => {
                    let origin = path.display().to_string();
                    return Err(CredentialsError::Unusable { origin, cause: error.to_string() });
                }
            }
        }
        let origin = "credentials files".to_owned();
        Err(CredentialsError::Absent { origin, cause: causes.join(", "), next_step: NEXT_STEP })
    }

    async fn in_systemd(&self) -> Result<Credentials, CredentialsError> {
        const NEXT_STEP: &str = "add LoadCredential=secret_id:PATH and LoadCredential=secret_key:PATH to the unit's [Service] section";
        let absent = |cause| CredentialsError::Absent {
            origin: "systemd's credentials".to_owned(),
            cause,
            next_step: NEXT_STEP,
        };
        let Some(directory) = self.environment.get(DIRECTORY_VARIABLE).map(PathBuf::from) else {
            return Err(absent(format!("{DIRECTORY_VARIABLE} is not set")));
        };
        let file = async |name: &str| match read_small(&directory.join(name)).await {
            // Editors write a mark at the beginning and one line break at the end; neither belongs to the value.
            Ok(text) => {
                let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
                let line = text.strip_suffix('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
                Ok(Some(line.unwrap_or(text).to_owned()))
            }
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(CredentialsError::Unusable {
                origin: directory.join(name).display().to_string(),
                cause: error.to_string(),
            }),
        };
        let origin = directory.display().to_string();
        let (id, key) = match (file("secret_id").await?, file("secret_key").await?) {
            (Some(id), Some(key)) => (id, key),
            (None, None) => return Err(absent(format!("{origin} has no secret_id"))),
            (Some(_), None) => {
                return Err(CredentialsError::Unusable {
                    origin,
                    cause: "there is secret_id, but no secret_key".into(),
                });
            }
            (None, Some(_)) => {
                return Err(CredentialsError::Unusable {
                    origin,
                    cause: "there is secret_key, but no secret_id".into(),
                });
            }
        };
        let token = file("token").await?.filter(|token| !token.is_empty());
        Credentials::new(origin, id, key, token)
    }
}

fn from_ini(path: &Path, text: &str) -> Result<Credentials, CredentialsError> {
    let origin = path.display().to_string();
    let unusable = |cause| CredentialsError::Unusable { origin: origin.clone(), cause };
    // A backslash in a key is a backslash.
    let options = ParseOption { enabled_escape: false, ..ParseOption::default() };
    let ini = Ini::load_from_str_opt(text.trim_start_matches('\u{feff}'), options)
        .map_err(|error| unusable(format!("it is not INI (at line {})", error.line)))?;
    let default =
        ini.section(Some("default")).ok_or_else(|| unusable("there is no section [default]".to_owned()))?;
    let value = |name: &str| default.get(name).filter(|value| !value.is_empty()).map(str::to_owned);
    let lacking = |name| unusable(format!("there is no {name} in section [default]"));
    let id = value("secret_id").ok_or_else(|| lacking("secret_id"))?;
    let key = value("secret_key").ok_or_else(|| lacking("secret_key"))?;
    Credentials::new(origin.clone(), id, key, value("token"))
}

/// The longest time for a file. Requests wait for the reader.
const READ_LIMIT: Duration = Duration::from_secs(5);

/// Reads a small text file.
async fn read_small(path: &Path) -> io::Result<String> {
    let invalid = |words: String| io::Error::new(io::ErrorKind::InvalidData, words);
    let mut bytes = Vec::new();
    let read =
        async { tokio::fs::File::open(path).await?.take(LARGEST_FILE + 1).read_to_end(&mut bytes).await };
    // A pipe without a writer, or a network file system that is away.
    let silent =
        |_| io::Error::new(io::ErrorKind::TimedOut, format!("it cannot be read within {READ_LIMIT:?}"));
    tokio::time::timeout(READ_LIMIT, read).await.map_err(silent)??;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(invalid(format!("it is larger than {LARGEST_FILE} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| invalid("it is not UTF-8".to_owned()))
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    /// An empty home folder and no other variables.
    struct Host {
        home: TempDir,
        variables: Vec<(String, OsString)>,
    }

    impl Host {
        fn new() -> Self {
            let home = tempfile::tempdir().unwrap();
            let variables = vec![("HOME".to_owned(), home.path().into())];
            Self { home, variables }
        }

        fn set(&mut self, name: &str, value: impl Into<OsString>) -> &mut Self {
            self.variables.push((name.to_owned(), value.into()));
            self
        }

        fn write(&self, path: &str, text: &str) -> PathBuf {
            let path = self.home.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            path
        }

        async fn read(&self, source: CredentialSource) -> Result<Credentials, String> {
            let mut places = Places::new(source);
            places.environment = Environment::fixed(self.variables.clone());
            places.system_file = self.home.path().join("etc/credentials");
            // No program listens there: port 1 is not given out.
            places.metadata = Url::parse("http://127.0.0.1:1/").unwrap();
            places.read().await.map_err(|error| error.to_string())
        }

        async fn pair(&self, source: CredentialSource) -> (String, String, Option<String>) {
            let found = self.read(source).await.unwrap();
            let token = found.token.map(|token| token.expose().to_owned());
            (found.secret_id, found.secret_key.expose().to_owned(), token)
        }
    }

    fn pair(id: &str, key: &str, token: Option<&str>) -> (String, String, Option<String>) {
        (id.to_owned(), key.to_owned(), token.map(str::to_owned))
    }

    #[tokio::test]
    async fn the_environment_has_a_pair_and_any_of_three_tokens() {
        let mut host = Host::new();
        host.set(ID_VARIABLE, "id").set(KEY_VARIABLE, "key");
        assert_eq!(host.pair(CredentialSource::Env).await, pair("id", "key", None));
        for (i, name) in TOKEN_VARIABLES.iter().rev().enumerate() {
            host.set(name, format!("t{i}"));
            let token = format!("t{i}");
            assert_eq!(host.pair(CredentialSource::Env).await, pair("id", "key", Some(&token)), "{name}");
        }
    }

    #[tokio::test]
    async fn half_a_pair_in_the_environment_is_a_mistake_to_be_named() {
        let mut host = Host::new();
        host.write(".tencentcloud/credentials", "[default]\nsecret_id=a\nsecret_key=b\n");
        host.set(ID_VARIABLE, "id").set(KEY_VARIABLE, "");
        for source in [CredentialSource::Env, CredentialSource::Auto] {
            let error = host.read(source).await.unwrap_err();
            assert!(
                error.contains("TENCENTCLOUD_SECRET_ID is set and TENCENTCLOUD_SECRET_KEY is not"),
                "{error}"
            );
        }
    }

    #[tokio::test]
    async fn the_file_of_the_home_folder_comes_before_the_system_s() {
        let host = Host::new();
        host.write("etc/credentials", "\u{feff}[default]\r\nsecret_id = sys\r\nsecret_key = k\\1#;\r\n");
        assert_eq!(host.pair(CredentialSource::File).await, pair("sys", "k\\1#;", None));
        host.write(
            ".tencentcloud/credentials",
            "# comment\n[other]\nsecret_id=x\n[default]\nsecret_id = home\nsecret_key=a=b\\n\ntoken = t\n",
        );
        assert_eq!(host.pair(CredentialSource::File).await, pair("home", "a=b\\n", Some("t")));
    }

    #[tokio::test]
    async fn a_named_file_is_used_or_nothing() {
        let mut host = Host::new();
        host.write(".tencentcloud/credentials", "[default]\nsecret_id=a\nsecret_key=b\n");
        let named = host.write("named", "[default]\nsecret_id=c\nsecret_key=d\n");
        host.set(FILE_VARIABLE, &named);
        assert_eq!(host.pair(CredentialSource::File).await, pair("c", "d", None));
        fs::remove_file(&named).unwrap();
        for source in [CredentialSource::File, CredentialSource::Auto] {
            let error = host.read(source).await.unwrap_err();
            assert!(error.contains("(from TENCENTCLOUD_CREDENTIALS_FILE)"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_file_that_is_wrong_is_an_error_that_names_it_and_shows_nothing_of_it() {
        for (text, words) in [
            ("secret_id=hush\n", "no section [default]"),
            ("[default]\nsecret_id=hush\n", "no secret_key in section [default]"),
            ("[default]\nsecret_key=hush\n", "no secret_id in section [default]"),
            ("[default]\nsecret_id=id\nsecret_key=hush hush\n", "a blank or line break at character 5"),
            ("[default\nsecret_id=hush\n", "it is not INI (at line 3)"),
            (&"x".repeat(70_000), "larger than 65536 bytes"),
        ] {
            let host = Host::new();
            let path = host.write(".tencentcloud/credentials", text);
            for source in [CredentialSource::File, CredentialSource::Auto] {
                let error = host.read(source).await.unwrap_err();
                assert!(error.contains(words) && error.contains(path.to_str().unwrap()), "{error}");
                assert!(!error.contains("hush"), "{error}");
            }
        }
    }

    #[tokio::test]
    async fn systemd_s_files_lose_the_mark_of_an_editor_and_one_line_break_and_no_more() {
        let mut host = Host::new();
        let directory = host.home.path().join("creds");
        host.set(DIRECTORY_VARIABLE, &directory);
        assert!(
            host.read(CredentialSource::Systemd).await.unwrap_err().contains("LoadCredential=secret_id:PATH")
        );
        host.write("creds/secret_id", "\u{feff}id\n");
        assert!(host.read(CredentialSource::Auto).await.unwrap_err().contains("but no secret_key"));
        host.write("creds/secret_key", "key");
        assert_eq!(host.pair(CredentialSource::Systemd).await, pair("id", "key", None));
        host.write("creds/token", "t\n");
        assert_eq!(host.pair(CredentialSource::Systemd).await, pair("id", "key", Some("t")));
        host.write("creds/secret_key", "key\n\n");
        assert!(
            host.read(CredentialSource::Systemd).await.unwrap_err().contains("line break at character 4")
        );
    }

    #[tokio::test]
    async fn auto_takes_the_first_that_is_there() {
        let mut host = Host::new();
        let error = host.read(CredentialSource::Auto).await.unwrap_err();
        for words in [
            "systemd's credentials: CREDENTIALS_DIRECTORY is not set",
            "the environment: TENCENTCLOUD_SECRET_ID is not set",
            ".tencentcloud/credentials: No such file",
            "the CVM's role: the metadata service cannot be asked:",
            "set TENCENTCLOUD_SECRET_ID and TENCENTCLOUD_SECRET_KEY, or write",
        ] {
            assert!(error.contains(words), "{error}");
        }
        let lines: Vec<&str> = error.lines().collect();
        assert_eq!(lines.len(), 6, "a line each: {error}");
        assert!(lines[0] == "no credentials found:" && lines[1].starts_with("  systemd's"), "{error}");
        host.write(".tencentcloud/credentials", "[default]\nsecret_id=file\nsecret_key=k\n");
        assert_eq!(host.pair(CredentialSource::Auto).await.0, "file");
        host.set(ID_VARIABLE, "env").set(KEY_VARIABLE, "k");
        assert_eq!(host.pair(CredentialSource::Auto).await.0, "env");
        // A credentials directory without our files holds others, such as the broker's password.
        let directory = host.home.path().join("creds");
        host.set(DIRECTORY_VARIABLE, &directory);
        host.write("creds/amqp_password", "p");
        assert_eq!(host.pair(CredentialSource::Auto).await.0, "env");
        host.write("creds/secret_id", "systemd");
        host.write("creds/secret_key", "k");
        assert_eq!(host.pair(CredentialSource::Auto).await.0, "systemd");
    }
}
