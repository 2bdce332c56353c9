//! Where the credentials come from.
//!
//! Names of variables, files and the metadata address are those of the vendor's SDKs (Go, Python, Node) and of tccli; the
//! token's variable is not uniform among them, so that all three names are read.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ini::{Ini, ParseOption};
use serde::Deserialize;
use tokio::io::AsyncReadExt as _;
use url::Url;

use super::classify::one_line;
use super::transport;
use crate::secret::Secret;

const ID_VARIABLE: &str = "TENCENTCLOUD_SECRET_ID";
const KEY_VARIABLE: &str = "TENCENTCLOUD_SECRET_KEY";
const TOKEN_VARIABLES: [&str; 3] =
    ["TENCENTCLOUD_TOKEN", "TENCENTCLOUD_SESSION_TOKEN", "TENCENTCLOUD_SECURITY_TOKEN"];
const FILE_VARIABLE: &str = "TENCENTCLOUD_CREDENTIALS_FILE";
const SYSTEM_FILE: &str = "/etc/tencentcloud/credentials";
const DIRECTORY_VARIABLE: &str = "CREDENTIALS_DIRECTORY";
const METADATA: &str = "http://metadata.tencentyun.com/latest/meta-data/cam/security-credentials/";

/// More than any file with credentials, and any answer of the metadata service, needs.
const LARGEST: u64 = 64 * 1024;

/// The metadata service is one hop away: whoever waits longer is not on a CVM.
const METADATA_CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const METADATA_TIMEOUT: Duration = Duration::from_secs(5);

/// Which credentials to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CredentialSource {
    /// The first that is there: systemd, environment, file, CVM role.
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

/// A pair of id and key, and what belongs to it. Prints its id's head only.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// `SecretId`.
    pub secret_id: String,
    /// `SecretKey`.
    pub secret_key: Secret,
    /// The token of a temporary pair.
    pub token: Option<Secret>,
    /// When a temporary pair expires, in seconds since the Unix epoch, if that is known.
    pub expires_at: Option<i64>,
    /// Where it was found.
    pub origin: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("secret_id", &self.masked_id())
            .field("temporary", &self.token.is_some())
            .field("expires_at", &self.expires_at)
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

impl Credentials {
    /// The id, fit to be shown: enough of it to tell two keys apart.
    pub fn masked_id(&self) -> String {
        let head: String = self.secret_id.chars().take(8).collect();
        format!("{head}***")
    }

    /// Whether the cloud would see the same pair in both.
    pub(super) fn same_pair(&self, other: &Self) -> bool {
        (&self.secret_id, &self.secret_key, &self.token)
            == (&other.secret_id, &other.secret_key, &other.token)
    }

    fn new(origin: String, id: String, key: String, token: Option<String>) -> Result<Self, CredentialsError> {
        let unusable = |name: &str, cause: String| CredentialsError::Unusable {
            origin: origin.clone(),
            cause: format!("the {name} {cause}"),
        };
        for (name, value) in [("secret id", Some(&id)), ("secret key", Some(&key)), ("token", token.as_ref())]
        {
            let Some(value) = value else { continue };
            if value.is_empty() {
                return Err(unusable(name, "is empty".to_owned()));
            }
            if let Some(at) = value.chars().position(|c| c.is_whitespace()) {
                return Err(unusable(name, format!("has a blank or line break at character {}", at + 1)));
            }
            if !value.bytes().all(|b| b.is_ascii_graphic()) {
                return Err(unusable(name, "has a character outside printable ASCII".to_owned()));
            }
        }
        Ok(Self {
            secret_id: id,
            secret_key: Secret::new(key),
            token: token.map(Secret::new),
            expires_at: None,
            origin,
        })
    }
}

/// No credentials: what was tried, why it failed, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// The one source that was asked for has none.
    #[error("no credentials in {origin}: {cause}; {next_step}")]
    Absent {
        /// Where they were looked for.
        origin: String,
        /// What is missing.
        cause: String,
        /// What to do.
        next_step: &'static str,
    },
    /// There is something, but it cannot be used.
    #[error("the credentials in {origin} cannot be used: {cause}; mend them there")]
    Unusable {
        /// Where they were found.
        origin: String,
        /// What is wrong.
        cause: String,
    },
    /// No source of the chain has any.
    #[error(
        "no credentials found (tried: {tried}); set TENCENTCLOUD_SECRET_ID and TENCENTCLOUD_SECRET_KEY, or write \
         ~/.tencentcloud/credentials, or give the CVM a role, or use systemd's LoadCredential=secret_id and secret_key"
    )]
    NoneFound {
        /// Each source with its cause.
        tried: String,
    },
}

