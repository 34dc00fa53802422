//! The history of a drill: requests, flips, `drained` events, kills. It is recorded during the load and checked
//! afterwards.
//!
//! All times are in nanoseconds of one clock that all processes of the machine share ([`crate::sample::now_ns`]).

mod kind;

use std::collections::BTreeMap;

pub use self::kind::{Kind, Outcome};
use crate::color::Color;

/// A request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    /// Its number, which the application knows, too.
    pub id: u64,
    /// The number of the first request of its transaction; 0 if it belongs to none.
    pub transaction: u64,
    /// The number of the first request of its client; 0 if the client keeps no cookies.
    pub client: u64,
    /// The index of its service.
    pub service: u8,
    /// Its kind.
    pub kind: Kind,
    /// How it ended.
    pub outcome: Outcome,
    /// The color of the response.
    pub color: Option<Color>,
    /// The number of the application that answered; 0 if not known.
    pub instance: u16,
    /// When it was due.
    pub due: u64,
    /// The time before its first byte was sent, and before its connection was opened if that is new.
    pub began: u64,
    /// When the application received it, according to the application; 0 if not known.
    pub received: u64,
    /// When the head of its response was received; 0 if none was.
    pub head: u64,
    /// When it ended.
    pub ended: u64,
    /// A time at which the application was certainly still handling it; 0 if none is known.
    pub active_at: u64,
    /// When the proxy closed it with the request to connect again; 0 if it did not.
    pub moved: u64,
}

/// The result of a flip.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum FlipOutcome {
    /// It succeeded.
    Acknowledged,
    /// It was refused or never sent, and changed nothing.
    Refused,
    /// It may have taken effect or not.
    Unknown,
}

/// A flip.
#[derive(Clone, Debug)]
pub(crate) struct Flip {
    /// Each service with its new color.
    pub changes: Vec<(u8, Color)>,
    /// The time before the call was sent.
    pub called: u64,
    /// When the acknowledgement was received.
    pub acknowledged: u64,
    /// Its result.
    pub outcome: FlipOutcome,
    /// Its generation, if the proxy has generations.
    pub generation: Option<u64>,
    /// The error, if it failed.
    pub error: Option<String>,
    /// Whether the response of the call was lost. `acknowledged` is when the result was found out afterwards.
    pub lost_response: bool,
    /// Whether the proxy made it by itself. `called` is then the time of its cause.
    pub is_automatic: bool,
}

/// A `drained` event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct DrainedEvent {
    /// The service.
    pub service: u8,
    /// The color.
    pub color: Color,
    /// The generation that had replaced the color.
    pub generation: u64,
    /// When it was received.
    pub received: u64,
}

/// A request without a number that reached an application of the drill.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct UnnumberedRequest {
    /// The number of the application.
    pub instance: u16,
    /// When, according to the application.
    pub at: u64,
    /// Whether its path is that of drill traffic, which health checks do not use.
    pub is_traffic: bool,
}

/// Times in which the drill received events late or not at all.
#[derive(Clone, Debug, Default)]
pub(crate) struct EventGaps {
    /// Begin and end of each time in which events can be missing.
    pub missed: Vec<(u64, u64)>,
    /// When a timer of the drill fired late, and by how much.
    pub delays: Vec<(u64, u64)>,
}

/// A process that the drill stopped, and the time in which failures can follow from that.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kill {
    /// The process.
    pub process: KilledProcess,
    /// The time before the kill.
    pub from: u64,
    /// The end of the time in which requests can fail because of it.
    pub until: u64,
}

/// A killed process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum KilledProcess {
    /// The proxy: from the kill until it serves again.
    Proxy,
    /// An application: from the kill until its connections are closed.
    Upstream {
        /// The service.
        service: u8,
        /// The color.
        color: Color,
        /// The number of the application.
        instance: u16,
        /// Whether it was the last running endpoint of its color, so that no retry could succeed.
        was_last: bool,
    },
}

/// The number of requests in flight on a color at one time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InFlightSample {
    /// When.
    pub at: u64,
    /// The service.
    pub service: u8,
    /// The color.
    pub color: Color,
    /// Requests in flight.
    pub count: u64,
    /// Whether the color was not active.
    pub is_inactive: bool,
}

/// A step that is not a flip.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct StepRecord {
    /// When it began.
    pub at: u64,
    /// The step, as in a script.
    pub text: String,
}

/// A failure that is not one of a request or a flip.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    /// When the failed action began.
    pub from: u64,
    /// When it failed.
    pub until: u64,
    /// The error.
    pub text: String,
}

/// A step with a color that failed on purpose.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Trial {
    /// What the proxy had to do.
    pub kind: TrialKind,
    /// The service.
    pub service: u8,
    /// The color that failed.
    pub color: Color,
    /// Since when it failed.
    pub from: u64,
    /// When the proxy had done it, or the drill gave up waiting. Soon afterwards the color was repaired.
    pub until: u64,
    /// Whether the proxy did it.
    pub result: TrialResult,
}

/// What a proxy has to do with a bad color.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum TrialKind {
    /// Refuse its promotion.
    Refuse,
    /// Roll it back.
    Guard,
}

