//! The signals that end the process or reload its configuration, from its first instruction on.
//!
//! If a signal arrives before its handler is registered, the kernel takes the default action, which ends
//! the process. Process 1 of a container has no default action, so it loses the signal. Therefore the
//! handlers are registered first, and a signal is remembered until the process can act on it.

use std::io;

use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{Signal, SignalKind, signal},
};

/// Signals with a handler. A signal is kept until it is received; several of one kind before that count as one.
#[derive(Debug)]
pub struct Signals {
    pub(super) terminate: Signal,
    pub(super) interrupt: Signal,
    pub(super) hang_up: Signal,
}

/// The signals during the start of the process.
#[derive(Debug)]
pub struct StartSignals {
    /// Delivers the signals until the runtime of [`App`](super::App) does. A handler and a [`Signal`]
    /// belong to the process, not to a runtime.
    runtime: Runtime,
    signals: Signals,
}

// === impl StartSignals ===

impl StartSignals {
    /// Registers the handlers of SIGTERM, SIGINT and SIGHUP.
    ///
    /// # Errors
    ///
    /// If the process has no descriptors or threads left.
    pub fn register() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().thread_name("start").build()?;
        let entered = runtime.enter();
        let signals = Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        };
        drop(entered);
        Ok(Self { runtime, signals })
    }

    /// Runs `prepare`, which may block, on a separate thread. Returns its result and the signals, or `None` as soon as
    /// SIGTERM or SIGINT arrives; `prepare` must leave nothing behind then that the exit of the process does not clean
    /// up.
    pub fn unless_stopped<T: Send + 'static>(
        self,
        prepare: impl FnOnce() -> T + Send + 'static,
    ) -> Option<(T, Signals)> {
        let Self { runtime, mut signals } = self;
        let prepared = runtime.block_on(async {
            let prepared = tokio::task::spawn_blocking(prepare);
            tokio::select! {
                biased;
                _ = signals.terminate.recv() => None,
                _ = signals.interrupt.recv() => None,
                prepared = prepared => Some(prepared),
            }
        });
        // `prepare` may still be blocked; do not wait for it.
        runtime.shutdown_background();
        match prepared? {
            Ok(prepared) => Some((prepared, signals)),
            // It is never canceled, so it has panicked.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}
