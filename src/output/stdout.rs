//! Events as JSON lines: `{"message_id","routing_key","headers","event"}`, one line for each event.
//!
//! An event counts as published when its line is flushed. A slow reader shows as [`OutputState::Blocked`],
//! like a broker that blocks. A closed reader ends the task.

use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;
use serde::ser::SerializeMap;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use vodrelay_core::error_code::ErrorCode;
use vodrelay_core::outcome::{OutputState, Problem, PublishOutcome};
use vodrelay_core::outgoing::Outgoing;

use super::message::{BodyFormat, HEADER_VALUE_MAX_BYTES, Header, headers};
use super::{Ends, Error, Output, PublishJob, answer_all, channel, refuse_the_rest, unknown};
use crate::routing_key::RoutingKeyTemplate;

/// The options of this output.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The template of routing keys.
    pub routing_key: RoutingKeyTemplate,
    /// The content of the member `event`.
    pub format: BodyFormat,
}

/// Starts the output on the process's standard output; see [`spawn_to`].
pub fn spawn(options: Options, shutdown: CancellationToken) -> (Output, JoinHandle<Result<(), Error>>) {
    spawn_to(options, io::stdout(), shutdown)
}

/// Starts the output on `writer`. The task ends when `shutdown` is cancelled, or with an error when a write fails.
///
/// Must be called within the tokio runtime. Writes happen on a thread of their own, because a pipe can block
/// them.
pub fn spawn_to(
    options: Options,
    writer: impl Write + Send + 'static,
    shutdown: CancellationToken,
) -> (Output, JoinHandle<Result<(), Error>>) {
    let (output, Ends { queues, state, .. }) = channel(OutputState::Up, 1);
    let task = tokio::spawn(async move {
        let result = run(&options, writer, &queues[0], &state, &shutdown).await;
        refuse_the_rest(&queues);
        let reason = match &result {
            Ok(()) => "stopped".to_owned(),
            Err(error) => with_source(error),
        };
        state.send_replace(OutputState::Down(Problem::new(ErrorCode::NoPublish, reason)));
        result
    });
    (output, task)
}

fn with_source(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

/// One write, with the receiver of its result.
type Chunk = (Vec<u8>, oneshot::Sender<io::Result<()>>);

async fn run(
    options: &Options,
    mut writer: impl Write + Send + 'static,
    jobs: &async_channel::Receiver<PublishJob>,
    state: &tokio::sync::watch::Sender<OutputState>,
    shutdown: &CancellationToken,
) -> Result<(), Error> {
    /// From this duration on the reader counts as blocked.
    const READER_LIMIT: Duration = Duration::from_secs(5);
    let (chunks, mut to_write) = mpsc::channel::<Chunk>(1);
    let spawned = std::thread::Builder::new().name("stdout".to_owned()).spawn(move || {
        while let Some((bytes, done)) = to_write.blocking_recv() {
            // The caller may have stopped waiting.
            let _ = done.send(writer.write_all(&bytes).and_then(|()| writer.flush()));
        }
    });
    spawned.map_err(Error::StandardOutput)?;

    loop {
        let first = tokio::select! {
            biased;
            () = shutdown.cancelled() => return Ok(()),
            job = jobs.recv() => match job {
                Ok(job) => job,
                Err(_) => return Ok(()),
            },
        };
        let batch = drain(first, jobs);
        let mut bytes = Vec::new();
        for job in &batch {
            write_line(&mut bytes, options, &job.message);
        }
        let (done, mut written) = oneshot::channel();
        // The thread ends only after `chunks` is dropped, or by a panic, which `written` shows.
        let _ = chunks.send((bytes, done)).await;
        let result = loop {
            tokio::select! {
                biased;
                result = &mut written => break result.unwrap_or_else(|_| Err(io::Error::other("the writer is gone"))),
                () = async { shutdown.cancelled().await; tokio::time::sleep(READER_LIMIT).await } => {
                    answer_alike(batch, &unknown("the relay stopped while standard output was not read"));
                    return Ok(());
                }
                () = tokio::time::sleep(READER_LIMIT), if *state.borrow() == OutputState::Up => {
                    tracing::warn!(error_code = %ErrorCode::NoPublish, "the output is blocked: standard output has no reader");
                    let problem = Problem::new(ErrorCode::NoPublish, "standard output has no reader");
                    state.send_replace(OutputState::Blocked(problem));
                }
            }
        };
        match result {
            Ok(()) => {
                answer_alike(batch, &PublishOutcome::Acked);
                if *state.borrow() != OutputState::Up {
                    tracing::info!("the output takes events");
                    state.send_replace(OutputState::Up);
                }
            }
            Err(error) => {
                answer_alike(batch, &unknown(format!("cannot write to standard output: {error}")));
                return Err(Error::StandardOutput(error));
            }
        }
    }
}

/// `first` and the other queued jobs share one flush.
fn drain(first: PublishJob, jobs: &async_channel::Receiver<PublishJob>) -> Vec<PublishJob> {
    const BATCH_MAX: usize = 256;
    let mut batch = vec![first];
    while batch.len() < BATCH_MAX
        && let Ok(job) = jobs.try_recv()
    {
        batch.push(job);
    }
    batch
}

fn answer_alike(batch: Vec<PublishJob>, outcome: &PublishOutcome) {
    answer_all(batch.into_iter().map(|job| (job, outcome.clone())));
}

struct Headers(Vec<(&'static str, Header)>);

impl Serialize for Headers {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// The part of the line before the event.
#[derive(Serialize)]
struct Envelope<'a> {
    message_id: &'a str,
    routing_key: String,
    headers: Headers,
}

fn write_line(line: &mut Vec<u8>, options: &Options, message: &Outgoing) {
    let envelope = Envelope {
        message_id: message.message_id.as_str(),
        routing_key: options.routing_key.key(&message.event),
        headers: Headers(headers(message, HEADER_VALUE_MAX_BYTES).collect()),
    };
    serde_json::to_writer(&mut *line, &envelope).expect("a struct of strings and numbers is always JSON");
    line.pop();
    line.extend_from_slice(b",\"event\":");
    // JSON escapes line breaks in strings. A raw one is insignificant white space between tokens, so a space
    // means the same and keeps the line whole. Every other byte stays.
    let body = options.format.body(message);
    line.extend(body.iter().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { *byte }));
    line.extend_from_slice(b"}\n");
}
