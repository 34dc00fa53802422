//! The demo: two versions of the sample application, Flipgate in front of them, clients and flips, all in one process.
//!
//! All requests and calls of the admin API use sockets, as those of other clients do.

mod client;
mod gates;
mod load;
mod report;
mod tour;

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use flipgate_api::terminal::{OutputError, print_line};
use flipgate_drill::sample::{Faults, Sample, SampleIdentity};

use crate::{
    admin,
    app::{App, AppError},
    config::Config,
};

use self::{report::DemoReport, tour::Tour};

const ANY_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The options of the demo.
#[derive(Clone, Copy, Debug)]
pub struct DemoOptions {
    /// Keep everything running at the end.
    pub stay: bool,
    /// Print the report as JSON and nothing else.
    pub json: bool,
    /// Clients that send requests all the time.
    pub clients: usize,
    /// Flips under load at the end.
    pub flips: usize,
    /// Show gates and the watch instead: a bad version, a good one, and one that turns bad.
    pub gates: bool,
}

/// Why the demo cannot run.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// Sockets, threads, a folder for the state.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Flipgate cannot start.
    #[error(transparent)]
    App(#[from] AppError),
    /// A call of the admin API failed.
    #[error("{0}")]
    Call(String),
    /// The report cannot be written.
    #[error(transparent)]
    Output(#[from] OutputError),
}

/// Runs the demo, and returns whether no request failed.
///
/// # Errors
///
/// [`DemoError`] if the demo could not run to its end.
pub fn run(options: &DemoOptions) -> Result<bool, DemoError> {
    if options.gates {
        return gates::run(options.json);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("demo")
        .enable_all()
        .build()?;
    let state = tempfile::tempdir()?;
    let (blue, green) = runtime.block_on(async {
        Ok::<_, io::Error>((
            Sample::start(ANY_PORT, identity("blue", "7.9")).await?,
            Sample::start(ANY_PORT, identity("green", "8.0")).await?,
        ))
    })?;
    let config = config(state.path(), blue.address, green.address)?;
    let app = App::start(config, None)?;
    let admin::AdminAddress::Tcp(admin) = app.admin else {
        return Err(DemoError::Call("the admin API of the demo has no TCP address".to_owned()));
    };
    let addresses = tour::Addresses {
        public: app.listeners[0],
        preview: app.listeners[1],
        admin,
        blue: blue.address,
        green: green.address,
    };
    let report = runtime.block_on(async {
        tokio::select! {
            report = Tour::new(addresses, *options).run() => report,
            _ = tokio::signal::ctrl_c() => Err(DemoError::Call("interrupted".to_owned())),
        }
    })?;
    let printed = print(&report, options.json);
    if options.stay {
        runtime.block_on(stay(&addresses, options.json))?;
    }
    let _ = app.shut_down();
    runtime.shutdown_background();
    match printed {
        // The exit code shows whether a request failed.
        Ok(()) | Err(OutputError::Closed) => Ok(report.is_clean()),
        Err(error) => Err(DemoError::Output(error)),
    }
}

fn identity(color: &str, version: &str) -> SampleIdentity {
    let (color, version) = (color.to_owned(), version.to_owned());
    SampleIdentity {
        instance: color.clone(),
        color,
        version,
        journal: None,
        manifest: None,
        faults: Faults::default(),
    }
}

/// Only 127.0.0.1 is internal. Public clients connect from 127.0.0.2.
fn config(
    state: &std::path::Path,
    blue: SocketAddr,
    green: SocketAddr,
) -> Result<Config, DemoError> {
    let text = format!(
        r#"
        state_dir = {state:?}
        workers = 1
        admin.listen = "127.0.0.1:0"
        clients.internal = ["127.0.0.1/32"]
        shutdown.patience = "2s"
        [[listener]]
        listen = "127.0.0.1:0"
        [[listener]]
        listen = "127.0.0.1:0"
        preview = "green"
        [service.web]
        blue = {{ version = "7.9", endpoints = ["{blue}"] }}
        green = {{ version = "8.0", endpoints = ["{green}"] }}
        "#
    );
    Config::parse("demo.toml".as_ref(), &text).map_err(|mistakes| {
        DemoError::Call(mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    })
}

fn print(report: &DemoReport, is_json: bool) -> Result<(), OutputError> {
    if is_json {
        print_line(report.json())
    } else {
        print_line(format_args!("\n{}\n{}", report.table(), report.verdict()))
    }
}

async fn stay(addresses: &tour::Addresses, is_json: bool) -> io::Result<()> {
    if !is_json {
        // Without a reader of the output, the demo goes on.
        let _ = print_line(format_args!(
            "\nStill running. Open\n  http://{}/   as a public client\n  http://{}/   to preview green, as an \
             internal client\nor flip:\n  flipgate promote web=green --admin http://{}\n\
             Ctrl-C stops it.",
            addresses.public, addresses.preview, addresses.admin
        ));
    }
    tokio::signal::ctrl_c().await
}
