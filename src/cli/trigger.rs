//! `trigger`: puts events into an emulator.

use std::io::{self, Read as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;
use tencent_vod_emulator::control::{Accepted, NewEvents};
use tencent_vod_emulator::events;
use url::Url;
use vodrelay_core::clock::WallTime;

use super::exit::{Exit, Failure};
use crate::clock::Now as _;

/// How many events and bytes go in one request: the emulator reads at most 2 MB.
const EVENTS_PER_REQUEST: usize = 1_000;
const BYTES_PER_REQUEST: usize = 1 << 20;
/// The most that `--raw` reads.
const RAW_MAX_BYTES: u64 = 64 << 20;

/// Put events into a local VOD that `vodrelay emulate` runs.
///
/// `trigger upload` puts the events of the vendor's tutorial: a file is uploaded, then its procedure ends
/// with a transcode and a cover.
#[derive(Clone, Debug, clap::Args)]
pub struct TriggerArgs {
    /// The event type, or `upload`
    #[arg(value_name = "TYPE", required_unless_present_any = ["list", "raw"])]
    pub event_type: Option<String>,
    /// How many, each with other ids (upload: how many stories)
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub count: u64,
    /// Set a value inside each event, like FileUploadEvent.FileId=123; JSON if it is JSON, else a string
    #[arg(long, value_name = "PATH=VALUE", value_parser = assignment)]
    pub set: Vec<(String, String)>,
    /// The sub-application; the default one is 0
    #[arg(long, value_name = "ID", default_value_t = 0)]
    pub sub_app: u64,
    /// Where the emulator listens
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8900")]
    pub to: String,
    /// Make all events equal
    #[arg(long)]
    pub same: bool,
    /// Make the same events again: the number of the first; by default it comes from the clock
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Put the events of this file instead (`-` is standard input): one, a list, one a line, or an answer to PullEvents
    #[arg(long, value_name = "FILE", conflicts_with = "event_type")]
    pub raw: Option<PathBuf>,
    /// Put a type that nobody knows, with an empty body
    #[arg(long)]
    pub force: bool,
    /// List the event types
    #[arg(long)]
    pub list: bool,
    /// Print what was put as JSON
    #[arg(long)]
    pub json: bool,
    /// Print the events and put them nowhere
    #[arg(long)]
    pub dry_run: bool,
}

fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((path, value)) if !path.is_empty() => Ok((path.to_owned(), value.to_owned())),
        _ => Err("write a path, =, and a value, like FileUploadEvent.FileId=123".to_owned()),
    }
}

/// Why no event was put.
#[derive(Debug, thiserror::Error)]
pub enum TriggerError {
    /// The emulator does not have this type.
    #[error("no event type is called {name}{hint}; `trigger --list` prints all types; --force puts this one")]
    UnknownType {
        /// The requested type.
        name: String,
        /// The nearest known type.
        hint: String,
    },
    /// A value cannot be set.
    #[error("--set {path}: {why}")]
    Set {
        /// Where.
        path: String,
        /// Why not.
        why: String,
    },
    /// The file has no events.
    #[error("cannot read events from {file}")]
    Raw {
        /// Which file.
        file: String,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The address is no emulator's.
    #[error("--to {0} is not the http:// address of an emulator on this machine, like http://127.0.0.1:8900")]
    NotLoopback(String),
    /// Nobody answered.
    #[error("no emulator answers at {to}; start one with `vodrelay emulate`, or name its address with --to")]
    NoAnswer {
        /// Where.
        to: String,
        /// Why not.
        #[source]
        source: reqwest::Error,
    },
    /// The emulator did not take them.
    #[error("{to} refused the events ({status}): {why}")]
    Refused {
        /// Which emulator.
        to: String,
        /// The HTTP status.
        status: u16,
        /// Its words.
        why: String,
    },
    /// Standard output is closed.
    #[error("cannot print")]
    Print(#[from] std::io::Error),
}

impl From<TriggerError> for Failure {
    fn from(error: TriggerError) -> Self {
        let exit = match error {
            TriggerError::UnknownType { .. } | TriggerError::Set { .. } | TriggerError::NotLoopback(_) => {
                Exit::Usage
            }
            TriggerError::NoAnswer { .. } => Exit::Temporary,
            TriggerError::Print(error) => return Self::stdout(error),
            TriggerError::Raw { .. } | TriggerError::Refused { .. } => Exit::Failure,
        };
        Self::new(exit, error)
    }
}

/// Puts the events.
///
/// # Errors
///
/// When they cannot be made, or no emulator takes them.
pub async fn run(args: TriggerArgs) -> Result<(), TriggerError> {
    if args.list {
        return list(args.json);
    }
    // In millionths of a second, so two calls in a row name different files.
    let first =
        args.seed.unwrap_or_else(|| u64::try_from(WallTime::now().0).unwrap_or(0).wrapping_mul(1_000));
    let made = make(&args, first)?;
    if args.dry_run {
        return print(made.iter().map(String::as_str));
    }
    let to = emulator_url(&args.to)?;
    let mut numbers = Vec::new();
    for some in requests(&made) {
        numbers.extend(put(&to, args.sub_app, some).await?);
    }
    report(&args, &numbers)
}

/// The events of each request. An event that is too large goes alone, and the emulator refuses it.
fn requests(made: &[String]) -> impl Iterator<Item = &[String]> {
    let mut rest = made;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |event: &&String| {
            bytes += event.len() + 1;
            bytes <= BYTES_PER_REQUEST
        };
        let count = rest.iter().take(EVENTS_PER_REQUEST).take_while(fits).count().max(1);
        let (some, left) = rest.split_at_checked(count)?;
        rest = left;
        Some(some)
    })
}

