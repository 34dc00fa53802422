//! Whether a service takes new requests now: its hold and its maintenance.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use super::hold::Hold;

/// What keeps new requests of a service from its active color.
#[derive(Clone, Debug, Default)]
pub struct Intake {
    /// They are answered with 503. Takes precedence.
    pub maintenance: Option<Arc<Maintenance>>,
    /// They wait.
    pub hold: Option<Arc<Hold>>,
    /// Paths of which requests are never kept.
    pub pass: Arc<[PassPath]>,
}

/// The maintenance of a service, as an operator has asked for it: its part of the state.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Maintenance {
    /// The caller that began it, as the audit log names it.
    pub owner: Arc<str>,
    /// When it began, in milliseconds of Unix time.
    pub since_ms: u64,
    /// The page, in HTML. `None`: the text of other errors.
    pub page: Option<Arc<str>>,
    /// When clients should come again, in seconds.
    pub retry_after: NonZeroU32,
    /// Whether internal clients are let through.
    pub except_internal: bool,
}

/// A path of which requests pass a hold and a maintenance. With a `/` at its end it stands for everything below.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PassPath(Box<str>);

/// Not a path of the kind that passes.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "`{0}` is not a path: write one like \"/healthz\", or \"/health/\" for everything below it"
)]
pub struct PassPathError(String);

/// The settings of holds of a service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HoldSettings {
    /// How long a hold lasts if the call does not say so.
    pub length: Duration,
    /// How many requests may wait if the call does not say so.
    pub places: usize,
    /// Paths of which requests are never kept.
    pub pass: Arc<[PassPath]>,
}

/// What happens to a request.
#[derive(Clone, Copy, Debug)]
pub enum IntakeDecision<'a> {
    /// It is admitted.
    Admit,
    /// It waits.
    Hold(&'a Arc<Hold>),
    /// It is refused.
    Refuse(&'a Arc<Maintenance>),
}

// === impl Intake ===

impl Intake {
    /// What happens to a request for this normalized path. `released` is the hold that has let it go.
    #[must_use]
    pub fn decide(
        &self,
        path: &str,
        is_internal: bool,
        released: Option<&Arc<Hold>>,
    ) -> IntakeDecision<'_> {
        let Self { maintenance, hold, pass } = self;
        if pass.iter().any(|it| it.covers(path)) {
            return IntakeDecision::Admit;
        }
        if let Some(maintenance) = maintenance {
            return match maintenance.except_internal && is_internal {
                true => IntakeDecision::Admit,
                false => IntakeDecision::Refuse(maintenance),
            };
        }
        match hold {
            Some(hold) if !hold.is_open() && !released.is_some_and(|it| Arc::ptr_eq(it, hold)) => {
                IntakeDecision::Hold(hold)
            }
            _ => IntakeDecision::Admit,
        }
    }
}

// === impl Maintenance ===

impl Maintenance {
    /// The largest page, in bytes. It is part of the state.
    pub const PAGE_MAX: usize = 256 * 1024;
    /// The longest `Retry-After`, in seconds.
    pub const RETRY_AFTER_MAX: u32 = 24 * 3600;
    /// The default of `Retry-After`, in seconds.
    pub const RETRY_AFTER: NonZeroU32 = NonZeroU32::new(60).expect("not zero");
}

// === impl PassPath ===

impl PassPath {
    fn covers(&self, path: &str) -> bool {
        match self.0.ends_with('/') {
            true => path.starts_with(&*self.0),
            false => path == &*self.0,
        }
    }
}

impl std::str::FromStr for PassPath {
    type Err = PassPathError;

    fn from_str(text: &str) -> Result<Self, PassPathError> {
        let is_visible = |it: u8| it.is_ascii_graphic() && !b"?#%*".contains(&it);
        let has_dots = text.split('/').any(|it| it == "." || it == "..");
        let is_valid = text.starts_with('/')
            && text.len() <= 1024
            && text.bytes().all(is_visible)
            && !text.contains("//")
            && !has_dots;
        match is_valid {
            true => Ok(Self(text.into())),
            false => Err(PassPathError(text.chars().take(80).collect())),
        }
    }
}

// === impl HoldSettings ===

impl HoldSettings {
    /// The longest hold: clients give up long before.
    pub const LENGTH_MAX: Duration = Duration::from_secs(300);
    /// The most places of one hold.
    pub const PLACES_MAX: usize = 10_000;
    /// The most paths that pass.
    pub const PASS_MAX: usize = 16;
}

impl Default for HoldSettings {
    fn default() -> Self {
        Self { length: Duration::from_secs(10), places: 1000, pass: Arc::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> PassPath {
        text.parse().expect("a path")
    }

    #[test]
    fn a_path_passes_exactly_or_with_a_slash_everything_below() {
        assert!(path("/healthz").covers("/healthz"));
        assert!(!path("/healthz").covers("/healthz/x"));
        assert!(!path("/healthz").covers("/health"));
        assert!(path("/health/").covers("/health/live"));
        assert!(!path("/health/").covers("/health"));
        assert!(path("/").covers("/anything"));
    }

    #[test]
    fn only_normalized_paths_pass() {
        for wrong in ["", "healthz", "/a b", "/a?b", "/a%41", "/a//b", "/a/../b", "/*", "/ä"] {
            assert_eq!(wrong.parse::<PassPath>(), Err(PassPathError(wrong.to_owned())), "{wrong}");
        }
        assert!(format!("/{}", "x".repeat(1024)).parse::<PassPath>().is_err());
    }

    #[test]
    fn maintenance_takes_precedence_and_lets_insiders_and_health_paths_through() {
        let maintenance = |except_internal| Maintenance {
            owner: "local".into(),
            since_ms: 0,
            page: None,
            retry_after: Maintenance::RETRY_AFTER,
            except_internal,
        };
        let with = |except_internal| Intake {
            maintenance: Some(Arc::new(maintenance(except_internal))),
            hold: None,
            pass: Arc::new([path("/healthz")]),
        };
        let refuses = |intake: &Intake, path: &str, is_internal| {
            matches!(intake.decide(path, is_internal, None), IntakeDecision::Refuse(_))
        };
        assert!(refuses(&with(true), "/", false) && !refuses(&with(true), "/", true));
        assert!(refuses(&with(false), "/", false) && refuses(&with(false), "/", true));
        assert!(!refuses(&with(true), "/healthz", false));
    }
}
