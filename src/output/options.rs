//! The options of the output to RabbitMQ.

use std::fmt;
use std::time::Duration;

use tencentcloud_signing::Secret;
use url::Url;

use super::message::BodyFormat;
use super::tls::TlsFiles;
use crate::routing_key::RoutingKeyTemplate;

/// The number of channels: enough for several times the cloud's quota (`docs/scaling.md`).
pub const LANES: usize = 4;

/// The address of one broker, with the login. It prints without the password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Whether to speak TLS (`amqps://`).
    pub tls: bool,
    /// Host name or IP address, an IPv6 address without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The virtual host, decoded: `/` is RabbitMQ's default.
    pub vhost: String,
    /// The URL's user name; [`Options::username`] has priority.
    pub username: Option<String>,
    /// The URL's password; [`Options::password`] has priority.
    pub password: Option<Secret>,
}

impl Address {
    /// The parts of a URL `amqp://user:password@host:port/vhost`; `url` has a host.
    pub fn of(url: &Url) -> Self {
        let decoded =
            |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
        let tls = url.scheme() == "amqps";
        let host = url.host_str().unwrap_or_default();
        let path = url.path().strip_prefix('/').unwrap_or_default();
        Self {
            tls,
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: url.port().unwrap_or(if tls { 5671 } else { 5672 }),
            // No path means RabbitMQ's default virtual host (the AMQP URI specification leaves it to the
            // client).
            vhost: if path.is_empty() { "/".to_owned() } else { decoded(path) },
            username: (!url.username().is_empty()).then(|| decoded(url.username())),
            password: url.password().map(|password| Secret::new(decoded(password))),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "amqps" } else { "amqp" };
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{scheme}://{open}{}{close}:{} (virtual host {})", self.host, self.port, self.vhost)
    }
}

/// Who creates the exchange and the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Topology {
    /// The relay: a durable topic exchange, and a durable quorum queue bound with [`Options::binding_key`].
    #[default]
    Declare,
    /// An operator. The relay checks that they exist.
    Verify,
}

/// Time limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeLimits {
    /// From the host name to channels that are ready to publish.
    pub connect: Duration,
    /// From a batch's first publish to its last answer. The library needs two heartbeats (10 s) to notice a
    /// dead peer, and a lease lasts 30 s.
    pub publish: Duration,
    /// The shortest wait between two rounds of attempts.
    pub backoff_min: Duration,
    /// The longest one.
    pub backoff_max: Duration,
    /// The requested heartbeat in seconds. A peer counts as dead after two of them (measured).
    pub heartbeat_seconds: u16,
}

impl Default for TimeLimits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            publish: Duration::from_secs(8),
            backoff_min: Duration::from_millis(200),
            backoff_max: Duration::from_secs(10),
            heartbeat_seconds: 5,
        }
    }
}

/// How the relay logs in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Auth {
    /// By a user name and a password (SASL PLAIN).
    #[default]
    Password,
    /// By the client's certificate, from which the broker takes the user (SASL EXTERNAL).
    External,
}

/// The options of the output; section `[amqp]` of the configuration. `lanes`, `in_order` and `limits` are not
/// keys there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The brokers, tried in turn; never empty.
    pub urls: Vec<Address>,
    /// The user name at every broker, with priority over the URL's.
    pub username: Option<String>,
    /// The password at every broker, with priority over the URL's.
    pub password: Option<Secret>,
    /// The exchange to publish to.
    pub exchange: String,
    /// The queue to declare or to verify; empty for none.
    pub queue: String,
    /// The template of routing keys.
    pub routing_key: RoutingKeyTemplate,
    /// The binding of the declared queue.
    pub binding_key: String,
    /// How the relay logs in.
    pub auth: Auth,
    /// Who creates the exchange and the queue.
    pub topology: Topology,
    /// What bodies hold.
    pub format: BodyFormat,
    /// Files for `amqps://`.
    pub tls: TlsFiles,
    /// The number of channels that publish at once.
    pub lanes: usize,
    /// Whether the messages of one sub-application share a lane and so leave in their order. Otherwise each
    /// takes the first free lane.
    pub in_order: bool,
    /// Time limits.
    pub limits: TimeLimits,
}

impl Options {
    /// Options for these brokers, with every default.
    pub fn new(urls: Vec<Address>) -> Self {
        Self {
            urls,
            username: None,
            password: None,
            exchange: "vod.events".to_owned(),
            queue: "vod.events".to_owned(),
            routing_key: RoutingKeyTemplate::default(),
            binding_key: "vod.#".to_owned(),
            auth: Auth::default(),
            topology: Topology::default(),
            format: BodyFormat::default(),
            tls: TlsFiles::default(),
            lanes: LANES,
            in_order: false,
            limits: TimeLimits::default(),
        }
    }

    /// Whether the client's certificate is the login.
    pub(super) fn external(&self) -> bool {
        self.auth == Auth::External
    }

    /// Whether the relay itself declares the queue, which is then bound for everything that it publishes.
    pub(super) fn declares_queue(&self) -> bool {
        self.topology == Topology::Declare && !self.queue.is_empty()
    }
}

impl Default for Options {
    /// A RabbitMQ on this host with its own user for local clients.
    fn default() -> Self {
        Self::new(vec![Address::of(
            &Url::parse("amqp://guest:guest@127.0.0.1:5672/%2f").expect("a constant URL"),
        )])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn addressed(url: &str) -> Address {
        Address::of(&Url::parse(url).unwrap())
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