fn list(json: bool) -> Result<(), TriggerError> {
    if json {
        let types = serde_json::to_string(events::EVENT_TYPES).map_err(std::io::Error::from)?;
        return print([types.as_str()]);
    }
    print(["upload"].into_iter().chain(events::EVENT_TYPES.iter().copied()))
}

fn print<'a>(lines: impl IntoIterator<Item = &'a str>) -> Result<(), TriggerError> {
    use std::io::Write as _;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for line in lines {
        writeln!(out, "{line}")?;
    }
    Ok(out.flush()?)
}

/// The events that the arguments ask for.
fn make(args: &TriggerArgs, first: u64) -> Result<Vec<String>, TriggerError> {
    let index = |n: u64| if args.same { first } else { first.wrapping_add(n) };
    let mut made: Vec<String> = match (&args.raw, args.event_type.as_deref().unwrap_or_default()) {
        (Some(file), _) => {
            let events = read_raw(file)?;
            (0..args.count).flat_map(|_| events.iter().cloned()).collect()
        }
        (None, "upload") => (0..args.count).flat_map(|n| events::upload_story(index(n))).collect(),
        (None, name) => (0..args.count).map(|n| one(name, index(n), args.force)).collect::<Result<_, _>>()?,
    };
    for (path, value) in &args.set {
        for event in &mut made {
            *event = events::set(event, path, value)
                .map_err(|why| TriggerError::Set { path: path.clone(), why })?;
        }
    }
    Ok(made)
}

