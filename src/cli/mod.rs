//! The commands: one file each. Standard output is data, standard error is talk.

mod check;
mod completions;
mod demo;
mod emulate;
pub mod events;
pub mod exit;
mod man;
mod release;
mod run;
pub mod screen;
mod signature;
mod status;
mod status_screen;
mod table;
pub mod trigger;
mod upload;
mod when;

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use exit::{Exit, Failure};

/// Carry Tencent Cloud VOD's reliable-callback events into RabbitMQ, and lose none of them
#[derive(Debug, Parser)]
#[command(version, after_help = exit::HELP, max_term_width = 100)]
pub struct Cli {
    /// The configuration file [default: /etc/vodrelay/config.toml]
    #[arg(long, global = true, value_name = "FILE", env = "VODRELAY_CONFIG")]
    config: Option<PathBuf>,

    #[command(subcommand)]
    command: Command,
}

// In the order of `--help`: the most used commands come first.
#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
    Demo(demo::Args),
    Check(check::Args),
    Status(status::Args),
    /// Be a local VOD that the vendor's SDKs, and the relay, can talk to
    Emulate(emulate::EmulateArgs),
    /// Put events into an emulator's queue
    Trigger(trigger::TriggerArgs),
    /// Look at the events in the journal
    #[command(subcommand)]
    Events(events::EventsCommand),
    Upload(Box<upload::UploadArgs>),
    #[command(subcommand)]
    Uploads(upload::UploadsCommand),
    /// Give signatures that let a client upload, and look into them
    #[command(subcommand)]
    Signature(signature::SignatureCommand),
    Completions(completions::Args),
    // For packages. A reader of `--help` has the manual already.
    #[command(hide = true)]
    Man(man::Args),
}

impl Cli {
    /// Runs the command of the command line.
    ///
    /// # Errors
    ///
    /// Why the command failed, with the exit code.
    pub fn run(self) -> Result<Exit, Failure> {
        let config = self.config.as_deref();
        match self.command {
            Command::Run(args) => run::run(&args, config),
            Command::Demo(args) => demo::run(&args),
            Command::Emulate(args) => Ok(runtime()?.block_on(emulate::run(args)).map(|()| Exit::Done)?),
            Command::Trigger(args) => Ok(runtime()?.block_on(trigger::run(args)).map(|()| Exit::Done)?),
            Command::Events(command) => events::run(&command, config),
            Command::Upload(args) => upload::run(*args, config),
            Command::Uploads(command) => upload::run_uploads(&command, config),
            Command::Signature(command) => signature::run(&command),
            Command::Check(args) => check::run(&args, config),
            Command::Status(args) => status::run(&args, config),
            Command::Completions(args) => completions::run(&args),
            Command::Man(args) => man::run(&args),
        }
    }
}

/// The runtime of the asynchronous commands. One worker carries the quota many times over. A second worker
/// would be woken for each task, which costs more than most of these tasks.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    // The default soft limit is low for programs that use select(2).
    let files = getrlimit(Resource::Nofile);
    // The limit without that is enough for most.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files });
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().map_err(|error| {
        Failure::new(Exit::Failure, error).next("see that the process may start threads and open files")
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_names_the_default_file() {
        let help = Cli::command().render_help().to_string();
        assert!(help.contains(crate::config::DEFAULT_PATH));
    }
}
