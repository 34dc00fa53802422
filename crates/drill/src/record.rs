//! What was seen: requests, flips, what was told of drains, and who was killed. Written down while it
//! happens, judged afterwards.
//!
//! All times are of one clock that every process of the machine shares, in nanoseconds
//! ([`crate::sample::now_ns`]).

use std::{collections::BTreeMap, fmt};

use crate::color::Color;

/// What a request is there to try.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Kind {
    /// A small answer at once.
    Short,
    /// Two short ones, of two services, one after the other.
    Pair,
    /// A body that comes over a time.
    Download,
    /// A body that goes over a time.
    Upload,
    /// A WebSocket with a clock: a message and its echo for each beat.
    Ws,
    /// Server-sent events over a time.
    Sse,
    /// A short one of the public that wishes for a color, which must not be granted.
    RefusedPreview,
    /// A short one of a tester that wishes for a color, which must be granted.
    Preview,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Outcome {
    /// As it should.
    Complete,
    /// The drill could not send it: too many were under way, or it had no ports or files left.
    NotSent,
    /// No connection.
    NotConnected,
    /// The connection ended before there was an answer.
    NoResponse,
    /// An answer that says no, by its code.
    ErrorStatus(u16),
    /// An answer of somebody else than a sample application.
    UnknownResponder,
    /// Not over in time.
    TimedOut,
    /// It ended before its end.
    Truncated,
    /// Other bytes than were sent.
    Corrupted,
    /// The trailers were lost.
    TrailersLost,
    /// It went on with another color than it began with.
    ColorChanged,
    /// It went on with another endpoint of its color than it began with.
    EndpointChanged,
    /// Another color than the one that was to be granted.
    WrongColor,
}

/// One request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    /// Its number, by which the upstream knows it too.
    pub id: u64,
    /// Which service was asked.
    pub service: u8,
    /// What it tries.
    pub kind: Kind,
    /// How it ended.
    pub outcome: Outcome,
    /// Who answered.
    pub color: Option<Color>,
    /// Which process of the upstream answered; 0 if that is not known.
    pub instance: u16,
    /// When it should have begun.
    pub due: u64,
    /// Before its first byte was sent, and before its connection was opened if that was new.
    pub began: u64,
    /// When it reached the upstream, by whose word; 0 if that is not known.
    pub received: u64,
    /// When the head of its answer was there; 0 if none was.
    pub head: u64,
    /// When it was over.
    pub ended: u64,
    /// A time at which the upstream was certainly not done with it; 0 if none is known.
    pub active_at: u64,
}

/// What is known of a flip's success.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum FlipOutcome {
    /// It was acknowledged.
    Acknowledged,
    /// It was refused, or never sent: nothing has changed.
    Refused,
    /// Nobody knows.
    Unknown,
}

/// One flip.
#[derive(Clone, Debug)]
pub(crate) struct Flip {
    /// Each service with the color that it was to have.
    pub changes: Vec<(u8, Color)>,
    /// Before the call was sent.
    pub called: u64,
    /// When its acknowledgement was there.
    pub acknowledged: u64,
    /// How it ended.
    pub outcome: FlipOutcome,
    /// The generation that has it, if the proxy numbers them.
    pub generation: Option<u64>,
    /// What went wrong.
    pub error: Option<String>,
    /// Whether `acknowledged` is when it was found out afterwards, since the call's own answer was lost.
    pub lost_response: bool,
}

/// That a color was told to be drained.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct DrainedEvent {
    /// The service.
    pub service: u8,
    /// The color.
    pub color: Color,
    /// The generation that had replaced it.
    pub generation: u64,
    /// When it was heard.
    pub received: u64,
}

/// A request without a number of the drill that reached an application of the drill.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct UnnumberedRequest {
    /// Which application.
    pub instance: u16,
    /// When, by its word.
    pub at: u64,
    /// Whether it asked for traffic, as requests of the drill do and health checks do not.
    pub is_traffic: bool,
}

/// How well the drill itself could hear.
#[derive(Clone, Debug, Default)]
pub(crate) struct EventGaps {
    /// From when until when it did not hear what the proxy tells, or only a part of it.
    pub missed: Vec<(u64, u64)>,
    /// When it was on time again after it had not been, and by how much it was late.
    pub delays: Vec<(u64, u64)>,
}

/// Something that was broken on purpose.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kill {
    /// What.
    pub process: KilledProcess,
    /// Before it was done.
    pub from: u64,
    /// Until when its consequences may be met.
    pub until: u64,
}

/// Who was killed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum KilledProcess {
    /// The proxy: from the kill until it serves again.
    Proxy,
    /// A process of the upstream: from the kill until its connections are gone.
    Upstream {
        /// The service.
        service: u8,
        /// The color.
        color: Color,
        /// Which process.
        instance: u16,
        /// Whether its color had no other endpoint left, so that nobody else could be asked.
        was_last: bool,
    },
}

