//! How the program ends: the exit codes of `--help`, and the one place that prints an error.

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use vodrelay_core::error_code::ErrorCode;

use super::screen::printable;
use crate::config::ConfigErrors;
use crate::ops::logging::{self, LoggingError};

/// The exit codes. Those above 2 are the ones of sysexits(3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Everything asked for was done.
    Done = 0,
    /// Something failed that no other code names.
    Failure = 1,
    /// The command line is wrong.
    Usage = 2,
    /// Some of many were done, and others failed.
    Partial = 3,
    /// The program itself is wrong.
    Bug = 70,
    /// Something outside failed that may work later: the network, the broker, the cloud.
    Temporary = 75,
    /// The configuration, the account or the topology is wrong. Another start will not help.
    Configuration = 78,
}

/// The exit codes as `--help` shows them.
pub const HELP: &str = "\
Exit codes:
   0  done
   1  failure
   2  usage: the command line is wrong
   3  some of many failed
  70  bug: please report it
  75  temporary failure: trying again may help
  78  configuration: it must be changed first";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command ended without doing its work.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    error: Box<dyn Error + Send + Sync>,
    next: Option<String>,
    error_code: Option<ErrorCode>,
}

impl Failure {
    /// An error, and the code that it ends the program with.
    pub fn new(exit: Exit, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { exit, error: error.into(), next: None, error_code: None }
    }

    /// The same, with another code to end with.
    #[must_use]
    pub fn ending(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// Its name in the catalogue, where it has one.
    #[must_use]
    pub fn error_code(mut self, code: impl Into<Option<ErrorCode>>) -> Self {
        self.error_code = code.into();
        self
    }

    /// What the operator can do about it.
    #[must_use]
    pub fn next(mut self, step: impl Into<String>) -> Self {
        self.next = Some(step.into());
        self
    }

    /// Standard output is closed. A reader that has enough, such as `head`, is not a failure.
    pub fn stdout(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::new(Exit::Done, error),
            _ => Self::new(Exit::Failure, format!("standard output cannot be written: {error}")),
        }
    }

    /// The code that the program ends with.
    pub fn exit(&self) -> Exit {
        self.exit
    }

    /// Prints the error, its causes, and the next step.
    ///
    /// # Errors
    ///
    /// When `out` cannot be written.
    pub fn report(&self, out: &mut impl Write) -> io::Result<()> {
        if self.exit == Exit::Done {
            return Ok(());
        }
        // Words of the cloud or of the broker can be in any of them.
        let mut say = |lead: &str, text: &str| {
            text.lines().try_for_each(|line| writeln!(out, "{lead}{}", printable(line)))
        };
        let mut shown = self.error.to_string();
        say("vodrelay: ", &shown)?;
        let mut cause = self.error.source();
        while let Some(error) = cause {
            let text = error.to_string();
            // Some libraries repeat the cause in their own message.
            if !shown.contains(&text) {
                say("  caused by: ", &text)?;
                shown = text;
            }
            cause = error.source();
        }
        if let Some(step) = &self.next {
            say("  next: ", step)?;
        }
        match self.error_code {
            Some(code) => say("  error code: ", code.as_str()),
            None => Ok(()),
        }
    }
}

impl From<ConfigErrors> for Failure {
    fn from(errors: ConfigErrors) -> Self {
        Self::new(Exit::Configuration, errors).error_code(ErrorCode::ConfigurationWrong)
    }
}

impl From<LoggingError> for Failure {
    fn from(error: LoggingError) -> Self {
        let exit = match error {
            LoggingError::Level { .. } | LoggingError::Journald(_) => Exit::Configuration,
            LoggingError::Writer(_) => Exit::Failure,
            LoggingError::Taken => Exit::Bug,
        };
        Self::new(exit, error)
    }
}

