//! How requests in flight on a replaced color are ended: the policy of each kind of stream.

use std::time::Duration;

/// A kind of request in flight, by what is still moving.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum StreamKind {
    /// A tunnel of WebSocket frames.
    WebSocket,
    /// A response of server-sent events.
    Sse,
    /// A response of gRPC messages over HTTP/2.
    Grpc,
    /// Any other response that is being relayed.
    Download,
    /// A request body that is being sent, before or beside its response.
    Upload,
}

/// How a stream was ended.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum StreamEnd {
    /// With a Close frame.
    Closed,
    /// Between two events or messages, with the proper end of a response.
    Ended,
    /// In the middle: the client sees that the connection or stream has broken.
    Cut,
}

/// When and how the streams of one kind are ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct StreamPolicy {
    /// From the flip to the first ending.
    pub patience: Duration,
    /// From the first ending to the last. They are evenly distributed.
    pub spread: Duration,
    /// The status code of the Close frame. Only for [`StreamKind::WebSocket`].
    pub close: u16,
    /// When clients reconnect: the `retry` field before the end. Only for [`StreamKind::Sse`].
    pub retry: Option<Duration>,
}

/// The policy of each kind. Streams of a kind without one are not ended.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct StreamPolicies([Option<StreamPolicy>; StreamKind::ALL.len()]);

// === impl StreamKind ===

impl StreamKind {
    /// All kinds.
    pub const ALL: [Self; 5] =
        [Self::WebSocket, Self::Sse, Self::Grpc, Self::Download, Self::Upload];

    /// The name in the configuration, the API and the metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::Sse => "sse",
            Self::Grpc => "grpc",
            Self::Download => "download",
            Self::Upload => "upload",
        }
    }
}

// === impl StreamEnd ===

impl StreamEnd {
    /// All ways.
    pub const ALL: [Self; 3] = [Self::Closed, Self::Ended, Self::Cut];

    /// The name in the API and the metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Ended => "ended",
            Self::Cut => "cut",
        }
    }
}

// === impl StreamPolicy ===

impl StreamPolicy {
    /// Service Restart, after which clients reconnect.
    const CLOSE: u16 = 1012;

    /// A policy with this patience, and the defaults for everything else.
    #[must_use]
    pub fn after(patience: Duration) -> Self {
        Self { patience, spread: Duration::from_secs(30), close: Self::CLOSE, retry: None }
    }

    /// The policy of a kind without one, if an operator ends the streams by hand. Most responses and request bodies
    /// complete within their patience.
    #[must_use]
    pub fn by_hand(kind: StreamKind) -> Self {
        match kind {
            StreamKind::WebSocket | StreamKind::Sse | StreamKind::Grpc => {
                Self::after(Duration::ZERO)
            }
            StreamKind::Download | StreamKind::Upload => Self::after(Duration::from_secs(30)),
        }
    }
}

// === impl StreamPolicies ===

impl StreamPolicies {
    /// The policy of a kind.
    #[must_use]
    pub fn get(&self, kind: StreamKind) -> Option<&StreamPolicy> {
        self.0[kind as usize].as_ref()
    }

    /// Sets the policy of a kind.
    pub fn set(&mut self, kind: StreamKind, policy: Option<StreamPolicy>) {
        self.0[kind as usize] = policy;
    }

    /// Whether no kind has a policy.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }

    /// What an operator starts by hand: the policy of each kind without its patience, and
    /// [`StreamPolicy::by_hand`] for a kind without one.
    #[must_use]
    pub fn by_hand(&self) -> Self {
        let of = |kind| match self.get(kind) {
            Some(policy) => StreamPolicy { patience: Duration::ZERO, ..*policy },
            None => StreamPolicy::by_hand(kind),
        };
        Self(StreamKind::ALL.map(|kind| Some(of(kind))))
    }

    /// The time from the flip to the last ending.
    #[must_use]
    pub fn longest(&self) -> Duration {
        let all = self.0.iter().flatten().map(|it| it.patience.saturating_add(it.spread));
        all.max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_found_where_it_was_set() {
        for kind in StreamKind::ALL {
            let mut policies = StreamPolicies::default();
            assert!(policies.is_empty());
            let policy = StreamPolicy::after(Duration::from_secs(kind as u64));
            policies.set(kind, Some(policy));
            for other in StreamKind::ALL {
                assert_eq!(policies.get(other), (other == kind).then_some(&policy));
            }
            assert_eq!(policies.longest(), Duration::from_secs(30 + kind as u64));
        }
    }

    #[test]
    fn by_hand_there_is_no_patience_and_no_kind_without_a_policy() {
        let mut policies = StreamPolicies::default();
        let own = StreamPolicy { close: 1001, ..StreamPolicy::after(Duration::from_secs(600)) };
        policies.set(StreamKind::WebSocket, Some(own));
        let by_hand = policies.by_hand();
        let websocket = StreamPolicy { patience: Duration::ZERO, ..own };
        assert_eq!(by_hand.get(StreamKind::WebSocket), Some(&websocket));
        for kind in [StreamKind::Sse, StreamKind::Grpc, StreamKind::Download, StreamKind::Upload] {
            assert_eq!(by_hand.get(kind), Some(&StreamPolicy::by_hand(kind)));
        }
    }
}
