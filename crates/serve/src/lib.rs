//! An HTTP server with limits: the head and the body of a request must come in time, and the number of
//! connections is bounded.
//!
//! A new connection is always taken. When there are too many, those that have waited longest for a request
//! are closed. A client that opens many idle connections loses its own, and a client that asks at once is
//! answered.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{ConnectInfo, Request};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::AbortHandle;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service;

/// The limits of one server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// For the head of a request, and between two requests.
    pub head: Duration,
    /// For the body of a request.
    pub body: Duration,
    /// How long a connection may live. A reader that does not take its answer ends with it.
    pub life: Duration,
}

/// The source of connections.
pub trait Accept: Send + 'static {
    /// A connection.
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// The type that handlers see as `ConnectInfo`.
    type Peer: Clone + Send + Sync + 'static;

    /// The next one. Cancelling it loses none.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Io, Self::Peer)>> + Send;
}

impl Accept for tokio::net::TcpListener {
    type Io = tokio::net::TcpStream;
    type Peer = std::net::SocketAddr;

    async fn accept(&mut self) -> io::Result<(Self::Io, Self::Peer)> {
        tokio::net::TcpListener::accept(self).await
    }
}

/// The wait when no connection can be taken and none of ours can be closed.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves until `stop` is cancelled; then requests under way are finished. `failed` is called each time that
/// taking connections begins to fail.
pub async fn serve<A: Accept>(
    mut listener: A,
    router: Router,
    limits: Limits,
    stop: CancellationToken,
    failed: impl Fn(&io::Error) + Send,
) {
    let connections = Arc::new(Connections::default());
    let tasks = TaskTracker::new();
    let mut failing = false;
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((io, peer)) => {
                failing = false;
                // Each closed one frees its file before the next one is taken.
                while connections.count() >= limits.connections && connections.close_some(limits.connections)
                {
                    tokio::task::yield_now().await;
                }
                if connections.count() >= limits.connections {
                    // All of them are being answered. This one is not awaited: thousands may wait behind it.
                    drop(io);
                    continue;
                }
                let left = connections.enter();
                let id = left.id;
                let served = connection(io, peer, router.clone(), limits, stop.clone(), left);
                let task = tasks.spawn(served);
                connections.runs(id, task.abort_handle());
            }
            Err(error) => {
                if !failing {
                    failing = true;
                    failed(&error);
                }
                // Usually no file is left to open. One of ours may be one too many.
                if !connections.close_some(limits.connections) {
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
    // The listener is closed before the last answers are given.
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

async fn connection<I, P>(io: I, peer: P, router: Router, limits: Limits, stop: CancellationToken, left: Left)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    P: Clone + Send + Sync + 'static,
{
    let Left { connections, id } = &left;
    let id = *id;
    let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| {
        let mut request: Request = request.map(|body| Body::new(Timed::new(body, limits.body)));
        request.extensions_mut().insert(ConnectInfo(peer.clone()));
        let mut router = router.clone();
        connections.is_asked(id);
        let connections = Arc::clone(connections);
        async move {
            let answer = router.call(request).await;
            connections.waits(id);
            Ok::<_, Infallible>(answer.unwrap_or_else(|never| match never {}))
        }
    });
    let mut served = std::pin::pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.head)
            .serve_connection(TokioIo::new(io), service)
    );
    let life = tokio::time::sleep(limits.life);
    // A connection may end in any way.
    tokio::select! {
        _ = served.as_mut() => {}
        () = stop.cancelled() => {
            served.as_mut().graceful_shutdown();
            let _ = tokio::time::timeout(limits.life, served).await;
        }
        () = life => {
            // The current request, if there is one, is finished within the same time again.
            served.as_mut().graceful_shutdown();
            let _ = tokio::time::timeout(limits.life, served).await;
        }
    }
}

/// The connections.
#[derive(Debug, Default)]
struct Connections(Mutex<ConnectionTable>);

#[derive(Debug, Default)]
struct ConnectionTable {
    next: u64,
    served: BTreeMap<u64, Served>,
}

#[derive(Debug)]
struct Served {
    /// The time since which it waits for a request; `None` during an answer.
    waits_since: Option<Instant>,
    task: Option<AbortHandle>,
    /// It was asked to end, and has not ended yet.
    closes: bool,
}