/// Ends the process with [`Exit::Bug`] on a panic in any task or thread. Recovery starts from the journal.
pub fn exit_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        let backtrace = std::backtrace::Backtrace::capture();
        let mut words = Vec::new();
        // Writing to memory cannot fail.
        let _ = report_panic(&mut words, &panic.to_string(), &backtrace);
        logging::last_words(words);
        std::process::exit(Exit::Bug as i32);
    }));
}

fn report_panic(out: &mut impl Write, panic: &str, backtrace: &std::backtrace::Backtrace) -> io::Result<()> {
    writeln!(out, "vodrelay: bug: {}", printable(&panic.replace('\n', " ")))?;
    if backtrace.status() == std::backtrace::BacktraceStatus::Captured {
        writeln!(out, "{backtrace}")?;
    }
    writeln!(
        out,
        "  next: please report this with the lines above and the version, {}; the journal keeps what was under way for the next start",
        env!("CARGO_PKG_VERSION")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the journal cannot be opened")]
    struct Outer(#[source] io::Error);

    fn printed(failure: &Failure) -> String {
        let mut out = Vec::new();
        failure.report(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_failure_is_printed_with_its_causes_and_the_next_step() {
        let failure = Failure::new(Exit::Temporary, Outer(io::Error::other("disk on fire")))
            .next("put out the fire, and start again");
        assert_eq!(
            printed(&failure),
            "vodrelay: the journal cannot be opened\n  caused by: disk on fire\n  next: put out the fire, and start again\n"
        );
    }

    #[test]
    fn what_others_have_said_is_printed_without_what_a_terminal_obeys() {
        let failure = Failure::new(Exit::Failure, Outer(io::Error::other("gone \u{1b}[2J\nand\u{202e}")));
        let text = "vodrelay: the journal cannot be opened\n  caused by: gone \\u{1b}[2J\n  caused by: and\\u{202e}\n";
        assert_eq!(printed(&failure), text);
        let mut out = Vec::new();
        report_panic(&mut out, "at\n\u{9b}31m", &std::backtrace::Backtrace::disabled()).unwrap();
        assert!(String::from_utf8(out).unwrap().starts_with("vodrelay: bug: at \\u{9b}31m\n"));
    }

    #[test]
    fn a_reader_that_has_seen_enough_is_no_failure() {
        let failure = Failure::stdout(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((failure.exit(), printed(&failure).as_str()), (Exit::Done, ""));
        assert_eq!(Failure::stdout(io::Error::other("full")).exit(), Exit::Failure);
    }

    #[test]
    fn a_panic_is_one_line_and_the_next_step() {
        let mut out = Vec::new();
        report_panic(
            &mut out,
            "at src/x.rs:1:2:\nindex out of bounds",
            &std::backtrace::Backtrace::disabled(),
        )
        .unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.starts_with(
                "vodrelay: bug: at src/x.rs:1:2: index out of bounds\n  next: please report this"
            ),
            "{text}"
        );
    }

    /// The panic hook belongs to the process, so the panic happens in a process of its own: this test again,
    /// with a variable set.
    #[test]
    fn a_panic_in_any_task_ends_the_process_as_a_bug() {
        const PANIC: &str = "VODRELAY_TEST_PANIC";
        if std::env::var_os(PANIC).is_some() {
            exit_on_panic();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let task = async { panic!("on purpose") };
            // A caught panic would leave the process alive, and this test would succeed.
            runtime.block_on(async { tokio::spawn(task).await }).unwrap_err();
            return;
        }
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "cli::exit::tests::a_panic_in_any_task_ends_the_process_as_a_bug",
                "--nocapture",
            ])
            .env(PANIC, "1")
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(70), "{told}");
        assert!(told.contains("vodrelay: bug: panicked at src/cli/exit.rs"), "{told}");
        assert!(told.contains("on purpose"), "{told}");
    }

    #[test]
    fn help_names_every_code() {
        use Exit::{Bug, Configuration, Done, Failure, Temporary, Usage};
        for exit in [Done, Failure, Usage, Bug, Temporary, Configuration] {
            assert!(HELP.contains(&format!("\n  {:>2}  ", exit as u8)), "{exit:?}");
        }
    }
}
