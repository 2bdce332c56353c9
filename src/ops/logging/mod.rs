//! The destination and the format of log lines. A thread of its own writes them (`queue`), so a blocked
//! reader stops nothing else.

mod journald;
mod queue;

use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use tracing_subscriber::filter::{LevelFilter, ParseError, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};
use vodrelay_core::clock::WallTime;

use self::journald::{Fields, Journald};
use self::queue::LogQueue;
use super::problems;
use crate::clock::Now as _;

/// The format of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Pretty on a terminal, journald where standard error leads there, JSON elsewhere.
    Auto,
    /// One short line for a person, on standard error.
    Pretty,
    /// One JSON object for each line, on standard error.
    Json,
    /// systemd's journal, with its fields.
    Journald,
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The level is not a filter.
    #[error("log.level {level:?} is not a filter; write it like \"info\" or \"info,vodrelay::vod=debug\"")]
    Level {
        /// What was given.
        level: String,
        /// The message of the filter's parser.
        source: ParseError,
    },
    /// systemd's journal cannot be reached.
    #[error("systemd's journal cannot be reached; set log.format to \"json\" where there is none")]
    Journald(#[source] io::Error),
    /// The log cannot be written.
    #[error("the log cannot be written; see that the process may start threads and open files")]
    Writer(#[source] io::Error),
    /// Another part of the process already logs elsewhere.
    #[error("another logger is at work in this process")]
    Taken,
}

/// The log of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle {
    format: LogFormat,
}

impl Handle {
    /// The format in use: never [`LogFormat::Auto`].
    pub fn format(&self) -> LogFormat {
        self.format
    }
}

/// Libraries whose messages this program logs in its own words.
const NOISE: [&str; 7] =
    ["amq_protocol_tcp", "async_rs", "hyper", "hyper_util", "reqwest", "tcp_stream", "tokio_cron_scheduler"];

/// A library that is silent unless it is named. lapin warns of every returned message with the whole message
/// in the line, and an event's body does not belong in the log.
const SILENT: &str = "lapin=off";

/// How long the end of the process waits for the reader of the log.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);

/// Libraries that log what they send at trace: lapin and its parts log the frame of the login, with the
/// password as a list of numbers. The HTTP client and TLS log the bytes of the connection.
const CAPPED: [&str; 10] = [
    "amq_protocol",
    "async_rs",
    "h2",
    "hyper",
    "hyper_util",
    "lapin",
    "reqwest",
    "rustls",
    "tcp_stream",
    "tokio_rustls",
];

static QUEUE: OnceLock<LogQueue> = OnceLock::new();
static HANDLE: OnceLock<Handle> = OnceLock::new();
static FILTER: OnceLock<reload::Handle<Targets, Registry>> = OnceLock::new();

/// Starts the log of this process. A process has one: later calls return the first one's handle and change nothing.
///
/// `level` is a level or a list of directives, in `tracing`'s syntax.
///
/// # Errors
///
/// See [`LoggingError`]; nothing is logged then.
pub fn init(format: LogFormat, level: &str) -> Result<Handle, LoggingError> {
    if let Some(handle) = HANDLE.get() {
        return Ok(*handle);
    }
    let stderr = Stderr::of_this_process();
    let format = stderr.resolve(format);
    let filter = filter(level).map_err(|source| LoggingError::Level { level: level.to_owned(), source })?;
    let queue = queue(format)?;
    let layer = layer(format, stderr.colours(), queue.clone());
    let (filter, reloadable) = reload::Layer::new(filter);
    // A line with a code is counted at every log level.
    let problems = problems::Collector.with_filter(LevelFilter::WARN);
    match Registry::default().with(layer.with_filter(filter)).with(problems).try_init() {
        Ok(()) => {
            let _ = FILTER.set(reloadable);
            let _ = QUEUE.set(queue);
            Ok(*HANDLE.get_or_init(|| Handle { format }))
        }
        // Two threads may reach this point. The loser uses the winner's log.
        Err(_) => HANDLE.get().copied().ok_or(LoggingError::Taken),
    }
}

/// Changes the level of the log of this process.
///
/// # Errors
///
/// [`LoggingError::Level`]; the log stays as it was.
pub fn set_level(level: &str) -> Result<(), LoggingError> {
    let new = filter(level).map_err(|source| LoggingError::Level { level: level.to_owned(), source })?;
    match FILTER.get() {
        Some(reloadable) => reloadable.reload(new).map_err(|_| LoggingError::Taken),
        None => Err(LoggingError::Taken),
    }
}

/// The kind of standard error.
struct Stderr {
    terminal: bool,
    journal: bool,
}

