//! `sample`.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;
use flipgate_drill::sample::{About, Sample};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::{Failure, Output};

/// Who the application is.
#[derive(Args, Clone, Debug)]
pub(super) struct SampleArguments {
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
    /// Append the number of each request (X-Sample-Id) to this file, 8 bytes each
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
}

pub(super) async fn sample(arguments: SampleArguments, output: Output) -> Result<u8, Failure> {
    let SampleArguments { color, version, instance, listen, journal } = arguments;
    let fail = |what: &str, error: std::io::Error| Failure::new(format!("{what}: {error}"));
    let about = About { color: color.clone(), version: version.clone(), instance, journal };
    let sample = Sample::start(listen, about).await;
    let sample =
        sample.map_err(|error| fail(&format!("{color} on {listen} cannot start"), error))?;
    let address = sample.address;
    if output.is_json() {
        anstream::println!("{}", json!({"listening": address, "color": color, "version": version}));
    } else {
        anstream::println!("{color} {version} listens on http://{address}; Ctrl-C ends it");
    }
    let mut term = signal(SignalKind::terminate()).map_err(|error| fail("signals", error))?;
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = term.recv() => {}
    }
    Ok(0)
}
