//! lapin's connection: an open one, with TLS if configured, whose first bytes are kept.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_rs::traits::Reactor;
use async_rs::util::RuntimeParts;
use async_rs::{Runtime, Tokio};
use futures_util::io::{AsyncRead, AsyncWrite};
use futures_util::{Stream, TryFutureExt as _};
use tokio::net::TcpStream;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

use super::greeting::Greeting;
use super::tls::Socket;

/// lapin's runtime: this process's tokio, with connections of our own type.
pub(super) fn runtime() -> Runtime<RuntimeParts<Tokio, OwnStreams>> {
    let tokio = Tokio::current();
    Runtime::new(RuntimeParts::new(tokio.clone(), OwnStreams(tokio)))
}

/// Tokio's reactor, whose connections are [`BrokerStream`]s.
#[derive(Clone, Debug)]
pub(super) struct OwnStreams(Tokio);

impl Reactor for OwnStreams {
    type TcpStream = BrokerStream;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: Read + Write + AsFd + AsRawFd + Send + 'static>(
        &self,
        socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        self.0.register(socket)
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.0.sleep(duration)
    }

    fn interval(&self, duration: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(duration)
    }

    fn tcp_connect_addr(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        TcpStream::connect(address)
            .map_ok(|connected| BrokerStream::new(Box::new(connected), Greeting::default()))
    }
}

/// A connection to the broker.
pub(super) struct BrokerStream {
    socket: Compat<Box<dyn Socket>>,
    heard: Option<Greeting>,
}

impl BrokerStream {
    /// `heard` takes the first bytes that are read.
    pub(super) fn new(socket: Box<dyn Socket>, heard: Greeting) -> Self {
        Self { socket: socket.compat(), heard: Some(heard) }
    }

    fn hear(&mut self, bytes: &[u8]) {
        if self.heard.as_ref().is_some_and(|heard| !heard.take(bytes)) {
            self.heard = None;
        }
    }
}

impl AsyncRead for BrokerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let read = std::task::ready!(Pin::new(&mut self.socket).poll_read(cx, buffer))?;
        self.hear(&buffer[..read]);
        Poll::Ready(Ok(read))
    }

    fn poll_read_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        let read = std::task::ready!(Pin::new(&mut self.socket).poll_read_vectored(cx, buffers))?;
        let mut left = read;
        for buffer in buffers {
            let part = left.min(buffer.len());
            self.hear(&buffer[..part]);
            left -= part;
        }
        Poll::Ready(Ok(read))
    }
}

impl AsyncWrite for BrokerStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buffer)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, buffers)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_close(cx)
    }
}