fn one(name: &str, index: u64, force: bool) -> Result<String, TriggerError> {
    if let Some(event) = events::sample(name, index) {
        return Ok(event);
    }
    if force {
        let name = serde_json::Value::from(name);
        return Ok(format!(r#"{{"EventType":{name},"Body":{{"TaskId":"{index}"}}}}"#));
    }
    let near = events::nearest(name);
    let hint = if near.is_empty() { String::new() } else { format!(" (did you mean {}?)", near.join(", ")) };
    Err(TriggerError::UnknownType { name: name.to_owned(), hint })
}

fn read_raw(file: &Path) -> Result<Vec<String>, TriggerError> {
    let (name, text) = if file == Path::new("-") {
        ("standard input".to_owned(), read_limited(std::io::stdin()))
    } else {
        (file.display().to_string(), std::fs::File::open(file).and_then(read_limited))
    };
    let text = text.map_err(|source| TriggerError::Raw { file: name.clone(), source: source.into() })?;
    events::read(&text).map_err(|source| TriggerError::Raw { file: name, source: source.into() })
}

/// A pipe works like a file here, but neither may be endless.
fn read_limited(from: impl io::Read) -> io::Result<String> {
    let mut text = String::new();
    from.take(RAW_MAX_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > RAW_MAX_BYTES {
        let message = format!("it is larger than {RAW_MAX_BYTES} bytes; put its events in several calls");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    Ok(text)
}

/// The emulator's controls are not signed and answer on loopback only.
fn emulator_url(to: &str) -> Result<Url, TriggerError> {
    let not_loopback = || TriggerError::NotLoopback(to.to_owned());
    let url = Url::parse(to).map_err(|_| not_loopback())?;
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let loopback =
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback());
    if url.scheme() != "http" || !loopback {
        return Err(not_loopback());
    }
    url.join("/_emulator/events").map_err(|_| not_loopback())
}

async fn put(to: &Url, sub_app_id: u64, made: &[String]) -> Result<Vec<u64>, TriggerError> {
    let no_answer = |source| TriggerError::NoAnswer { to: to.origin().ascii_serialization(), source };
    let refused = |status: u16, why: String| TriggerError::Refused {
        to: to.origin().ascii_serialization(),
        status,
        why,
    };
    let raw = |event: &String| RawValue::from_string(event.clone());
    let events =
        made.iter().map(raw).collect::<Result<_, _>>().map_err(|error| refused(0, error.to_string()))?;
    let body = serde_json::to_vec(&NewEvents { sub_app_id, events })
        .map_err(|error| refused(0, error.to_string()))?;
    // The client's TLS part needs a provider even without TLS. An earlier call may have installed it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client =
        reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build().map_err(no_answer)?;
    let request = client.post(to.clone()).header("content-type", "application/json").body(body);
    let response = request.send().await.map_err(no_answer)?;
    let status = response.status().as_u16();
    let text = response.text().await.map_err(no_answer)?;
    match serde_json::from_str::<Accepted>(&text) {
        Ok(accepted) if status == 200 => Ok(accepted.numbers),
        _ => Err(refused(status, text.trim().chars().take(300).collect())),
    }
}

fn report(args: &TriggerArgs, numbers: &[u64]) -> Result<(), TriggerError> {
    #[derive(Serialize)]
    struct TriggerReport<'a> {
        sub_app_id: u64,
        numbers: &'a [u64],
    }
    if args.json {
        let report = TriggerReport { sub_app_id: args.sub_app, numbers };
        let line = serde_json::to_string(&report).map_err(std::io::Error::from)?;
        return print([line.as_str()]);
    }
    let what = args.event_type.clone().unwrap_or_else(|| "events".to_owned());
    let events = if numbers.len() == 1 { "event" } else { "events" };
    eprintln!("put {} {events} ({what}) into the queue of sub-application {}", numbers.len(), args.sub_app);
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Wrapped {
        #[command(flatten)]
        args: TriggerArgs,
    }

    fn made(words: &[&str]) -> Result<Vec<String>, TriggerError> {
        let words = ["trigger"].iter().chain(words);
        make(&Wrapped::try_parse_from(words).unwrap().args, 5)
    }

    #[test]
    fn counts_stories_and_sameness() {
        let events = made(&["FileDeleted", "--count", "3"]).unwrap();
        assert!(events.len() == 3 && events[0] != events[1]);
        let events = made(&["FileDeleted", "--count", "3", "--same"]).unwrap();
        assert!(events.len() == 3 && events[0] == events[1]);
        assert_eq!(made(&["upload", "--count", "2"]).unwrap().len(), 4);
        let events =
            made(&["FileDeleted", "--set", "FileDeleteEvent.FileIdSet=[\"1\"]", "--set", "Extra=text"])
                .unwrap();
        assert!(events[0].contains(r#""FileIdSet":["1"]"#) && events[0].ends_with(r#","Extra":"text"}"#));
    }

    #[test]
    fn no_request_is_larger_than_the_emulator_reads_unless_an_event_alone_is() {
        let sizes = |lengths: &[usize]| -> Vec<usize> {
            let made: Vec<String> = lengths.iter().map(|length| "x".repeat(*length)).collect();
            requests(&made).map(<[String]>::len).collect()
        };
        assert_eq!(sizes(&[]), [0; 0]);
        assert_eq!(sizes(&[1; 2_001]), [1_000, 1_000, 1]);
        assert_eq!(sizes(&[BYTES_PER_REQUEST / 2; 3]), [1, 1, 1], "the commas count, too");
        assert_eq!(sizes(&[10, BYTES_PER_REQUEST * 2, 10, 10]), [1, 1, 2]);
    }

    #[test]
    fn an_unknown_type_is_refused_with_near_names_or_forced() {
        let error = made(&["FileDelete"]).unwrap_err();
        assert!(error.to_string().contains("did you mean FileDeleted"), "{error}");
        assert_eq!(Failure::from(error).exit(), Exit::Usage);
        assert_eq!(
            made(&["Brand\"New", "--force"]).unwrap(),
            [r#"{"EventType":"Brand\"New","Body":{"TaskId":"5"}}"#]
        );
        assert!(Wrapped::try_parse_from(["trigger"]).is_err());
        assert!(Wrapped::try_parse_from(["trigger", "X", "--set", "novalue"]).is_err());
    }

    #[test]
    fn only_loopback_is_an_emulator_s_address() {
        for good in ["http://127.0.0.1:8900", "http://localhost:1", "http://[::1]:8900/"] {
            assert!(emulator_url(good).is_ok(), "{good}");
        }
        for bad in [
            "https://127.0.0.1:8900",
            "http://vod.tencentcloudapi.com",
            "127.0.0.1:8900",
            "http://10.0.0.1:1",
        ] {
            assert!(matches!(emulator_url(bad), Err(TriggerError::NotLoopback(_))), "{bad}");
        }
    }
}