/// How many are inside of a color at a moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InFlightSample {
    /// When.
    pub at: u64,
    /// The service.
    pub service: u8,
    /// The color.
    pub color: Color,
    /// How many.
    pub count: u64,
    /// Whether the color was not the active one.
    pub is_inactive: bool,
}

/// Something that went wrong beside requests and flips.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    /// When what went wrong was begun.
    pub from: u64,
    /// When it had gone wrong.
    pub until: u64,
    /// What.
    pub text: String,
}

/// Everything that was seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    /// The names of the services; others speak of them by their place.
    pub services: Vec<String>,
    /// The active color of each service at the beginning.
    pub initial: Vec<Color>,
    /// From when on things count.
    pub began: u64,
    /// When the last request was begun.
    pub ended: u64,
    /// All requests.
    pub requests: Vec<Request>,
    /// All flips, in order. They do not overlap.
    pub flips: Vec<Flip>,
    /// What was told of drains, in order. `None` if the proxy does not tell.
    pub drained: Option<Vec<DrainedEvent>>,
    /// How well this was heard.
    pub event_gaps: EventGaps,
    /// What was broken on purpose.
    pub kills: Vec<Kill>,
    /// Who was inside, looked at now and then.
    pub in_flight: Vec<InFlightSample>,
    /// The applications that the drill has started: where each belongs.
    pub instances: BTreeMap<u16, (u8, Color)>,
    /// Every number that reached one of these, as often as it did. `None` if nobody counted.
    pub arrived: Option<Vec<u64>>,
    /// Requests without a number that reached one of these.
    pub unnumbered: Vec<UnnumberedRequest>,
    /// Whether only the drill sends requests to these applications: their health checks are no requests.
    pub is_exclusive: bool,
    /// Why it ended before its time, if it did.
    pub cut_short: Option<String>,
    /// What went wrong beside requests and flips: processes that did not start, calls that failed.
    pub failures: Vec<Failure>,
}

// === impl Request ===

impl Request {
    /// By when it was decided where it goes: the upstream had it, or at the latest there was an answer.
    pub(crate) fn decided(&self) -> u64 {
        let Self { began, received: met, head, .. } = *self;
        if met >= began && met <= head { met } else { head }
    }
}

// === impl EventGaps ===

impl EventGaps {
    /// By how much the drill was late at most at some time of these.
    pub(crate) fn longest_delay(&self, from: u64, until: u64) -> u64 {
        // They are in order and do not overlap.
        let first = self.delays.partition_point(|(at, _)| *at < from);
        let met =
            self.delays[first..].iter().take_while(|(at, by)| at.saturating_sub(*by) <= until);
        met.map(|(_, by)| *by).max().unwrap_or_default()
    }

    /// Whether it heard all that was told in this time.
    pub(crate) fn is_complete(&self, from: u64, until: u64) -> bool {
        self.missed.iter().all(|(begin, end)| *end < from || *begin > until)
    }
}

// === impl Kind ===

impl Kind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Short,
        Self::Pair,
        Self::Download,
        Self::Upload,
        Self::Ws,
        Self::Sse,
        Self::RefusedPreview,
        Self::Preview,
    ];

    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::Pair => "pair",
            Self::Download => "download",
            Self::Upload => "upload",
            Self::Ws => "ws",
            Self::Sse => "sse",
            Self::RefusedPreview => "wish",
            Self::Preview => "preview",
        }
    }

    /// Whether it takes a time that was asked for, so that how long it took says nothing.
    #[must_use]
    pub fn is_long(self) -> bool {
        matches!(self, Self::Download | Self::Upload | Self::Ws | Self::Sse)
    }

    /// Whether a proxy that loses an endpoint under it may ask another.
    #[must_use]
    pub fn is_repeatable(self) -> bool {
        !matches!(self, Self::Upload | Self::Ws)
    }
}

// === impl Outcome ===

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Complete => write!(f, "whole"),
            Self::NotSent => write!(f, "not sent: the drill could not"),
            Self::NotConnected => write!(f, "no connection"),
            Self::NoResponse => write!(f, "the connection ended without an answer"),
            Self::ErrorStatus(code) => write!(f, "refused with {code}"),
            Self::UnknownResponder => {
                write!(f, "answered by somebody else than a sample application")
            }
            Self::TimedOut => write!(f, "not over in time"),
            Self::Truncated => write!(f, "cut"),
            Self::Corrupted => write!(f, "altered"),
            Self::TrailersLost => write!(f, "its trailers were lost"),
            Self::ColorChanged => write!(f, "went on with another color"),
            Self::EndpointChanged => write!(f, "went on with another endpoint"),
            Self::WrongColor => write!(f, "another color than the tester asked for"),
        }
    }
}
