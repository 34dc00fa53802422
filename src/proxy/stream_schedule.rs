//! When the stream of a request ends after a flip.
//!
//! A request is not registered anywhere for this: it compares a version of its claim when it is polled, and the worker
//! wakes all requests once when streams have to end. Then the request arms a timeout, which the worker's table checks
//! like all others.

use std::{sync::Arc, time::Duration};

use super::{peer_cache::PeerCache, request_claim::RequestClaim};
use crate::{
    downstream::{ClientConnection, Timeout},
    model::{StreamEnd, StreamKind, StreamPolicy},
    switch::StreamEnding,
};

/// When the stream of one request ends.
#[derive(Debug, Default)]
pub(super) struct StreamSchedule {
    /// The version of the signal that was taken up; 0 for none.
    seen: u32,
    /// The ending in progress, and as what the stream was scheduled.
    ending: Option<(Arc<StreamEnding>, StreamKind)>,
}

/// How long an ending waits for the end of an event, message or frame, and then for the client to take note. Such a
/// stream is cut afterwards.
pub(super) const END_WITHIN: Duration = Duration::from_secs(5);

// === impl StreamSchedule ===

impl StreamSchedule {
    /// Whether an ending of the streams on the side of `claim` was started or stopped since the last update.
    #[inline]
    pub(super) fn has_news(&self, claim: &RequestClaim) -> bool {
        claim.ending_version() != self.seen
    }

    /// Whether the stream is scheduled.
    pub(super) fn is_set(&self) -> bool {
        self.ending.is_some()
    }

    /// As what it was scheduled.
    pub(super) fn kind(&self) -> Option<StreamKind> {
        self.ending.as_ref().map(|(_, kind)| *kind)
    }

    /// The policy that it ends by.
    pub(super) fn policy(&self) -> Option<&StreamPolicy> {
        let (ending, kind) = self.ending.as_ref()?;
        ending.policies().get(*kind)
    }

    /// Takes up the news: arms [`Timeout::StreamEnd`] for a stream that has to end, and disarms it for one that has not.
    /// `kind_of` says what the request is now, given which kinds have a policy.
    #[cold]
    pub(super) fn update(
        &mut self,
        claim: &RequestClaim,
        connection: &ClientConnection<PeerCache>,
        kind_of: impl FnOnce(&StreamEnding) -> StreamKind,
    ) {
        connection.disarm(Timeout::StreamEnd);
        let (version, ending) = claim.ending();
        self.seen = version;
        self.ending = None;
        let Some(ending) = ending else { return };
        let kind = kind_of(&ending);
        if let Some(at) = ending.next_end(kind) {
            let left = at.saturating_duration_since(connection.now());
            connection.arm_for(Timeout::StreamEnd, left);
            self.ending = Some((ending, kind));
        }
    }

    /// Has the news taken up again: the request has become another kind of stream.
    pub(super) fn reset(&mut self) {
        self.seen = 0;
    }

    /// Counts the stream as ended.
    #[cold]
    pub(super) fn count(&mut self, claim: &RequestClaim, how: StreamEnd) {
        if let Some((ending, kind)) = self.ending.take() {
            ending.count(kind, how);
            claim.pool().metrics().stream_ended(kind, how);
        }
    }
}
