//! The output's end: every broker, the exchange, the queue.

use tokio::time::{Instant, timeout_at};

use super::lines::Line;
use crate::app::{self, OutputOptions};
use crate::config::Config;
use crate::output::amqp::{self, Step};

const PART: &str = "broker";

pub(super) async fn check(config: Config, deadline: Instant) -> Vec<Line> {
    match app::output_options(&config) {
        OutputOptions::Stdout(_) => {
            vec![Line::ok("output", "standard output, one JSON line an event")]
        }
        OutputOptions::Amqp(options) => match timeout_at(deadline, amqp::probe(&options)).await {
            Ok(steps) => steps.into_iter().map(line).collect(),
            Err(_) => vec![Line::away(PART, "no answer in time; run this again when the network is well")],
        },
    }
}

fn line(step: Step) -> Line {
    let Step { name, ok, doubtful, passing, text, error_code } = step;
    let text = format!("{name}: {text}");
    let line = match (ok, doubtful, passing) {
        (true, false, _) => Line::ok(PART, text),
        (true, true, _) => Line::warn(PART, text),
        (false, _, true) => Line::away(PART, text),
        (false, _, false) => Line::wrong(PART, text),
    };
    line.error_code(error_code)
}