impl Stderr {
    fn of_this_process() -> Self {
        Self { terminal: io::stderr().is_terminal(), journal: leads_to_journal() }
    }

    fn resolve(&self, format: LogFormat) -> LogFormat {
        match format {
            LogFormat::Auto if self.terminal => LogFormat::Pretty,
            LogFormat::Auto if self.journal => LogFormat::Journald,
            LogFormat::Auto => LogFormat::Json,
            chosen => chosen,
        }
    }

    fn colours(&self) -> bool {
        self.terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
    }
}

/// Whether standard error is the stream that the service manager connected to its journal (systemd.exec(5),
/// `$JOURNAL_STREAM`). The variable alone is inherited by children whose standard error leads elsewhere.
fn leads_to_journal() -> bool {
    let (Ok(stream), Ok(stat)) = (std::env::var("JOURNAL_STREAM"), rustix::fs::fstat(io::stderr())) else {
        return false;
    };
    stream == format!("{}:{}", stat.st_dev, stat.st_ino)
}

/// Starts the thread that writes the log.
fn queue(format: LogFormat) -> Result<LogQueue, LoggingError> {
    let started = if format == LogFormat::Journald {
        let mut journal = Journald::connect().map_err(LoggingError::Journald)?;
        LogQueue::start(move |fields| journal.send(fields))
    } else {
        // Its own descriptor: a waiting write must not hold the lock of the shared one.
        let fd = io::stderr().as_fd().try_clone_to_owned().map_err(LoggingError::Writer)?;
        let mut stderr = File::from(fd);
        LogQueue::start(move |line| queue::write_all(&mut stderr, line))
    };
    started.map_err(LoggingError::Writer)
}

/// Waits for at most two seconds until the log is written. Call it before the process ends.
pub fn flush() {
    if let Some(queue) = QUEUE.get() {
        queue.flush(FLUSH_LIMIT);
    }
}

/// Writes the last message of the process to standard error, after the log, and does not wait for a blocked
/// reader.
pub fn last_words(words: Vec<u8>) {
    flush();
    let (done, written) = mpsc::channel();
    let say = move || {
        let mut stderr = io::stderr().lock();
        // Standard error may be closed; then there is no reader.
        let _ = stderr.write_all(&words).and_then(|()| stderr.flush());
        let _ = done.send(());
    };
    if thread::Builder::new().name("last-words".to_owned()).spawn(say).is_ok() {
        let _ = written.recv_timeout(FLUSH_LIMIT);
    }
}

fn layer(format: LogFormat, colours: bool, queue: LogQueue) -> Box<dyn Layer<Registry> + Send + Sync> {
    if format == LogFormat::Journald {
        return Fields(queue).boxed();
    }
    let lines = tracing_subscriber::fmt::layer().with_writer(queue);
    match format {
        LogFormat::Json => lines.json().flatten_event(true).with_timer(UtcTime).boxed(),
        _ => lines.compact().with_ansi(colours).with_target(false).with_timer(LocalTime).boxed(),
    }
}

/// The operator's directives over our own for [`NOISE`] and [`SILENT`]. The operator's directives win for the
/// same library, but no directive makes one of [`CAPPED`] log more than that.
fn filter(level: &str) -> Result<Targets, ParseError> {
    let everything = level.split(',').map(str::trim).rfind(|directive| !directive.contains(['=', '[']));
    // Not louder than the program itself.
    let noise = everything.filter(|directive| ["off", "error"].contains(directive)).unwrap_or("warn");
    let ours = NOISE.map(|library| format!("{library}={noise}")).join(",");
    let wanted: Targets = format!("{SILENT},{ours},{level}").parse()?;
    let capped = |target: &str| CAPPED.iter().any(|library| target.starts_with(library));
    let (default, wanted) = (wanted.default_level(), wanted.into_iter().collect::<Vec<_>>());
    let mut filter = Targets::new();
    if let Some(default) = default {
        filter = filter.with_default(default);
    }
    for (target, level) in wanted {
        let level = if capped(&target) { level.min(LevelFilter::DEBUG) } else { level };
        filter = filter.with_target(target, level);
    }
    for library in CAPPED {
        // Unnamed libraries follow the default, which may be louder.
        if !filter.iter().any(|(target, _)| target == library) {
            let level = filter.default_level().unwrap_or(LevelFilter::OFF).min(LevelFilter::DEBUG);
            filter = filter.with_target(library, level);
        }
    }
    Ok(filter)
}

/// RFC 3339 in UTC with milliseconds, for machines.
struct UtcTime;

impl FormatTime for UtcTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(writer, "{}", WallTime::now())
    }
}

