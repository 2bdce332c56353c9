//! The output's end: every broker, the exchange, the queue.

use tokio::time::{Instant, timeout_at};

use super::lines::CheckLine;
use crate::app::{self, OutputOptions};
use crate::config::Config;
use crate::output::amqp::{self, ProbeStep};

const PART: &str = "broker";

pub(super) async fn check(config: Config, deadline: Instant) -> Vec<CheckLine> {
    match app::output_options(&config) {
        OutputOptions::Stdout(_) => {
            vec![CheckLine::ok("output", "standard output, one JSON line for each event")]
        }
        OutputOptions::Amqp(options) => match timeout_at(deadline, amqp::probe(&options)).await {
            Ok(steps) => steps.into_iter().map(line).collect(),
            Err(_) => {
                vec![CheckLine::away(PART, "no answer in time; run this again when the network works")]
            }
        },
    }
}

fn line(step: ProbeStep) -> CheckLine {
    let ProbeStep { name, ok, doubtful, passing, text, error_code } = step;
    let text = format!("{name}: {text}");
    let line = match (ok, doubtful, passing) {
        (true, false, _) => CheckLine::ok(PART, text),
        (true, true, _) => CheckLine::warn(PART, text),
        (false, _, true) => CheckLine::away(PART, text),
        (false, _, false) => CheckLine::wrong(PART, text),
    };
    line.error_code(error_code)
}