impl Connections {
    fn table(&self) -> MutexGuard<'_, ConnectionTable> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self) -> usize {
        self.table().served.len()
    }

    fn enter(self: &Arc<Self>) -> Left {
        let mut table = self.table();
        let id = table.next;
        table.next += 1;
        table.served.insert(id, Served { waits_since: Some(Instant::now()), task: None, closes: false });
        Left { connections: Arc::clone(self), id }
    }

    fn runs(&self, id: u64, task: AbortHandle) {
        // It may have ended already.
        if let Some(served) = self.table().served.get_mut(&id) {
            served.task = Some(task);
        }
    }

    fn is_asked(&self, id: u64) {
        if let Some(served) = self.table().served.get_mut(&id) {
            served.waits_since = None;
        }
    }

    fn waits(&self, id: u64) {
        if let Some(served) = self.table().served.get_mut(&id) {
            served.waits_since = Some(Instant::now());
        }
    }

    /// Begins to close those that have waited longest: a quarter, because a flood would otherwise be let in
    /// one by one. False when none waits and none is being closed.
    fn close_some(&self, most: usize) -> bool {
        let mut table = self.table();
        if table.served.values().any(|served| served.closes) {
            return true;
        }
        let waiting = table.served.iter().filter_map(|(id, served)| Some((served.waits_since?, *id)));
        let mut waiting: Vec<(Instant, u64)> = waiting.collect();
        waiting.sort_unstable();
        waiting.truncate((most / 4).max(1));
        let mut tasks = Vec::new();
        for (_, id) in &waiting {
            if let Some(served) = table.served.get_mut(id) {
                served.closes = true;
                tasks.extend(served.task.take());
            }
        }
        drop(table);
        for task in &tasks {
            task.abort();
        }
        !waiting.is_empty()
    }
}

/// Removes a connection from the table, however its task ends.
struct Left {
    connections: Arc<Connections>,
    id: u64,
}

impl Drop for Left {
    fn drop(&mut self) {
        self.connections.table().served.remove(&self.id);
    }
}

/// A body that must arrive in time.
struct Timed {
    body: hyper::body::Incoming,
    limit: Pin<Box<Sleep>>,
}

impl Timed {
    fn new(body: hyper::body::Incoming, limit: Duration) -> Self {
        Self { body, limit: Box::pin(tokio::time::sleep(limit)) }
    }
}

impl HttpBody for Timed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, axum::Error>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(frame) => Poll::Ready(frame.map(|frame| frame.map_err(axum::Error::new))),
            Poll::Pending if self.limit.as_mut().poll(cx).is_ready() => {
                let late =
                    io::Error::new(io::ErrorKind::TimedOut, "the body of the request did not come in time");
                Poll::Ready(Some(Err(axum::Error::new(late))))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::post;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::sync::mpsc;

    use super::*;

    const LIMITS: Limits = Limits {
        connections: 8,
        head: Duration::from_secs(10),
        body: Duration::from_secs(5),
        life: Duration::from_secs(100),
    };

    /// Connections that a test makes.
    struct Given(mpsc::UnboundedReceiver<DuplexStream>);

    impl Accept for Given {
        type Io = DuplexStream;
        type Peer = ();

        async fn accept(&mut self) -> io::Result<(DuplexStream, ())> {
            match self.0.recv().await {
                Some(io) => Ok((io, ())),
                None => std::future::pending().await,
            }
        }
    }

    fn serving() -> mpsc::UnboundedSender<DuplexStream> {
        let (give, given) = mpsc::unbounded_channel();
        let router = Router::new().route("/", post(|body: Bytes| async move { body.len().to_string() }));
        tokio::spawn(serve(Given(given), router, LIMITS, CancellationToken::new(), |_| {}));
        give
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_come_in_time_is_not_waited_for() {
        let give = serving();
        for (said, waited) in [
            ("", LIMITS.head),
            ("POST / HTTP/1.1\r\nX-Half: ", LIMITS.head),
            ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc", LIMITS.body),
            // The answer comes at once, and the next request does not.
            ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", LIMITS.head),
        ] {
            let (mut client, server) = duplex(4096);
            client.write_all(said.as_bytes()).await.unwrap();
            let began = Instant::now();
            give.send(server).unwrap();
            client.read_to_end(&mut Vec::new()).await.unwrap();
            assert_eq!(began.elapsed().as_secs(), waited.as_secs(), "{said:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_is_kept_busy_ends_at_last() {
        let give = serving();
        let (mut client, server) = duplex(4096);
        let began = Instant::now();
        give.send(server).unwrap();
        let request = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n";
        while client.write_all(request).await.is_ok() && client.read(&mut [0; 4096]).await.unwrap() > 0 {
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
        let lived = began.elapsed();
        assert!(lived >= LIMITS.life && lived <= LIMITS.life + LIMITS.head, "{lived:?}");
    }
}
