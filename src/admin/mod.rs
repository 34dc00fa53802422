//! The HTTP API for operators and programs.
//!
//! A thin layer: from the wire into one call, and back onto the wire. It decides nothing but who may call.

mod audited;
mod auth;
mod changes;
mod conditions;
mod connections;
mod context;
mod convert;
mod durations;
mod fingerprint;
mod gates;
mod intake;
mod pins;
mod probes;
mod problem;
mod reads;
mod rollout_status;
mod rollouts;
mod router;
mod server;
mod settings;
mod shares;
mod stream;
mod streams;
mod strict_stream;
mod watches;
mod write_timeout;

use std::{future::Future, pin::Pin, sync::Arc};

use crate::{
    control::{Actor, Control},
    metrics::Metrics,
    release::Release,
    rollout::Rollouts,
};

pub use self::{
    router::openapi,
    server::{AdminListener, AdminServer, ListenError},
    settings::{
        AdminAddress, AdminSettings, ParseAddressError, ParseScopeError, Scope, Secret,
        SecretError, Token,
    },
};

/// What the API serves.
#[derive(Clone)]
pub struct Api {
    /// Changes and snapshots.
    pub control: Control,
    /// Promotions and rollbacks, with their gates.
    pub release: Release,
    /// Deployments in stages.
    pub rollouts: Rollouts,
    /// Reads the configuration again and applies it.
    pub reload: Reload,
    /// Whether the process accepts new requests: true from the opening of the listeners to the stop signal.
    pub is_serving: Arc<dyn Fn() -> bool + Send + Sync>,
    /// The dead tasks that only a restart repairs.
    pub gone: Arc<dyn Fn() -> Vec<String> + Send + Sync>,
    /// Counts API connections that have panicked.
    pub metrics: Metrics,
}

/// Reads the configuration again and applies it, for a caller.
pub type Reload = Arc<dyn Fn(Actor) -> ReloadFuture + Send + Sync>;

/// A reload in progress.
pub type ReloadFuture = Pin<Box<dyn Future<Output = Result<(), ReloadError>> + Send>>;

/// A configuration that was not applied. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The process was not started from a file.
    #[error("there is no configuration file to reload")]
    NoFile,
    /// Another reload has been reading files for a long time.
    #[error("the configuration was not applied: another reload is still reading its files")]
    UnderWay,
    /// Reading the files timed out.
    #[error(
        "the configuration was not applied: its files could not be read within {0:?}; is one of them a pipe, or on a disk that hangs?"
    )]
    TooSlow(std::time::Duration),
    /// The configuration has errors.
    #[error("the configuration was not applied: {0}")]
    Config(String),
    /// A change needs a restart.
    #[error("the configuration was not applied, since these can only be changed by a restart: {}", .0.join(", "))]
    NeedsRestart(Vec<&'static str>),
    /// The change was refused or failed.
    #[error(transparent)]
    Change(#[from] crate::control::ChangeError),
}
