//! Server-sent events (HTML standard).

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::response::sse::{Event as Sent, KeepAlive, Sse};
use futures_util::{Stream, StreamExt, stream};
use tokio::sync::broadcast::{Receiver, error::RecvError};

use super::connections::WaitingCall;
use crate::control::{Event, EventKind, Subscription};

/// The time between two comments that keep the connection alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The stream of events: missed ones first, then new ones. It holds `waiting` until it ends. A client that reads
/// too slowly gets an event with the number of events that it missed.
pub(super) fn stream(
    subscription: Subscription,
    waiting: Option<WaitingCall>,
) -> Sse<impl Stream<Item = Result<Sent, Infallible>> + Send + 'static> {
    let Subscription { missed, live } = subscription;
    let missed = stream::iter(missed).map(|it| Ok(sent(&it)));
    let live = stream::unfold((live, waiting), |(live, waiting)| async {
        let (event, live) = next(live).await?;
        Some((event, (live, waiting)))
    });
    Sse::new(missed.chain(live)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}

async fn next(
    mut live: Receiver<Arc<Event>>,
) -> Option<(Result<Sent, Infallible>, Receiver<Arc<Event>>)> {
    let sent = match live.recv().await {
        Ok(event) => sent(&event),
        Err(RecvError::Lagged(events)) => {
            let kind = EventKind::Missed { events };
            // Without a number: the client resumes from the last event that it has seen.
            let data = serde_json::to_string(&kind).expect("texts and numbers only");
            Sent::default().event("missed").data(data)
        }
        Err(RecvError::Closed) => return None,
    };
    Some((Ok(sent), live))
}

fn sent(event: &Event) -> Sent {
    let data = serde_json::to_string(event).expect("texts and numbers only");
    Sent::default().id(event.seq.to_string()).event(event.kind.name()).data(data)
}
