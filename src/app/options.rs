//! The settings of each part, from the configuration.

use tencent_vod::Places;
use vodrelay_core::machine::Settings;

use crate::cloud;
use crate::config::{self, Config};
use crate::output;

/// The settings of the core.
pub fn settings(config: &Config) -> Settings {
    Settings {
        sub_apps: config.vod.sub_apps(),
        window: config.vod.window,
        requests_per_second: config.vod.requests_per_second,
        relay: config.relay.clone(),
        seed: fastrand::u64(..),
    }
}

/// The places of the credentials.
pub fn places(config: &Config) -> Places {
    Places::new(config.vod.credentials)
}

/// A client's options from the configuration, for credentials in `places`.
pub fn client_options(config: &Config, places: Places) -> tencent_vod::Options {
    let mut options = tencent_vod::Options::new(config.vod.endpoint.clone(), places.source);
    options.region.clone_from(&config.vod.region);
    options.credentials = places;
    options.user_agent = cloud::USER_AGENT;
    options.observer = cloud::observer();
    options
}

/// The output that the configuration asks for.
#[derive(Clone, Debug)]
pub enum OutputOptions {
    /// RabbitMQ.
    Amqp(Box<output::amqp::Options>),
    /// Standard output.
    Stdout(output::stdout::Options),
}

/// The output that the configuration asks for.
pub fn output_options(config: &Config) -> OutputOptions {
    if config.output.kind == config::OutputKind::Stdout {
        let output::amqp::Options { routing_key, format, .. } = config.amqp.clone();
        return OutputOptions::Stdout(output::stdout::Options { routing_key, format });
    }
    // The journal hands a backlog out in the order of receipt, and that order is kept.
    let in_order = config.relay.confirm_after == config::ConfirmAfter::Journal;
    OutputOptions::Amqp(Box::new(output::amqp::Options { in_order, ..config.amqp.clone() }))
}
