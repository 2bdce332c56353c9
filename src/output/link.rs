//! One connection to RabbitMQ, from the host name to channels that are ready to publish.

use std::fmt;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::Stream;
use lapin::options::ConfirmSelectOptions;
use lapin::tcp::AsyncTcpStream;
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo, SASLMechanism};
use lapin::{Channel, Connection, ConnectionProperties, ErrorKind};
use tokio::net::TcpStream;

use super::amqp::{Address, Options};
use super::gate::{self, Gate, GatedStream};
use super::tls::{self, Socket, TlsError};
use super::topology::{self, TopologyError};
use crate::reason::Reason;

/// Asked of the broker, which takes no more than it offers (128 KiB). lapin has a buffer of 32 frames for each direction, and
/// uses all of it: these frames have room for every header, and larger bodies go in several.
const FRAME_MAX_BYTES: u32 = 32 << 10;

/// Why there is no connection. The caller tries again whatever it is; an operator reads the text.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("cannot find the host of {address}: {source}; check its name in the URL")]
    NoHost { address: String, source: std::io::Error },
    #[error("cannot connect to {address}: {source}; see that RabbitMQ runs and listens there")]
    Unreachable { address: String, source: std::io::Error },
    #[error("no TLS with {address}: {reason}; {hint}")]
    Tls { address: String, reason: String, hint: &'static str },
    #[error("no TLS with {address}: {source}")]
    TlsSetup { address: String, source: Box<TlsError> },
    #[error(
        "{address} did not finish the handshake within {limit:?}; see that it is RabbitMQ that listens there"
    )]
    Silent { address: String, limit: Duration },
    #[error(
        "{address} refused the user name or the password: {text}; correct them in the URL or the environment"
    )]
    Login { address: String, text: String },
    #[error(
        "{address} refused the virtual host: {text}; create it, grant the user access to it, or correct the URL"
    )]
    VirtualHost { address: String, text: String },
    #[error("{address} ended the handshake: {reason}; {hint}")]
    Handshake { address: String, reason: String, hint: &'static str },
    #[error("{address}: {source}")]
    Topology { address: String, source: TopologyError },
}

impl LinkError {
    /// Which trouble it is when it lasts.
    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::NoHost { .. } | Self::Unreachable { .. } | Self::Silent { .. } | Self::Handshake { .. } => {
                Reason::BrokerUnreachable
            }
            Self::Tls { .. } | Self::TlsSetup { .. } => Reason::BrokerTls,
            Self::Login { .. } | Self::VirtualHost { .. } => Reason::BrokerLogin,
            Self::Topology { .. } => Reason::BrokerTopology,
        }
    }
}

/// A connected socket that can be cut off at any time.
///
/// `Connection::close` waits behind every frame that is queued, and for ever while the broker blocks or is frozen; the
/// frames would still be published whenever it comes back. A shutdown of the socket drops them and ends lapin's thread.
struct Cut(std::net::TcpStream);

