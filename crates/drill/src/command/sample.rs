//! The command `sample`: the sample application as a process.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;
use flipgate_api::{OutputArguments, terminal::print_line};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::CommandError;
use crate::sample::{Faults, Sample, SampleIdentity};

/// The identity and the address of a sample application.
#[derive(Args, Clone, Debug)]
pub struct SampleCommand {
    /// The color, sent as X-Sample-Color in each response
    #[arg(long, default_value = "blue")]
    color: String,
    /// The version, sent as X-Sample-Version
    #[arg(long, default_value = "1")]
    version: String,
    /// The name of this instance, sent as X-Sample-Instance
    #[arg(long, default_value = "1")]
    instance: String,
    /// The address to listen on; port 0 is any free port
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// The file with the JSON at /manifest.json
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// Percent of the requests that get a 500; PUT /faults changes it, and has more
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    errors: u8,
    /// The delay of each response in milliseconds
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    delay_ms: u64,
    /// Append an entry of 16 bytes for each request to this file: its number (X-Sample-Id) and its time
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArguments,
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
    let SampleCommand {
        color,
        version,
        instance,
        listen,
        manifest,
        errors,
        delay_ms,
        journal,
        output,
    } = command;
    let fail = |what: &str, error: std::io::Error| CommandError::new(format!("{what}: {error}"));
    let manifest = manifest.as_deref().map(std::fs::read_to_string).transpose();
    let manifest = manifest.map_err(|error| fail("the manifest cannot be read", error))?;
    let identity = SampleIdentity {
        color: color.clone(),
        version: version.clone(),
        instance,
        journal,
        manifest,
        faults: Faults { errors, delay_ms, ..Faults::default() },
    };
    let sample = Sample::start(listen, identity).await;
    let sample =
        sample.map_err(|error| fail(&format!("{color} cannot start on {listen}"), error))?;
    let address = sample.address;
    if output.is_json() {
        print_line(json!({"listening": address, "color": color, "version": version}))?;
    } else {
        print_line(format_args!("{color} {version} listens on http://{address}; Ctrl-C stops it"))?;
    }
    let mut term = signal(SignalKind::terminate()).map_err(|error| fail("signals", error))?;
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = term.recv() => {}
    }
    Ok(0)
}
