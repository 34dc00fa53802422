//! Changes of whether a service takes new requests.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use crate::model::ServiceName;

/// A change of whether a service takes new requests. The routing table keeps its generation.
#[derive(Clone, Debug)]
pub enum IntakeChange {
    /// Hold new requests, or set another end of the hold in progress.
    Hold {
        /// For how long; `None` for the setting of the service.
        length: Option<Duration>,
        /// How many requests may wait; `None` for the setting of the service.
        places: Option<usize>,
        /// Also if another caller holds the service.
        force: bool,
    },
    /// Let held requests go. Without a hold nothing changes.
    Release {
        /// Only this hold.
        id: Option<u64>,
        /// Whether the time of the hold is over.
        is_over: bool,
    },
    /// Answer new requests with 503.
    BeginMaintenance {
        /// The page, in HTML.
        page: Option<Arc<str>>,
        /// When clients should come again, in seconds.
        retry_after: NonZeroU32,
        /// Whether internal clients are let through.
        except_internal: bool,
    },
    /// Take new requests again. Without maintenance nothing changes.
    EndMaintenance,
}

// === impl IntakeChange ===

impl IntakeChange {
    /// Whether new requests are not admitted after it.
    pub(super) fn keeps_requests(&self) -> bool {
        match self {
            Self::Hold { .. } | Self::BeginMaintenance { .. } => true,
            Self::Release { .. } | Self::EndMaintenance => false,
        }
    }

    /// The change for the audit log.
    pub(super) fn action(&self, service: &ServiceName) -> String {
        match self {
            Self::Hold { length, places, force } => {
                let mut text = format!("hold {service}");
                if let Some(length) = length {
                    text.push_str(&format!(" for {} ms", length.as_millis()));
                }
                if let Some(places) = places {
                    text.push_str(&format!(", {places} requests"));
                }
                if *force {
                    text.push_str(" (forced)");
                }
                text
            }
            Self::Release { is_over: true, .. } => format!("hold end {service}"),
            Self::Release { id: Some(id), .. } => format!("release {service} (hold {id})"),
            Self::Release { id: None, .. } => format!("release {service}"),
            Self::BeginMaintenance { .. } => format!("maintenance {service}"),
            Self::EndMaintenance => format!("maintenance end {service}"),
        }
    }
}
