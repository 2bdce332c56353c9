//! What stands between the relay and the emulated cloud: a way that can be cut, taken away, and made to talk without end.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// It reaches the cloud.
    Open,
    /// It is refused.
    Gone,
    /// Its request is answered with a body that never ends.
    Endless,
    /// Its request is answered with a body that is announced as huge.
    Huge,
}

/// The certificate that is shown, where TLS is spoken.
type Shown = Arc<Mutex<Option<Arc<rustls::ServerConfig>>>>;

#[derive(Debug, Default)]
struct Figures {
    /// The largest body without end that somebody took, in bytes.
    endless: AtomicU64,
    /// Answers of the gate's own.
    own_answers: AtomicUsize,
    /// TLS handshakes that the client broke off.
    refused: AtomicUsize,
}

/// A listener on a port of its own.
#[derive(Debug)]
pub(super) struct Gate {
    addr: SocketAddr,
    cloud: SocketAddr,
    shown: Shown,
    figures: Arc<Figures>,
    task: Option<JoinHandle<()>>,
    /// Keeps the port while nobody listens on it.
    kept: Option<TcpSocket>,
}

impl Drop for Gate {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

impl Gate {
    /// Hands connections on to `cloud`.
    pub(super) fn start(cloud: SocketAddr) -> Self {
        Self::launch(cloud, None)
    }

    /// Speaks TLS, and hands on what is inside.
    pub(super) fn with_tls(cloud: SocketAddr, tls: rustls::ServerConfig) -> Self {
        Self::launch(cloud, Some(Arc::new(tls)))
    }

    fn launch(cloud: SocketAddr, tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let listener = bound((std::net::Ipv4Addr::LOCALHOST, 0).into()).listen(64).unwrap();
        let addr = listener.local_addr().unwrap();
        let (shown, figures) = (Arc::new(Mutex::new(tls)), Arc::new(Figures::default()));
        let task = tokio::spawn(accept(listener, cloud, Way::Open, shown.clone(), figures.clone()));
        Self { addr, cloud, shown, figures, task: Some(task), kept: None }
    }

    pub(super) fn http(&self) -> String {
        format!("http://{}", self.addr)
    }

    pub(super) fn https(&self) -> String {
        format!("https://{}", self.addr)
    }

    /// Cuts every connection, in whatever it is in the middle of; new ones go this way.
    pub(super) async fn turn(&mut self, way: Way) {
        if let Some(task) = self.task.take() {
            task.abort();
            // Its end is the end of its listener and its connections.
            let _ = task.await;
        }
        self.kept = None;
        let socket = bound(self.addr);
        if way == Way::Gone {
            // A port that is bound and not listened on refuses, and nobody else gets it.
            self.kept = Some(socket);
            return;
        }
        let listener = socket.listen(64).unwrap();
        let (shown, figures) = (self.shown.clone(), self.figures.clone());
        self.task = Some(tokio::spawn(accept(listener, self.cloud, way, shown, figures)));
    }

    /// Shows this certificate from now on.
    pub(super) fn show(&self, tls: rustls::ServerConfig) {
        *self.shown.lock().unwrap() = Some(Arc::new(tls));
    }

    /// How many TLS handshakes the other side broke off.
    pub(super) fn refused(&self) -> usize {
        self.figures.refused.load(Ordering::Relaxed)
    }

    /// How many answers of the gate's own were begun.
    pub(super) fn own_answers(&self) -> usize {
        self.figures.own_answers.load(Ordering::Relaxed)
    }

    /// How many bytes of one body without end were taken, at the most.
    pub(super) fn endless_bytes(&self) -> u64 {
        self.figures.endless.load(Ordering::Relaxed)
    }
}

/// A socket that has the port to itself, whether it listens or not.
fn bound(addr: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(addr).unwrap();
    socket
}

async fn accept(listener: TcpListener, cloud: SocketAddr, way: Way, shown: Shown, figures: Arc<Figures>) {
    // Connections end with their task, and the tasks with this set.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let (tls, figures) = (shown.lock().unwrap().clone(), figures.clone());
                connections.spawn(async move {
                    match tls {
                        None => serve(stream, cloud, way, &figures).await,
                        Some(tls) => match TlsAcceptor::from(tls).accept(stream).await {
                            Ok(stream) => serve(stream, cloud, way, &figures).await,
                            Err(_) => _ = figures.refused.fetch_add(1, Ordering::Relaxed),
                        },
                    }
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    cloud: SocketAddr,
    way: Way,
    figures: &Figures,
) {
    if way == Way::Open {
        if let Ok(mut inner) = TcpStream::connect(cloud).await {
            // How it ends is the other side's business.
            let _ = copy_bidirectional(&mut stream, &mut inner).await;
        }
        return;
    }
    let mut request = [0; 4096];
    if !stream.read(&mut request).await.is_ok_and(|length| length > 0) {
        return;
    }
    figures.own_answers.fetch_add(1, Ordering::Relaxed);
    let length = match way {
        Way::Huge => "Content-Length: 1000000000000",
        _ => "Transfer-Encoding: chunked",
    };
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{length}\r\n\r\n");
    let text = "x".repeat(0x10000);
    let chunk = if way == Way::Huge { text } else { format!("10000\r\n{text}\r\n") };
    if stream.write_all(head.as_bytes()).await.is_err() {
        return;
    }
    let mut taken = 0;
    while stream.write_all(chunk.as_bytes()).await.is_ok() {
        taken += 0x10000;
        figures.endless.fetch_max(taken, Ordering::Relaxed);
    }
}
