//! One connection to RabbitMQ, from the host name to channels that are ready to publish.

use std::fmt;
use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::Stream;
use lapin::options::ConfirmSelectOptions;
use lapin::tcp::AsyncTcpStream;
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo, SASLMechanism};
use lapin::{Channel, Connection, ConnectionProperties};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout, timeout_at};
use vodrelay_host::descriptors;

use super::amqp::{Address, Options};
use super::dial::{self, Unreachable};
use super::greeting::Greeting;
use super::refusal::{LinkError, broken_tls, lost};
use super::stream::{self, BrokerStream};
use super::tls::{self, Socket};
use super::topology;

/// Requested from the broker, which takes no more than it offers (128 KiB). lapin has a buffer of 32 frames
/// for each direction and uses all of it. These frames fit every header; larger bodies go in several.
const FRAME_MAX_BYTES: u32 = 32 << 10;

/// A connected socket that can be cut off at any time.
///
/// `Connection::close` waits behind every queued frame, and for ever while the broker blocks or is frozen.
/// The frames would still be published when the broker returns. A shutdown of the socket drops them and ends
/// lapin's thread.
struct ShutdownOnDrop(std::net::TcpStream);

impl Drop for ShutdownOnDrop {
    fn drop(&mut self) {
        // It fails when the peer was faster. Then nothing is left to cut.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// A connection that is logged in. Dropping it cuts the socket.
pub(super) struct Link {
    pub(super) address: Address,
    pub(super) connection: Arc<Connection>,
    pub(super) events: Pin<Box<dyn Stream<Item = lapin::Event> + Send>>,
    /// Holds back what lapin would write.
    _cut: ShutdownOnDrop,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Link {
    /// Closes the connection within `limit`, then cuts the socket.
    pub(super) async fn close(self, limit: Duration) {
        if self.connection.status().connected() && !self.connection.status().blocked() {
            let _ = timeout(limit, self.connection.close(200, "vodrelay stops".into())).await;
        }
    }
}

/// Connects, logs in, proves the topology on a channel of its own, and opens the lanes' channels, all within
/// one time limit.
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
            channels.push(
                publishing_channel(&link.connection)
                    .await
                    .map_err(|error| lost(address, options, &error, None))?,
            );
        }
        Ok((link, channels))
    };
    let limit = options.limits.connect;
    let silent = || LinkError::silent(address, limit);
    timeout(limit, everything).await.unwrap_or_else(|_| Err(silent()))
}

/// A channel in confirm mode. lapin calls a publish on any other channel neither acked nor nacked.
pub(super) async fn publishing_channel(connection: &Connection) -> lapin::Result<Channel> {
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok(channel)
}

/// Connects and logs in. The caller has the time limit: lapin ignores its own `connection_timeout` (measured
/// with 4.12.3).
pub(super) async fn log_in(address: &Address, options: &Options) -> Result<Link, LinkError> {
    // The caller's limit would cut it off without naming the silent address.
    let limit = options.limits.connect * 4 / 5;
    let end = Instant::now() + limit;
    let no_host = |source: io::Error| match LinkError::out_of_files(address, &source) {
        Some(files) => files,
        // The resolver does not say why it has no address.
        None if descriptors::are_used_up() => {
            LinkError::Files { address: address.to_string(), cause: source.to_string() }
        }
        None => LinkError::NoHost { address: address.to_string(), source },
    };
    let unnamed =
        || io::Error::new(io::ErrorKind::TimedOut, format!("no answer of the name server within {limit:?}"));
    let found = timeout_at(end, lookup_host((address.host.as_str(), address.port))).await;
    let found = found.unwrap_or_else(|_| Err(unnamed())).map_err(no_host)?;
    log_in_at(found.collect(), address, options, end).await
}

