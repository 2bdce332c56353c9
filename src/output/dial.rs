//! A TCP connection to the first address of a name that answers.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout_at};
use vodrelay_host::descriptors;

/// The wait before the next address is tried in parallel: RFC 8305 ("Happy Eyeballs") recommends it.
const HEAD_START: Duration = Duration::from_millis(250);

/// Why no address accepted the connection, in the order of the attempts.
#[derive(Debug)]
pub(super) struct Unreachable(Vec<(Option<SocketAddr>, io::Error)>);

impl Unreachable {
    /// Removes the addresses when the host is an address itself: the caller has named it already.
    pub(super) fn unnamed(self) -> Self {
        Self(self.0.into_iter().map(|(_, error)| (None, error)).collect())
    }
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (address, error)) in self.0.iter().enumerate() {
            let comma = if at > 0 { ", " } else { "" };
            match address {
                Some(address) => write!(f, "{comma}{address}: {error}")?,
                None => write!(f, "{comma}{error}")?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for Unreachable {
    /// An attempt that failed because too many files are open. That is not about the address.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        let mut errors = self.0.iter().map(|(_, error)| error);
        Some(errors.find(|error| descriptors::is_missing(*error))?)
    }
}

impl From<io::Error> for Unreachable {
    fn from(error: io::Error) -> Self {
        Self(vec![(None, error)])
    }
}

/// Connects to the first of `addresses` that answers within `limit`. Each address gets a head start over the
/// next one, and all attempts continue in parallel. An address that does not answer delays no other.
pub(super) async fn connect(addresses: &[SocketAddr], limit: Duration) -> Result<TcpStream, Unreachable> {
    let begin = Instant::now();
    let end = begin + limit;
    let count = u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
    // The last one always has half of the time.
    let head_start = HEAD_START.min(limit / 2 / count);
    let mut attempts: FuturesUnordered<_> = (0_u32..)
        .zip(addresses)
        .map(async |(place, address)| {
            sleep_until(begin + head_start * place).await;
            let silent = || {
                let waited = humantime::format_duration(limit.saturating_sub(head_start * place));
                io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {waited}"))
            };
            let tried = timeout_at(end, TcpStream::connect(address)).await.unwrap_or_else(|_| Err(silent()));
            tried.map_err(|error| (place, *address, error))
        })
        .collect();
    let mut failures = Vec::new();
    while let Some(tried) = attempts.next().await {
        match tried {
            Ok(connected) => return Ok(connected),
            Err(failure) => failures.push(failure),
        }
    }
    failures.sort_by_key(|(place, ..)| *place);
    Err(Unreachable(failures.into_iter().map(|(_, address, error)| (Some(address), error)).collect()))
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    /// A listener with a full queue, the connections that fill it, and its address: it answers no further
    /// SYN.
    async fn swallowing() -> (TcpListener, Vec<TcpStream>, SocketAddr) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut filling = Vec::new();
        while let Ok(Ok(stream)) =
            tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(address)).await
        {
            filling.push(stream);
        }
        (listener, filling, address)
    }

    #[tokio::test]
    async fn an_address_that_swallows_everything_takes_nothing_from_the_next() {
        let (_listener, _filling, swallowing) = swallowing().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = listener.local_addr().unwrap();
        let connected = connect(&[swallowing, swallowing, good], Duration::from_secs(30)).await.unwrap();
        assert_eq!(connected.peer_addr().unwrap(), good);
    }

    #[tokio::test]
    async fn each_failure_names_its_address() {
        let (_listener, _filling, swallowing) = swallowing().await;
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let error = connect(&[swallowing, closed], Duration::from_secs(1)).await.unwrap_err().to_string();
        let expected =
            format!("{swallowing}: no answer within 1s, {closed}: Connection refused (os error 111)");
        assert_eq!(error, expected);
    }
}
