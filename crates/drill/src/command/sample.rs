//! The sample application as a process of its own.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;
use flipgate_api::terminal::print_line;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::{CommandError, is_json};
use crate::sample::{Sample, SampleIdentity};

/// Who the application is.
#[derive(Args, Clone, Debug)]
pub struct SampleCommand {
    /// Its color, told in every answer as X-Sample-Color
    #[arg(long, default_value = "blue")]
    color: String,
    /// Its version, told as X-Sample-Version
    #[arg(long, default_value = "1")]
    version: String,
    /// Which of several it is, told as X-Sample-Instance
    #[arg(long, default_value = "1")]
    instance: String,
    /// Where it listens; port 0 is one that is free
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Append each request to this file, 16 bytes each: its number (X-Sample-Id), and when it arrived
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    /// JSON, also in a terminal
    #[arg(long)]
    json: bool,
}

impl SampleCommand {
    /// Runs the application until SIGINT or SIGTERM, and returns the exit code. Blocks the thread.
    ///
    /// # Errors
    ///
    /// [`CommandError`] if it cannot listen or write its journal.
    pub fn run(self) -> Result<u8, CommandError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| CommandError::new(error.to_string()))?;
        runtime.block_on(sample(self))
    }
}

async fn sample(command: SampleCommand) -> Result<u8, CommandError> {
    let SampleCommand { color, version, instance, listen, journal, json } = command;
    let fail = |what: &str, error: std::io::Error| CommandError::new(format!("{what}: {error}"));
    let identity =
        SampleIdentity { color: color.clone(), version: version.clone(), instance, journal };
    let sample = Sample::start(listen, identity).await;
    let sample =
        sample.map_err(|error| fail(&format!("{color} on {listen} cannot start"), error))?;
    let address = sample.address;
    if is_json(json) {
        print_line(json!({"listening": address, "color": color, "version": version}))?;
    } else {
        print_line(format_args!("{color} {version} listens on http://{address}; Ctrl-C ends it"))?;
    }
    let mut term = signal(SignalKind::terminate()).map_err(|error| fail("signals", error))?;
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = term.recv() => {}
    }
    Ok(0)
}