/// Logs in at the first working address of a host. An address that accepts the connection and then sends
/// nothing, or no valid login, is left for the next one. Each has its share of the time until `end`.
async fn log_in_at(
    mut candidates: Vec<SocketAddr>,
    address: &Address,
    options: &Options,
    end: Instant,
) -> Result<Link, LinkError> {
    let unreachable = |source: Unreachable| {
        LinkError::out_of_files(address, &source)
            .unwrap_or_else(|| LinkError::Unreachable { address: address.to_string(), source })
    };
    let is_address = address.host.parse::<IpAddr>().is_ok();
    let mut failures: Vec<(SocketAddr, LinkError)> = Vec::new();
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let tcp = match dial::connect(&candidates, left).await {
            Ok(tcp) => tcp,
            Err(error) if failures.is_empty() => {
                return Err(unreachable(if is_address { error.unnamed() } else { error }));
            }
            Err(error) => {
                failures.extend(candidates.first().map(|first| (*first, unreachable(error))));
                return Err(LinkError::Addresses(failures));
            }
        };
        let taken = tcp.peer_addr().map_err(|error| unreachable(error.into()))?;
        let handshake = handshake(tcp, address, options);
        if candidates.len() == 1 && failures.is_empty() {
            return handshake.await;
        }
        let others = u32::try_from(candidates.len()).unwrap_or(u32::MAX).max(1);
        let share = end.saturating_duration_since(Instant::now()) / others;
        let error = match timeout(share, handshake).await {
            Ok(Ok(link)) => return Ok(link),
            // It answered the login: the other nodes of a cluster answer the same.
            Ok(Err(error)) if error.is_verdict() => return Err(error),
            Ok(Err(error)) => error,
            Err(_) => LinkError::silent(address, share),
        };
        failures.push((taken, error));
        candidates.retain(|candidate| *candidate != taken);
        if candidates.is_empty() {
            return Err(LinkError::Addresses(failures));
        }
    }
}

/// TLS, if configured, and the login, over an open connection.
async fn handshake(tcp: TcpStream, address: &Address, options: &Options) -> Result<Link, LinkError> {
    let runtime = stream::runtime();
    let heard = Greeting::default();
    let unreachable = |error: io::Error| {
        LinkError::out_of_files(address, &error)
            .unwrap_or_else(|| LinkError::Unreachable { address: address.to_string(), source: error.into() })
    };
    tcp.set_nodelay(true).map_err(unreachable)?;
    let cut = ShutdownOnDrop(tcp.as_fd().try_clone_to_owned().map_err(unreachable)?.into());
    let socket: Box<dyn Socket> = if address.tls {
        let setup = |source| {
            LinkError::out_of_files(address, &source).unwrap_or_else(|| LinkError::TlsSetup {
                address: address.to_string(),
                source: Box::new(source),
            })
        };
        let config = tls::client_config(&options.tls).await.map_err(setup)?;
        let handshake = tls::handshake(tcp, &address.host, config).await;
        handshake.map_err(|error| broken_tls(address, options, &error))?
    } else {
        Box::new(tcp)
    };
    let stream = AsyncTcpStream::Plain(BrokerStream::new(socket, heard.clone()));

    // lapin requests its stream from a thread of its own. It gets the connected one, once.
    let ready = Mutex::new(Some(stream));
    let connect = async move |_: AMQPUri, _| {
        let taken = ready.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        taken.ok_or_else(|| std::io::Error::other("the broker closed the connection").into())
    };
    let properties = ConnectionProperties::default().with_connection_name("vodrelay".into());
    let connection = Connection::connector(uri(address, options), runtime, connect, properties)
        .await
        .map_err(|error| lost(address, options, &error, Some(&heard)))?;
    let events = Box::pin(connection.events_listener());
    Ok(Link { address: address.clone(), connection: Arc::new(connection), events, _cut: cut })
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
            auth_mechanism: options.external().then_some(SASLMechanism::External),
            ..AMQPQueryString::default()
        },
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn an_address_that_takes_connections_and_stays_silent_is_left_for_the_next_one() {
        let (silent, other) = (bind().await, bind().await);
        let addresses = vec![silent.local_addr().unwrap(), other.local_addr().unwrap()];
        let address = Address {
            tls: false,
            host: "mq.example.com".to_owned(),
            port: 5672,
            vhost: "/".to_owned(),
            username: None,
            password: None,
        };
        let options = Options::new(vec![address.clone()]);
        let limit = Duration::from_secs(4);
        let logging_in = log_in_at(addresses.clone(), &address, &options, Instant::now() + limit);
        let answering = async {
            let (mut stream, _) = other.accept().await.unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
            stream
        };
        let (ended, _stream) = tokio::join!(logging_in, answering);
        let error = ended.unwrap_err();
        let LinkError::Addresses(failures) = &error else { panic!("{error}") };
        assert!(matches!(failures[..], [(_, LinkError::Silent { .. }), (_, LinkError::NotAmqp { .. })]));
        assert_eq!(failures.iter().map(|(address, _)| *address).collect::<Vec<_>>(), addresses);
        let told = error.to_string();
        assert!(told.starts_with(&format!("{}: amqp://mq.example.com:5672", addresses[0])), "{told}");
    }

    async fn bind() -> TcpListener {
        TcpListener::bind("127.0.0.1:0").await.unwrap()
    }
}
