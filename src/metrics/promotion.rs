//! Kinds and results of promotions, as labels.

/// The kind of a promotion.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PromotionKind {
    /// A promotion.
    Promote,
    /// A rollback.
    Rollback,
    /// A rollback by Flipgate itself: by a watch, or without a confirmation.
    Automatic,
}

/// The result of a promotion or rollback.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PromotionResult {
    /// The table was replaced.
    Promoted,
    /// Refused because of the state of services, or of the request.
    Refused,
    /// Decided on an old generation.
    Stale,
    /// The change could not be written.
    Failed,
}

// === impl PromotionKind ===

impl PromotionKind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Promote => "promote",
            Self::Rollback => "rollback",
            Self::Automatic => "automatic",
        }
    }
}

// === impl PromotionResult ===

impl PromotionResult {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Promoted => "promoted",
            Self::Refused => "refused",
            Self::Stale => "stale",
            Self::Failed => "failed",
        }
    }
}