impl Drop for Cut {
    fn drop(&mut self) {
        // It fails when the peer was faster, and then there is nothing left to cut.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// A connection that is logged in. Dropping it cuts the socket.
pub(super) struct Link {
    pub(super) address: Address,
    pub(super) connection: Arc<Connection>,
    pub(super) events: Pin<Box<dyn Stream<Item = lapin::Event> + Send>>,
    /// Holds back what lapin would write.
    pub(super) gate: Gate,
    _cut: Cut,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Link {
    /// Says goodbye, for as long as `limit`, then cuts the socket.
    pub(super) async fn close(self, limit: Duration) {
        if self.connection.status().connected() && !self.connection.status().blocked() {
            let _ = tokio::time::timeout(limit, self.connection.close(200, "vodrelay stops".into())).await;
        }
    }
}

/// Connects, logs in, proves the topology on a channel of its own, and opens the lanes' channels: all of it in one time limit.
pub(super) async fn establish(
    address: &Address,
    options: &Options,
) -> Result<(Link, Vec<Channel>), LinkError> {
    let everything = async {
        let link = log_in(address, options).await?;
        let wrap = |source| LinkError::Topology { address: address.to_string(), source };
        topology::prove(&link.connection, options).await.map_err(wrap)?;
        let mut channels = Vec::new();
        for _ in 0..options.lanes.max(1) {
            channels.push(publishing_channel(&link.connection).await.map_err(|error| lost(address, &error))?);
        }
        Ok((link, channels))
    };
    let limit = options.limits.connect;
    let silent = || LinkError::Silent { address: address.to_string(), limit };
    tokio::time::timeout(limit, everything).await.unwrap_or_else(|_| Err(silent()))
}

/// A channel in confirm mode. lapin calls a publish on any other channel neither acked nor nacked.
pub(super) async fn publishing_channel(connection: &Connection) -> lapin::Result<Channel> {
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok(channel)
}

/// Connects and logs in. The caller holds the clock: lapin ignores its own `connection_timeout` (measured with 4.12.3).
pub(super) async fn log_in(address: &Address, options: &Options) -> Result<Link, LinkError> {
    let gate = Gate::default();
    let runtime = gate::runtime(&gate);
    let no_host = |source| LinkError::NoHost { address: address.to_string(), source };
    let candidates = tokio::net::lookup_host((address.host.as_str(), address.port)).await.map_err(no_host)?;
    let candidates: Vec<SocketAddr> = candidates.collect();
    let unreachable = |source| LinkError::Unreachable { address: address.to_string(), source };
    let tcp = TcpStream::connect(&candidates[..]).await.map_err(unreachable)?;
    tcp.set_nodelay(true).map_err(unreachable)?;
    let cut = Cut(tcp.as_fd().try_clone_to_owned().map_err(unreachable)?.into());
    let socket: Box<dyn Socket> = if address.tls {
        let setup = |source| LinkError::TlsSetup { address: address.to_string(), source: Box::new(source) };
        let config = tls::client_config(&options.tls).await.map_err(setup)?;
        let handshake = tls::handshake(tcp, &address.host, config).await;
        handshake.map_err(|error| no_tls(address.to_string(), &error.to_string()))?
    } else {
        Box::new(tcp)
    };
    let stream = AsyncTcpStream::Plain(GatedStream::new(socket, gate.clone()));

    // lapin asks for its stream from a thread of its own; it gets the one that is connected already, once.
    let ready = Mutex::new(Some(stream));
    let connect = async move |_: AMQPUri, _| {
        let taken = ready.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        taken.ok_or_else(|| std::io::Error::other("the broker closed the connection").into())
    };
    let properties = ConnectionProperties::default().with_connection_name("vodrelay".into());
    let connection = Connection::connector(uri(address, options), runtime, connect, properties)
        .await
        .map_err(|error| lost(address, &error))?;
    let events = Box::pin(connection.events_listener());
    Ok(Link { address: address.clone(), connection: Arc::new(connection), events, gate, _cut: cut })
}

fn uri(address: &Address, options: &Options) -> AMQPUri {
    let username = options.username.clone().or_else(|| address.username.clone());
    let password = options.password.clone().or_else(|| address.password.clone());
    AMQPUri {
        scheme: if address.tls { AMQPScheme::AMQPS } else { AMQPScheme::AMQP },
        authority: AMQPAuthority {
            // RabbitMQ's own defaults, which it accepts from loopback only.
            userinfo: AMQPUserInfo {
                username: username.unwrap_or_else(|| "guest".to_owned()),
                password: password.map_or_else(|| "guest".to_owned(), |secret| secret.expose().to_owned()),
            },
            host: address.host.clone(),
            port: address.port,
        },
        vhost: address.vhost.clone(),
        query: AMQPQueryString {
            heartbeat: Some(options.limits.heartbeat_seconds),
            frame_max: Some(FRAME_MAX_BYTES),
            auth_mechanism: options.external.then_some(SASLMechanism::External),
            ..AMQPQueryString::default()
        },
    }
}

/// The broker's own words, without the library's names for them.
pub(super) fn words(error: &lapin::Error) -> String {
    match error.kind() {
        ErrorKind::ProtocolError(refusal) => refusal.get_message().as_str().trim_end_matches('.').to_owned(),
        _ => error.to_string(),
    }
}

/// What the broker, or the network, said instead of "welcome".
fn lost(address: &Address, error: &lapin::Error) -> LinkError {
    let tls = address.tls;
    let address = address.to_string();
    let hint = match error.kind() {
        // What a TLS port says to a plain greeting is no AMQP.
        ErrorKind::IOError(_) | ErrorKind::ParsingError(_) if !tls => {
            "see its log, and write amqps:// if this port speaks TLS"
        }
        _ => "see its log",
    };
    match error.kind() {
        ErrorKind::ProtocolError(refusal) => {
            let text = words(error);
            match refusal.get_id() {
                403 => LinkError::Login { address, text },
                402 | 530 => LinkError::VirtualHost { address, text },
                _ => LinkError::Handshake { address, reason: text, hint },
            }
        }
        // With TLS 1.3 the broker's verdict on the client's certificate arrives after the handshake.
        ErrorKind::IOError(source) if tls && source.to_string().contains("alert") => {
            no_tls(address, &source.to_string())
        }
        _ => LinkError::Handshake { address, reason: words(error), hint },
    }
}

fn no_tls(address: String, reason: &str) -> LinkError {
    let lower = reason.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    let hint = if says(&[
        "unknownissuer",
        "unknown issuer",
        "not trusted",
        "self-signed",
        "selfsigned",
        "unable to verify",
    ]) {
        "name the authority that signed the broker's certificate as the CA file"
    } else if says(&["notvalidforname", "not valid for name", "subject name"]) {
        "use a host name that the broker's certificate holds"
    } else if says(&["expired", "not valid yet", "notvalidyet"]) {
        "renew the broker's certificate, or set this host's clock"
    } else if says(&[
        "certificaterequired",
        "certificate required",
        "badcertificate",
        "handshakefailure",
        "unknownca",
    ]) {
        "the broker wants a client certificate that it trusts: name the certificate and key files"
    } else if says(&["corrupt message", "invalidmessage", "invalidcontenttype"]) {
        "see that this port speaks TLS (5671 usually does, 5672 does not)"
    } else {
        "see the broker's log for its side of the handshake"
    };
    LinkError::Tls { address, reason: reason.to_owned(), hint }
}
