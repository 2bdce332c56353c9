//! What each part must know, from the configuration.

use tencent_vod::Places;
use vodrelay_core::lease::Window;
use vodrelay_core::machine::Settings;

use crate::cloud;
use crate::config::{self, Config};
use crate::ops::maintenance;
use crate::output;

/// What the core must know.
pub fn settings(config: &Config) -> Settings {
    Settings {
        sub_apps: config.vod.sub_apps(),
        confirm_after: config.relay.confirm_after,
        window: Window { length: config.vod.window, margin: config.relay.lease_margin },
        max_in_flight: config.relay.max_in_flight,
        idle_backoff_min: config.relay.idle_backoff_min,
        idle_backoff_max: config.relay.idle_backoff_max,
        publish_attempts: config.relay.publish_attempts,
        requests_per_second: config.vod.requests_per_second,
        seed: fastrand::u64(..),
    }
}

/// What maintenance must know.
pub(super) fn maintenance_options(config: &Config) -> maintenance::Options {
    let config::MaintenanceConfig { prune, vacuum, backup, summary, backlog, backups_kept, backup_dir } =
        config.maintenance.clone();
    maintenance::Options {
        prune,
        vacuum,
        backup,
        summary,
        backlog,
        retention: config.journal.retention,
        backups_kept,
        backup_dir,
    }
}

/// Where the configuration says that credentials are.
pub fn places(config: &Config) -> Places {
    Places::new(config.vod.credentials)
}

/// A client's options by the configuration, for credentials that are in `places`.
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
    let routing_key = config.amqp.routing_key.clone();
    let format = config.amqp.format;
    if config.output.kind == config::OutputKind::Stdout {
        return OutputOptions::Stdout(output::stdout::Options { routing_key, format });
    }
    let amqp = &config.amqp;
    OutputOptions::Amqp(Box::new(output::amqp::Options {
        username: amqp.username.clone(),
        password: amqp.password.clone(),
        exchange: amqp.exchange.clone(),
        queue: amqp.queue.clone(),
        routing_key,
        binding_key: amqp.binding_key.clone(),
        external: amqp.auth == config::Auth::External,
        topology: amqp.topology,
        format,
        // The journal hands a backlog out in the order in which it was received, and that is kept.
        in_order: config.relay.confirm_after == config::ConfirmAfter::Journal,
        tls: output::amqp::TlsFiles {
            ca_file: amqp.ca_file.clone(),
            certificate_file: amqp.client_cert_file.clone(),
            key_file: amqp.client_key_file.clone(),
        },
        ..output::amqp::Options::new(amqp.urls.iter().map(address).collect())
    }))
}

fn address(url: &config::AmqpUrl) -> output::amqp::Address {
    let url = url.expose();
    let decoded = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    let tls = url.scheme() == "amqps";
    let host = url.host_str().unwrap_or_default();
    let path = url.path().strip_prefix('/').unwrap_or_default();
    output::amqp::Address {
        tls,
        host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
        port: url.port().unwrap_or(if tls { 5671 } else { 5672 }),
        // No path at all means RabbitMQ's default virtual host (the AMQP URI specification leaves it to the client).
        vhost: if path.is_empty() { "/".to_owned() } else { decoded(path) },
        username: (!url.username().is_empty()).then(|| decoded(url.username())),
        password: url.password().map(|password| tencentcloud_signing::Secret::new(decoded(password))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn addressed(url: &str) -> output::amqp::Address {
        let config =
            Config::from_variables(std::iter::once(("VODRELAY_AMQP__URLS".to_owned(), url.to_owned())))
                .unwrap();
        address(&config.amqp.urls[0])
    }

    #[test]
    fn a_brokers_url_is_taken_apart_and_decoded() {
        let address = addressed("amqps://us%65r:p%40ss@mq.example:5999/a%2fb");
        assert_eq!((address.tls, address.host.as_str(), address.port), (true, "mq.example", 5999));
        assert_eq!((address.vhost.as_str(), address.username.as_deref()), ("a/b", Some("user")));
        assert_eq!(address.password.unwrap().expose(), "p@ss");
    }

    #[test]
    fn a_brokers_url_has_the_usual_defaults() {
        let address = addressed("amqp://[::1]");
        assert_eq!((address.host.as_str(), address.port, address.vhost.as_str()), ("::1", 5672, "/"));
        assert_eq!((address.username, address.password), (None, None));
        assert_eq!(addressed("amqps://h/%2f").vhost, "/");
        assert_eq!(addressed("amqps://h/%2f").port, 5671);
    }
}
