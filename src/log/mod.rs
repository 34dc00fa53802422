//! The queue of log lines, and the thread that writes them to standard error.
//!
//! A thread that logs never waits for the reader of standard error. It formats the line in memory, puts
//! it into a queue that is bounded in bytes, and goes on; the thread `log` writes. If the queue is full,
//! the line is dropped and counted. When lines can be written again, one line reports how many are
//! missing, at the place where they are missing.
//!
//! This is not `tracing-appender`: its queue is bounded in lines, not in bytes, it discards I/O errors,
//! and it cannot report in the log that lines are missing.
//!
//! The room knows nothing of levels and targets: `tracing` filters and formats each event first.

mod line;
mod queue;
mod writer;

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    io,
    os::fd::AsFd,
    panic::PanicHookInfo,
    sync::Arc,
    time::Duration,
};

use prometheus::IntCounter;
use tracing::error;
use tracing_subscriber::fmt::MakeWriter;

pub use self::line::LogFormat;
use self::queue::QueueShared;

/// The queue in front of standard error. Clones share it.
#[derive(Clone, Debug)]
pub struct LogQueue {
    shared: Arc<QueueShared>,
    format: LogFormat,
}

/// The limit of the queue: the text of all lines that are not written yet, and what each line costs
/// besides its text.
const BYTES_MAX: usize = 1 << 20;

// === impl LogQueue ===

impl LogQueue {
    /// Starts the thread `log`, which writes to standard error until the process ends.
    ///
    /// # Errors
    ///
    /// If the thread cannot be started.
    pub fn start(format: LogFormat) -> io::Result<Self> {
        Self::start_on(io::stderr(), format, BYTES_MAX)
    }

    fn start_on<O>(output: O, format: LogFormat, bytes_max: usize) -> io::Result<Self>
    where
        O: AsFd + Send + 'static,
    {
        let shared = Arc::new(QueueShared::new(bytes_max));
        let writing = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("log".to_owned());
        // Not joined: it may be blocked in a write while standard error is not read.
        thread.spawn(move || writer::run(&writing, &output, format))?;
        Ok(Self { shared, format })
    }

    /// Counts dropped lines with `counter` from now on, and adds those that were dropped before.
    pub fn count_with(&self, counter: &IntCounter) {
        self.shared.count_with(counter);
    }

    /// Puts text into the queue as it is, for output that is not an event.
    pub fn put(&self, text: &str) {
        self.shared.push(text.as_bytes());
    }

    /// Blocks until every line is written or was dropped because of an error. Returns `false` if that
    /// takes longer than `timeout`.
    #[must_use]
    pub fn flush(&self, timeout: Duration) -> bool {
        self.shared.flush(timeout)
    }

    /// Logs panics as events. The default hook writes to standard error directly, which would block the
    /// thread that panics for as long as standard error is not read.
    pub fn log_panics() {
        std::panic::set_hook(Box::new(log_panic));
    }
}

/// Takes one event with each write: `tracing_subscriber::fmt` formats the whole line first.
impl io::Write for &LogQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.shared.push(&line::fit(self.format, line));
        Ok(line.len())
    }

    /// Does nothing: a thread that logs does not wait.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogQueue {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    let location = panic.location().map(ToString::to_string);
    let payload = panic.payload_as_str().unwrap_or("not a string");
    // Captured only if RUST_BACKTRACE asks for it.
    let backtrace = Backtrace::capture();
    let backtrace =
        (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    error!(thread, location, payload, backtrace, "a thread panicked");
}

#[cfg(test)]
mod tests;