/// Environment variables, from wherever they come.
#[derive(Clone)]
pub struct Environment(Arc<dyn Fn(&str) -> Option<OsString> + Send + Sync>);

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

    /// Whatever `lookup` finds, now and later.
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

/// Where to look for credentials.
#[derive(Clone, Debug)]
pub struct Places {
    /// Which of the places to use.
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
            metadata: Url::parse(METADATA).expect("a constant that is a URL"),
        }
    }

    /// Whether the metadata address is one that may be given keys by plain HTTP.
    pub(super) fn metadata_is_safe(&self) -> bool {
        self.metadata.as_str() == METADATA || transport::is_loopback(&self.metadata)
    }

    /// Reads the credentials from the source that was chosen.
    pub(super) async fn read(&self) -> Result<Credentials, CredentialsError> {
        match self.source {
            CredentialSource::Env => self.from_environment(),
            CredentialSource::File => self.from_file().await,
            CredentialSource::CvmRole => self.from_role().await,
            CredentialSource::Systemd => self.from_systemd().await,
            CredentialSource::Auto => self.from_first().await,
        }
    }

    /// The first place that has something. What is there but wrong is an error, not a reason to look on: the operator put it
    /// there to be used.
    async fn from_first(&self) -> Result<Credentials, CredentialsError> {
        let mut tried = Vec::new();
        let mut note = |result| match result {
            Err(CredentialsError::Absent { origin, cause, .. }) => {
                tried.push(format!("{origin}: {cause}"));
                None
            }
            other => Some(other),
        };
        if let Some(found) = note(self.from_systemd().await) {
            return found;
        }
        if let Some(found) = note(self.from_environment()) {
            return found;
        }
        if let Some(found) = note(self.from_file().await) {
            return found;
        }
        if let Some(found) = note(self.from_role().await) {
            return found;
        }
        Err(CredentialsError::NoneFound { tried: tried.join("; ") })
    }

    fn from_environment(&self) -> Result<Credentials, CredentialsError> {
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

    async fn from_file(&self) -> Result<Credentials, CredentialsError> {
        const NEXT_STEP: &str =
            "write secret_id and secret_key under [default] into ~/.tencentcloud/credentials";
        let named = self.environment.get(FILE_VARIABLE).map(PathBuf::from);
        let home =
            self.environment.get("HOME").map(|home| Path::new(&home).join(".tencentcloud/credentials"));
        let candidates = match &named {
            Some(path) => vec![path],
            None => home.iter().chain([&self.system_file]).collect(),
        };
        for path in &candidates {
            if let Some(text) = read_small(path).await? {
                return from_ini(path, &text);
            }
        }
        let paths: Vec<String> = candidates.iter().map(|path| path.display().to_string()).collect();
        let origin =
            if named.is_some() { format!("the file that {FILE_VARIABLE} names") } else { "files".to_owned() };
        let cause = format!("there is no {}", paths.join(" and no "));
        Err(match named {
            // A file that was named is meant to be there: nothing else may be used in its place.
            Some(_) => CredentialsError::Unusable { origin, cause },
            None => CredentialsError::Absent { origin, cause, next_step: NEXT_STEP },
        })
    }

    async fn from_systemd(&self) -> Result<Credentials, CredentialsError> {
        const NEXT_STEP: &str = "add LoadCredential=secret_id:PATH and LoadCredential=secret_key:PATH to the unit's [Service] section";
        let absent = |cause| CredentialsError::Absent {
            origin: "systemd's credentials".to_owned(),
            cause,
            next_step: NEXT_STEP,
        };
        let Some(directory) = self.environment.get(DIRECTORY_VARIABLE).map(PathBuf::from) else {
            return Err(absent(format!("{DIRECTORY_VARIABLE} is not set")));
        };
        let file = async |name: &str| -> Result<Option<String>, CredentialsError> {
            let text = read_small(&directory.join(name)).await?;
            Ok(text.map(|text| text.strip_suffix('\n').map_or_else(|| text.clone(), str::to_owned)))
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

    async fn from_role(&self) -> Result<Credentials, CredentialsError> {
        const NEXT_STEP: &str =
            "run on a CVM instance that has a CAM role, or choose another source of credentials";
        let origin = || "the CVM's role".to_owned();
        let absent = |cause| CredentialsError::Absent { origin: origin(), cause, next_step: NEXT_STEP };
        let unusable = |cause| CredentialsError::Unusable { origin: origin(), cause };
        let client = transport::plain_client(METADATA_CONNECT_TIMEOUT)
            .map_err(|error| absent(format!("no HTTP client: {}", transport::chain(&error))))?;
        let get = async |url: Url| {
            let answer = tokio::time::timeout(METADATA_TIMEOUT, async {
                let mut answer = client.get(url).send().await?;
                let body = transport::read_body(&mut answer, LARGEST).await;
                Ok::<_, reqwest::Error>((answer.status(), body))
            });
            match answer.await {
                Ok(Ok((status, body))) => {
                    let body = body.map_err(|error| absent(format!("the metadata service: {error}")))?;
                    Ok((status, String::from_utf8_lossy(&body).trim().to_owned()))
                }
                Ok(Err(error)) => Err(absent(format!("the metadata service: {}", transport::chain(&error)))),
                Err(_) => Err(absent("the metadata service does not answer".to_owned())),
            }
        };
        let (status, roles) = get(self.metadata.clone()).await?;
        if status == reqwest::StatusCode::NOT_FOUND {
            return Err(absent("this instance has no role".to_owned()));
        }
        if !status.is_success() {
            return Err(absent(format!("the metadata service answers {status}")));
        }
        let role = roles.lines().next().unwrap_or_default().trim();
        if role.is_empty() {
            return Err(absent("this instance has no role".to_owned()));
        }
        let mut url = self.metadata.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push(role);
        }
        let (status, answer) = get(url).await?;
        if !status.is_success() {
            return Err(absent(format!(
                "the metadata service answers {status} for the role {}",
                one_line(role)
            )));
        }
        from_metadata(origin(), &answer).map_err(unusable)?
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RoleCredentials {
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    tmp_secret_id: Option<String>,
    #[serde(default)]
    tmp_secret_key: Option<String>,
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    expired_time: Option<i64>,
}

/// Reads the metadata service's answer; the outer error is the cause in words.
fn from_metadata(origin: String, answer: &str) -> Result<Result<Credentials, CredentialsError>, String> {
    // The text of a JSON error could quote the answer, which holds a key.
    let role: RoleCredentials = serde_json::from_str(answer)
        .map_err(|_| "the metadata service's answer is not what it should be".to_owned())?;
    if let Some(code) = role.code.filter(|code| code != "Success") {
        return Err(format!("the metadata service says {}", one_line(&code)));
    }
    let (Some(id), Some(key), Some(token), Some(expires_at)) =
        (role.tmp_secret_id, role.tmp_secret_key, role.token, role.expired_time)
    else {
        return Err("the metadata service's answer lacks id, key, token or expiry".to_owned());
    };
    Ok(Credentials::new(origin, id, key, Some(token))
        .map(|credentials| Credentials { expires_at: Some(expires_at), ..credentials }))
}

fn from_ini(path: &Path, text: &str) -> Result<Credentials, CredentialsError> {
    let origin = path.display().to_string();
    let unusable = |cause| CredentialsError::Unusable { origin: origin.clone(), cause };
    // A backslash in a key is a backslash.
    let options = ParseOption { enabled_escape: false, ..ParseOption::default() };
    let ini = Ini::load_from_str_opt(text.trim_start_matches('\u{feff}'), options)
        .map_err(|error| unusable(format!("line {} is not INI", error.line + 1)))?;
    let default =
        ini.section(Some("default")).ok_or_else(|| unusable("there is no section [default]".to_owned()))?;
    let value = |name: &str| default.get(name).filter(|value| !value.is_empty()).map(str::to_owned);
    let lacking = |name| unusable(format!("there is no {name} in section [default]"));
    let id = value("secret_id").ok_or_else(|| lacking("secret_id"))?;
    let key = value("secret_key").ok_or_else(|| lacking("secret_key"))?;
    Credentials::new(origin.clone(), id, key, value("token"))
}

/// A small text file; `None` when there is none.
async fn read_small(path: &Path) -> Result<Option<String>, CredentialsError> {
    use std::io::ErrorKind::{NotADirectory, NotFound};
    let unusable = |cause| CredentialsError::Unusable { origin: path.display().to_string(), cause };
    let file = match tokio::fs::File::open(path).await {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), NotFound | NotADirectory) => return Ok(None),
        Err(error) => return Err(unusable(error.to_string())),
    };
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes).await.map_err(|error| unusable(error.to_string()))?;
    if bytes.len() as u64 > LARGEST {
        return Err(unusable(format!("it is larger than {LARGEST} bytes")));
    }
    String::from_utf8(bytes).map(Some).map_err(|_| unusable("it is not UTF-8".to_owned()))
}