/// Date and time in the reader's zone, with milliseconds and the zone: lines are compared with those of other
/// hosts and other days.
struct LocalTime;

impl FormatTime for LocalTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let now = jiff::Zoned::now();
        write!(writer, "{}", now.strftime("%Y-%m-%d %H:%M:%S%.3f %:z"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: Stderr = Stderr { terminal: false, journal: false };
    const TERMINAL: Stderr = Stderr { terminal: true, journal: false };
    const JOURNAL: Stderr = Stderr { terminal: false, journal: true };

    #[test]
    fn auto_follows_standard_error_and_a_choice_is_a_choice() {
        assert_eq!(TERMINAL.resolve(LogFormat::Auto), LogFormat::Pretty);
        assert_eq!(JOURNAL.resolve(LogFormat::Auto), LogFormat::Journald);
        assert_eq!(FILE.resolve(LogFormat::Auto), LogFormat::Json);
        assert_eq!(TERMINAL.resolve(LogFormat::Json), LogFormat::Json);
        assert_eq!(JOURNAL.resolve(LogFormat::Pretty), LogFormat::Pretty);
        assert!(!FILE.colours());
    }

    #[test]
    fn libraries_are_quiet_unless_the_operator_names_them() {
        let shown = |level: &str| filter(level).unwrap().to_string();
        assert!(shown("debug").contains("lapin=off") && shown("debug").contains("hyper=warn"));
        assert!(shown("debug").contains("debug"));
        let named = shown("info,lapin=debug");
        assert!(named.contains("lapin=debug") && !named.contains("lapin=off"), "{named}");
        assert!(shown("error").contains("hyper=error"));
        assert!(shown("off,vodrelay=info").contains("hyper=off"));
        assert!(filter("info,vodrelay=loud").is_err());
    }

    #[test]
    fn nothing_makes_a_library_tell_what_it_sends() {
        for level in [
            "trace",
            "lapin=trace",
            "lapin::frames=trace",
            "info,amq_protocol_types=trace",
            "hyper=trace,lapin=5",
        ] {
            let filter = filter(level).unwrap();
            for target in CAPPED
                .iter()
                .map(|library| format!("{library}::x"))
                .chain(["lapin::frames".to_owned(), "amq_protocol_types".to_owned()])
            {
                assert!(!filter.would_enable(&target, &tracing::Level::TRACE), "{level}: {target}");
            }
        }
        assert!(filter("info,lapin=trace").unwrap().would_enable("lapin::x", &tracing::Level::DEBUG));
        assert!(filter("trace").unwrap().would_enable("vodrelay::vod", &tracing::Level::TRACE));
    }

    /// The log belongs to the process, so the test logs in a process of its own: `speak`, with a variable
    /// that says what to do.
    fn lines(format: &str) -> Vec<String> {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "ops::logging::tests::speak", "--nocapture"])
            .env("VODRELAY_TEST_FORMAT", format)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn speak() {
        let format = match std::env::var("VODRELAY_TEST_FORMAT").as_deref() {
            Ok("pretty") => LogFormat::Pretty,
            Ok(_) => LogFormat::Auto,
            Err(_) => return,
        };
        init(format, "info").unwrap();
        tracing::info!(events = 16, "pulled");
        tracing::debug!("not shown");
        tracing::info!(target: "lapin::channel", "not shown either");
        flush();
    }

    #[test]
    fn away_from_a_terminal_a_line_is_one_json_object() {
        let [line] = lines("auto").try_into().unwrap();
        let json: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(json["message"], "pulled");
        assert_eq!(json["events"], 16);
        assert_eq!(json["level"], "INFO");
        assert_eq!(json["target"], "vodrelay::ops::logging::tests");
        assert!(json["timestamp"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{line}");
    }

    #[test]
    fn for_a_person_a_line_is_short_and_uncoloured_away_from_a_terminal() {
        let [line] = lines("pretty").try_into().unwrap();
        let (time, rest) = line.split_at("2026-01-02 03:04:05.006 +00:00".len());
        assert_eq!(rest, "  INFO pulled events=16", "{line:?}");
        let read = jiff::fmt::strtime::parse("%Y-%m-%d %H:%M:%S%.3f %:z", time);
        assert!(read.and_then(|read| read.to_timestamp()).is_ok(), "{line:?}");
    }

    #[test]
    fn a_process_has_one_log() {
        let first = init(LogFormat::Json, "warn").unwrap();
        assert_eq!(init(LogFormat::Pretty, "not even = a filter").unwrap(), first);
        assert_eq!(first.format(), LogFormat::Json);
    }
}
