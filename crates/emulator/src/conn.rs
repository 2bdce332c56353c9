//! Connections that can be cut: by a fault in the middle of an exchange, and all at once at the emulator's
//! end.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use vodrelay_serve::Accept;

/// How a connection ends before its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// With a FIN, as a proxy that gives up does.
    Close,
    /// With a RST, as a host that lost its state does.
    Reset,
}

/// The other end of a connection.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) addr: SocketAddr,
    /// 0 while the connection may be used, else the [`Cut`].
    cut: Arc<AtomicU8>,
}

impl Peer {
    /// Ends the connection at the server's next write. Nothing unwritten is sent.
    pub(super) fn cut(&self, how: Cut) {
        let mark = match how {
            Cut::Close => 1,
            Cut::Reset => 2,
        };
        self.cut.store(mark, Ordering::Release);
    }
}

/// Accepts connections until the emulator ends.
pub(super) struct Listener {
    pub(super) tcp: TcpListener,
    pub(super) gone: CancellationToken,
}

impl Accept for Listener {
    type Io = Conn;
    type Peer = Peer;

    async fn accept(&mut self) -> io::Result<(Conn, Peer)> {
        let (stream, addr) = self.tcp.accept().await?;
        // Answers are small and expected.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection keeps its small writes back");
        }
        let cut = Arc::new(AtomicU8::new(0));
        let gone = Box::pin(self.gone.clone().cancelled_owned());
        Ok((Conn { stream, cut: cut.clone(), gone }, Peer { addr, cut }))
    }
}

/// A connection that can be cut.
pub(super) struct Conn {
    stream: TcpStream,
    cut: Arc<AtomicU8>,
    gone: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Conn {
    fn may_write(&self) -> io::Result<()> {
        match self.cut.load(Ordering::Acquire) {
            0 => Ok(()),
            1 => Err(io::ErrorKind::BrokenPipe.into()),
            _ => {
                self.stream.set_zero_linger()?;
                Err(io::ErrorKind::ConnectionReset.into())
            }
        }
    }
}

impl AsyncRead for Conn {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.gone.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Conn {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.may_write()?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.may_write()?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
