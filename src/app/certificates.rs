//! Watches the certificates of listeners for changes and expiry.

use std::{
    panic::resume_unwind,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::time::MissedTickBehavior;
use tracing::{info, warn};

use crate::{
    downstream::ListenerContext,
    metrics::Metrics,
    tls::{self, FileError},
};

/// The time between two checks of the files.
const INTERVAL: Duration = Duration::from_secs(2);

/// Checks regularly whether certificate files have changed. Runs until it is dropped.
pub(super) async fn watch(listener_contexts: Vec<Arc<ListenerContext>>, metrics: Metrics) {
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let (listener_contexts, metrics) = (listener_contexts.clone(), metrics.clone());
        // A disk may be slow, and calls of the admin API must not wait for it.
        let looked = tokio::task::spawn_blocking(move || {
            let renewed =
                listener_contexts.iter().filter(|it| renew(it, |tls| tls.refresh().map(drop)));
            if renewed.count() > 0 {
                log_expiry(&listener_contexts, &metrics);
            }
        });
        // The panic is passed on: the supervisor logs it, counts it and restarts this task.
        if let Err(error) = looked.await
            && let Ok(panic) = error.try_into_panic()
        {
            resume_unwind(panic);
        }
    }
}

/// Logs certificates that have expired or will soon.
pub(super) fn log_expiry(listener_contexts: &[Arc<ListenerContext>], metrics: &Metrics) {
    const SOON: i64 = 14 * 24 * 3600;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let mut first = None;
    for listener_context in listener_contexts {
        let listener = listener_context.listener.address;
        for (file, expires) in listener_context.tls.iter().flat_map(tls::ListenerTls::expiries) {
            let (file, days) = (file.display(), (expires - now) / (24 * 3600));
            match expires - now {
                ..=0 => warn!(%listener, %file, "the certificate has expired"),
                1..=SOON => warn!(%listener, %file, days, "the certificate expires soon"),
                _ => {}
            }
            first = Some(first.map_or(expires, |it: i64| it.min(expires)));
        }
    }
    metrics.certificate_expiry.set(first.unwrap_or_default());
}

/// Updates the certificates of a listener, and returns whether they have changed. If the files cannot be used, the
/// current ones stay.
pub(super) fn renew(
    listener_context: &ListenerContext,
    how: impl FnOnce(&tls::ListenerTls) -> Result<(), FileError>,
) -> bool {
    let Some(server) = &listener_context.tls else { return false };
    let before = server.current();
    let listener = listener_context.listener.address;
    match how(server) {
        Ok(()) if Arc::ptr_eq(&before, &server.current()) => return false,
        Ok(()) => info!(%listener, "certificates reloaded"),
        Err(error) => warn!(%listener, %error, "cannot reload certificates; the current ones stay"),
    }
    !Arc::ptr_eq(&before, &server.current())
}
