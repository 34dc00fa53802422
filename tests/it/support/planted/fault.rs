//! The faults of the planted proxy.

/// A planted fault.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fault {
    /// No fault.
    None,
    /// A flip is acknowledged before it is made.
    NoBarrier,
    /// A request reads the active color, and is counted a little later.
    CountsLate,
    /// A flip ends the requests in flight.
    Cuts,
    /// Now and then the public gets the other color.
    Leaks,
    /// Public clients get the color that they ask for.
    HonorsPublicPreview,
    /// A flip of two services is made in two steps.
    Halves,
    /// Now and then a request is sent twice.
    Doubles,
    /// Now and then a byte is changed.
    Alters,
    /// Trailers are left out.
    Untrailed,
    /// Now and then there is no response.
    Loses,
    /// Now and then a flip fails.
    Refuses,
    /// Now and then the drained event is missing.
    NeverDrained,
    /// The drained event is 1.2 s late.
    DrainedLate,
    /// A WebSocket is moved to the last endpoint of its color, with a handshake that has no number.
    MovesSockets,
    /// The same, with the number of the first handshake.
    MovesSocketsByNumber,
    /// Now and then a request is sent to the color that is not active too, without its number.
    Mirrors,
    /// Now and then a request of a transaction goes to the active color.
    MixesTransactions,
    /// Now and then an asset is not asked of the other color.
    LosesAssets,
    /// A color is reported as drained before its pins have ended.
    DrainedUnderPins,
    /// Pins do not end.
    KeepsPins,
    /// A WebSocket is closed in the middle of a message.
    ClosesWithin,
    /// A WebSocket is closed although its color is active.
    ClosesEarly,
    /// WebSockets are closed also if their clients do not expect that.
    ClosesAll,
    /// A WebSocket is closed with 1000, after which clients do not connect again.
    ClosesNormally,
    /// In a gradual promotion, each request draws anew.
    DrawsAgain,
    /// In a gradual promotion, each step moves other clients.
    MovesOthers,
    /// In a gradual promotion, no client moves before the last step.
    MovesNone,
}