/// Whether a proxy did what it had to do with a bad color.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum TrialResult {
    /// It did.
    Done,
    /// It did not.
    Missed,
}

/// A gradual promotion: until its end, the candidate has a share of the clients.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct GradualPromotion {
    /// The service.
    pub service: u8,
    /// The candidate.
    pub color: Color,
    /// The time before the call.
    pub from: u64,
    /// When the candidate was seen to be active, or to have no share any more. [`u64::MAX`] if the drill ended before that.
    pub until: u64,
    /// The shares that were seen, in order of time.
    pub steps: Vec<ShareStep>,
}

/// A time in which a candidate certainly had this share of the clients.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct ShareStep {
    /// In percent.
    pub percent: u8,
    /// When it was seen first.
    pub from: u64,
    /// When it was seen last.
    pub until: u64,
}

/// Everything that a drill recorded.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    /// The names of the services. Other fields have their indices.
    pub services: Vec<String>,
    /// The first active color of each service.
    pub initial: Vec<Color>,
    /// When the measured load began.
    pub began: u64,
    /// When the last request was due.
    pub ended: u64,
    /// All requests.
    pub requests: Vec<Request>,
    /// All flips, in order of time. They do not overlap.
    pub flips: Vec<Flip>,
    /// The `drained` events, in order of time. `None` if the proxy reports no drains.
    pub drained: Option<Vec<DrainedEvent>>,
    /// Times in which events can be missing or late.
    pub event_gaps: EventGaps,
    /// The processes that the drill stopped.
    pub kills: Vec<Kill>,
    /// The steps with a color that failed on purpose.
    pub trials: Vec<Trial>,
    /// The gradual promotions, in order of time.
    pub gradual: Vec<GradualPromotion>,
    /// For how long transactions may stay on a replaced color, in nanoseconds. `None` if the proxy has no pins.
    pub pin_age: Option<u64>,
    /// The services of which the proxy remembers transactions in memory only, so that its end ends them.
    pub forgetful: Vec<u8>,
    /// Samples of the requests in flight.
    pub in_flight: Vec<InFlightSample>,
    /// The service and the color of each application that the drill started.
    pub instances: BTreeMap<u16, (u8, Color)>,
    /// The numbers of all requests that these applications received. `None` if the drill started none.
    pub arrived: Option<Vec<u64>>,
    /// The requests without a number that these applications received.
    pub unnumbered: Vec<UnnumberedRequest>,
    /// Whether only the drill sends requests to these applications. Health checks only open connections then.
    pub is_exclusive: bool,
    /// The steps other than flips, in order.
    pub steps: Vec<StepRecord>,
    /// Why the drill did not do all that it had to do, if so.
    pub incomplete: Option<String>,
    /// Failures other than those of requests and flips: processes that did not start, calls that failed.
    pub failures: Vec<Failure>,
}

// === impl History ===

impl History {
    /// The earliest time at which a flip can have taken a color away. The last step of a gradual promotion comes after its
    /// other steps: not before the status last showed a share.
    pub(crate) fn flip_from(&self, flip: &Flip) -> u64 {
        let is_its = |it: &&GradualPromotion| it.from == flip.called && flip.is_automatic;
        let promotion = self.gradual.iter().find(is_its);
        let last_share = promotion.and_then(|it| it.steps.iter().map(|it| it.until).max());
        last_share.unwrap_or(flip.called).clamp(flip.called, flip.acknowledged.max(flip.called))
    }
}

// === impl Request ===

impl Request {
    /// The time by which it was routed: when the application received it, or at the latest when the response came.
    pub(crate) fn routed(&self) -> u64 {
        let Self { began, received, head, .. } = *self;
        if received >= began && received <= head { received } else { head }
    }

    /// Whether it is for an asset of a page.
    pub(crate) fn is_asset(&self) -> bool {
        self.kind == Kind::Page && self.goes_on()
    }

    /// Whether a color says that it does not have the asset.
    pub(crate) fn is_missing_asset(&self) -> bool {
        self.is_asset() && self.outcome == Outcome::ErrorStatus(404)
    }

    /// Whether it goes on with a transaction, so that it may get a replaced color.
    pub(crate) fn goes_on(&self) -> bool {
        self.transaction != 0 && self.transaction != self.id
    }
}

// === impl GradualPromotion ===

impl GradualPromotion {
    /// Whether a request may have been routed before its end, and after its begin.
    pub(crate) fn covers(&self, request: &Request) -> bool {
        self.service == request.service
            && request.began <= self.until
            && request.routed() >= self.from
    }
}

// === impl EventGaps ===

impl EventGaps {
    /// The longest delay of the drill's timer between two times.
    pub(crate) fn longest_delay(&self, from: u64, until: u64) -> u64 {
        // They are in order of time and do not overlap.
        let first = self.delays.partition_point(|(at, _)| *at < from);
        let within =
            self.delays[first..].iter().take_while(|(at, by)| at.saturating_sub(*by) <= until);
        within.map(|(_, by)| *by).max().unwrap_or_default()
    }

    /// Whether no event can be missing between two times.
    pub(crate) fn is_complete(&self, from: u64, until: u64) -> bool {
        self.missed.iter().all(|(begin, end)| *end < from || *begin > until)
    }
}
