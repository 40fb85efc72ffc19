//! Connections that can be cut: a listener whose connections end, without another byte, when a fault or the end of the
//! sandbox says so. An HTTP handler alone cannot do that: whatever it returns, the client sees a status line.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// A listener that hands out [`Wire`]s. All of them are cut when `stop` is cancelled.
pub(super) struct Tap {
    listener: TcpListener,
    stop: CancellationToken,
    open: Open,
}

impl Tap {
    pub(super) fn new(listener: TcpListener, stop: CancellationToken, open: Open) -> Self {
        Self { listener, stop, open }
    }
}

/// How many connections there are.
#[derive(Clone, Debug, Default)]
pub(super) struct Open(watch::Sender<usize>);

impl Open {
    /// Resolves when there is none: whoever asked is gone, and what has arrived had its effect.
    pub(super) async fn none(&self) {
        // The sender lives here, so a change can always come.
        self.0.subscribe().wait_for(|open| *open == 0).await.ok();
    }

    fn enter(&self) -> Entered {
        self.0.send_modify(|open| *open += 1);
        Entered(self.clone())
    }
}

/// One connection, as long as there is one.
struct Entered(Open);

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.0.send_modify(|open| *open -= 1);
    }
}

impl Listener for Tap {
    type Io = Wire;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Wire, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    // Small answers go out at once; without this a second small write waits for an acknowledgement.
                    stream.set_nodelay(true).ok();
                    let line = Line {
                        cut: self.stop.child_token(),
                        reset: Arc::new(AtomicBool::new(false)),
                    };
                    return (Wire::new(stream, line, self.open.enter()), peer);
                }
                // Out of file descriptors, most likely: accepting again at once would spin.
                Err(error) => {
                    tracing::debug!(%error, "the sandbox cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// What a handler knows of the connection its request came on.
#[derive(Clone, Debug)]
pub(super) struct Line {
    cut: CancellationToken,
    reset: Arc<AtomicBool>,
}

impl Line {
    /// Ends the connection. Nothing more is written to it.
    pub(super) fn cut(&self) {
        self.cut.cancel();
    }

    /// Ends the connection with a TCP reset where the system allows it.
    pub(super) fn reset(&self) {
        self.reset.store(true, Ordering::Relaxed);
        self.cut.cancel();
    }

    /// Resolves when the connection was cut.
    pub(super) async fn gone(&self) {
        self.cut.cancelled().await;
    }
}

impl Connected<IncomingStream<'_, Tap>> for Line {
    fn connect_info(stream: IncomingStream<'_, Tap>) -> Self {
        stream.io().line.clone()
    }
}

/// A connection that ends when its [`Line`] is cut.
pub(super) struct Wire {
    stream: TcpStream,
    line: Line,
    /// Wakes the task of the connection: it may be waiting for a request that never comes.
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    _entered: Entered,
}

impl Wire {
    fn new(stream: TcpStream, line: Line, entered: Entered) -> Self {
        let cut = Box::pin(line.cut.clone().cancelled_owned());
        Self {
            stream,
            line,
            cut,
            _entered: entered,
        }
    }

    fn is_cut(&mut self, cx: &mut Context<'_>) -> Option<io::Error> {
        if self.cut.as_mut().poll(cx).is_pending() {
            return None;
        }
        if self.line.reset.load(Ordering::Relaxed) {
            // Closing with a zero linger time is a reset instead of an orderly end.
            self.stream.set_zero_linger().ok();
        }
        Some(io::ErrorKind::ConnectionReset.into())
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.is_cut(cx) {
            Some(error) => Poll::Ready(Err(error)),
            None => Pin::new(&mut self.stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.is_cut(cx) {
            Some(error) => Poll::Ready(Err(error)),
            None => Pin::new(&mut self.stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
