//! How far an upload is: a bar at a terminal, a line a minute elsewhere.

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tencent_vod::upload::run::UploadFigures;
use tokio::sync::watch;
use tokio::time::Instant;

use super::begin::say;
use crate::cli::screen::{cut, printable};

/// How often a line is written when standard error is not a terminal.
const LINE_EVERY: Duration = Duration::from_secs(60);

/// Shows the figures until they end.
pub(super) async fn show(mut seen: watch::Receiver<UploadFigures>, path: PathBuf, json: bool) {
    let name = path.file_name().map(|name| printable(&name.to_string_lossy())).unwrap_or_default();
    let name = cut(&name, 24);
    if io::stderr().is_terminal() && !json {
        let bar = ProgressBar::new(0);
        let style = "{prefix} {bar:20} {bytes}/{total_bytes} {bytes_per_sec} {eta} {wide_msg}";
        bar.set_style(ProgressStyle::with_template(style).expect("a constant template is right"));
        bar.set_prefix(name);
        loop {
            let figures = seen.borrow_and_update().clone();
            bar.set_length(figures.bytes);
            bar.set_position(figures.stored_bytes);
            bar.set_message(figures.problem.map(|words| printable(&words)).unwrap_or_default());
            if seen.changed().await.is_err() {
                break bar.finish_and_clear();
            }
        }
    } else {
        let (began, mut told) = (Instant::now(), Instant::now());
        let mut first: Option<u64> = None;
        loop {
            if tokio::time::timeout_at(told + LINE_EVERY, seen.changed())
                .await
                .is_ok_and(|changed| changed.is_err())
            {
                break;
            }
            let figures = seen.borrow_and_update().clone();
            let first = *first.get_or_insert(figures.stored_bytes);
            if told.elapsed() >= LINE_EVERY {
                told = Instant::now();
                let sent = figures.stored_bytes.saturating_sub(first);
                let rate = sent as f64 / began.elapsed().as_secs_f64();
                let left = (figures.bytes - figures.stored_bytes) as f64 / rate.max(1.0);
                let left = humantime::format_duration(Duration::from_secs(left as u64));
                let problem =
                    figures.problem.map(|words| format!("; {}", printable(&words))).unwrap_or_default();
                let (stored, all) = (figures.stored_bytes >> 20, figures.bytes >> 20);
                say(&format!(
                    "{name}: {stored} of {all} MiB, {:.1} MiB/s, {left} left{problem}",
                    rate / 1_048_576.0
                ));
            }
        }
    }
}
