//! Kinds and results of promotions, as labels.

/// The kind of a promotion.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PromotionKind {
    /// A promotion.
    Promote,
    /// A rollback.
    Rollback,
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
