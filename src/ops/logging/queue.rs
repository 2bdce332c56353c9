//! The queue of log lines to their reader.
//!
//! A blocked reader makes a write wait without a limit. So a thread of its own writes from a bounded queue. A
//! line that does not fit is dropped and counted, and no other thread waits.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tracing::warn;
use vodrelay_core::error_code::ErrorCode;

/// The capacity of the queue: some thousand lines.
const MAX_BYTES: usize = 1 << 20;
/// How often dropped lines are reported.
const SAY_EVERY: Duration = Duration::from_secs(1);
/// A standard error in non-blocking mode returns this when it is full.
const FULL_PAUSE: Duration = Duration::from_millis(20);

thread_local! {
    /// Whether this thread writes the log. Its own lines are always taken.
    static WRITES: Cell<bool> = const { Cell::new(false) };
}

/// The sender to the thread; clones share it.
#[derive(Clone)]
pub(super) struct LogQueue(Arc<Shared>);

impl fmt::Debug for LogQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogQueue").finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Shared {
    lines: Mutex<LogLines>,
    /// A line arrived, or one was written.
    changed: Condvar,
}

#[derive(Default)]
struct LogLines {
    waiting: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Whether a line that has left `waiting` is being written.
    writing: bool,
    /// Since the last report.
    dropped: u64,
}

impl Shared {
    fn lines(&self) -> MutexGuard<'_, LogLines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LogQueue {
    /// Starts the thread that gives each line to `write`.
    pub(super) fn start(write: impl FnMut(&[u8]) -> io::Result<()> + Send + 'static) -> io::Result<Self> {
        let queue = Self(Arc::default());
        let shared = Arc::clone(&queue.0);
        thread::Builder::new().name("log-writer".to_owned()).spawn(move || work(&shared, write))?;
        Ok(queue)
    }

    /// Takes a line, or drops it. Waits for nothing.
    pub(super) fn push(&self, line: Vec<u8>) {
        let mut lines = self.0.lines();
        if lines.bytes + line.len() > MAX_BYTES && !WRITES.get() {
            lines.dropped += 1;
            drop(lines);
            count_dropped();
            return;
        }
        lines.bytes += line.len();
        lines.waiting.push_back(line);
        drop(lines);
        self.0.changed.notify_all();
    }

    /// Waits until all is written, up to this limit.
    pub(super) fn flush(&self, limit: Duration) {
        let until = Instant::now() + limit;
        let mut lines = self.0.lines();
        while lines.writing || !lines.waiting.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            lines = self.0.changed.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

fn count_dropped() {
    metrics::counter!("vodrelay_log_lines_dropped_total").increment(1);
}

fn work(shared: &Shared, mut write: impl FnMut(&[u8]) -> io::Result<()>) {
    WRITES.set(true);
    let mut said: Option<Instant> = None;
    loop {
        let line = {
            let mut lines = shared.lines();
            loop {
                if let Some(line) = lines.waiting.pop_front() {
                    lines.writing = true;
                    break line;
                }
                lines = shared.changed.wait(lines).unwrap_or_else(PoisonError::into_inner);
            }
        };
        let written = write(&line);
        let dropped = {
            let mut lines = shared.lines();
            lines.bytes -= line.len();
            // After a failed write there is no reader.
            let say = written.is_ok() && lines.dropped > 0 && said.is_none_or(|at| at.elapsed() >= SAY_EVERY);
            if say { std::mem::take(&mut lines.dropped) } else { 0 }
        };
        if written.is_err() {
            count_dropped();
        }
        if dropped > 0 {
            said = Some(Instant::now());
            warn!(error_code = %ErrorCode::LogDropped, lines = dropped, "lines of the log were dropped: its reader stopped, or was too slow");
        }
        shared.lines().writing = false;
        shared.changed.notify_all();
    }
}

/// Writes a whole line, also where a full pipe returns at once instead of waiting.
pub(super) fn write_all(to: &mut impl io::Write, mut line: &[u8]) -> io::Result<()> {
    while !line.is_empty() {
        match to.write(line) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => line = &line[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(FULL_PAUSE),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A line under construction; it goes to the queue as a whole.
pub(super) struct LogLine {
    queue: LogQueue,
    bytes: Vec<u8>,
}

impl io::Write for LogLine {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LogLine {
    fn drop(&mut self) {
        if !self.bytes.is_empty() {
            self.queue.push(std::mem::take(&mut self.bytes));
        }
    }
}

impl<'a> tracing_subscriber::fmt::MakeWriter<'a> for LogQueue {
    type Writer = LogLine;

    fn make_writer(&'a self) -> LogLine {
        LogLine { queue: self.clone(), bytes: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const BOUND: Duration = Duration::from_secs(30);

    #[test]
    fn a_reader_that_stands_still_costs_lines_and_no_time() {
        let (go, gate) = mpsc::channel::<()>();
        let (written, lines) = mpsc::channel();
        let queue = LogQueue::start(move |line| {
            // Blocks until it is released, once.
            let _ = gate.recv();
            let _ = written.send(line.len());
            Ok(())
        })
        .unwrap();
        let began = Instant::now();
        for _ in 0..10_000 {
            queue.push(vec![b'x'; 1_000]);
        }
        queue.flush(Duration::from_millis(50));
        assert!(began.elapsed() < BOUND);
        let kept = queue.0.lines().waiting.len();
        assert!((1_000..=MAX_BYTES / 1_000).contains(&kept), "{kept}");
        assert!(queue.0.lines().dropped >= 8_000);
        drop(go);
        queue.flush(BOUND);
        assert!(lines.try_iter().count() > kept);
        assert_eq!(queue.0.lines().dropped, 0, "it was said");
        queue.push(vec![b'y']);
        queue.flush(BOUND);
        assert_eq!(lines.try_iter().last(), Some(1));
    }

    #[test]
    fn a_reader_that_is_gone_is_not_tried_again_for_each_notice() {
        let queue = LogQueue::start(|_| Err(io::ErrorKind::BrokenPipe.into())).unwrap();
        for _ in 0..5_000 {
            queue.push(vec![b'x'; 1_000]);
        }
        queue.flush(BOUND);
        assert!(queue.0.lines().waiting.is_empty());
    }
}
