//! Closes connections to callers that do not read.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// A stream with a write timeout: a caller that never reads would keep its connection for ever.
pub(super) struct WriteTimeoutStream<S> {
    stream: S,
    timeout: Duration,
    /// Runs while bytes wait for the caller.
    blocked: Option<Pin<Box<Sleep>>>,
}

impl<S> WriteTimeoutStream<S> {
    pub(super) fn new(stream: S, timeout: Duration) -> Self {
        Self { stream, timeout, blocked: None }
    }

    fn watch<T>(&mut self, context: &mut Context<'_>, written: Poll<T>) -> Poll<io::Result<T>> {
        match written {
            Poll::Ready(it) => {
                self.blocked = None;
                Poll::Ready(Ok(it))
            }
            Poll::Pending => {
                let timeout = self.timeout;
                let blocked = self.blocked.get_or_insert_with(|| Box::pin(sleep(timeout)));
                ready!(blocked.as_mut().poll(context));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteTimeoutStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteTimeoutStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        ready!(self.watch(context, written))?.into()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        ready!(self.watch(context, flushed))?.into()
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_nothing_ends_the_writing() {
        let (ours, _theirs) = duplex(16);
        let mut stream = WriteTimeoutStream::new(ours, Duration::from_secs(10));
        let error = stream.write_all(&[0; 64]).await.expect_err("the caller does not read");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_its_time_is_waited_for() {
        let (ours, mut theirs) = duplex(16);
        let mut stream = WriteTimeoutStream::new(ours, Duration::from_secs(10));
        let reading = tokio::spawn(async move {
            let mut all = [0; 64];
            for part in all.chunks_mut(8) {
                tokio::time::advance(Duration::from_secs(9)).await;
                theirs.read_exact(part).await.expect("more comes");
            }
        });
        stream.write_all(&[0; 64]).await.expect("it is read, though slowly");
        reading.await.expect("no panic");
    }
}
