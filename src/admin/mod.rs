//! The HTTP API by which operators and their programs ask for changes and look.
//!
//! A thin border: from the wire into one call, and back onto the wire. Nothing is decided here but
//! who may call.

mod auth;
mod changes;
mod conditions;
mod connections;
mod context;
mod convert;
mod fingerprint;
mod probes;
mod problem;
mod reads;
mod router;
mod server;
mod settings;
mod stream;
mod strict_stream;
mod write_timeout;

use std::{future::Future, pin::Pin, sync::Arc};

use crate::{control::Control, metrics::Metrics};

pub use self::{
    router::openapi,
    server::{AdminListener, AdminServer, ListenError},
    settings::{
        AdminAddress, AdminSettings, ParseAddressError, ParseScopeError, Scope, Secret,
        SecretError, Token,
    },
};

/// What the API speaks for.
#[derive(Clone)]
pub struct Api {
    /// Changes and pictures.
    pub control: Control,
    /// Reads the configuration again and applies it.
    pub reload: Reload,
    /// Whether the process takes new requests: true from the moment that it listens to the moment
    /// that it is told to stop.
    pub is_serving: Arc<dyn Fn() -> bool + Send + Sync>,
    /// What only a restart repairs: each task that is gone, in words.
    pub gone: Arc<dyn Fn() -> Vec<String> + Send + Sync>,
    /// Counts connections of the API that have panicked.
    pub metrics: Metrics,
}

/// Reads the configuration again and applies it.
pub type Reload = Arc<dyn Fn() -> ReloadFuture + Send + Sync>;

/// A reload that is under way.
pub type ReloadFuture = Pin<Box<dyn Future<Output = Result<(), ReloadError>> + Send>>;

/// A configuration that was not applied. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The process was not started from a file.
    #[error("there is no configuration file to reload")]
    NoFile,
    /// Another reload is reading files, and has been for long.
    #[error("the configuration was not applied: another reload is still reading its files")]
    UnderWay,
    /// The files take too long.
    #[error(
        "the configuration was not applied: its files could not be read within {0:?}; is one of them a pipe, or on a disk that hangs?"
    )]
    TooSlow(std::time::Duration),
    /// The file cannot be used.
    #[error("the configuration was not applied: {0}")]
    Config(String),
    /// It differs in what a running process cannot take.
    #[error("the configuration was not applied, since these can only be changed by a restart: {}", .0.join(", "))]
    NeedsRestart(Vec<&'static str>),
    /// The change was not made.
    #[error(transparent)]
    Change(#[from] crate::control::ChangeError),
}
