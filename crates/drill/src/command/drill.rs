//! The command `drill`: its options, and the output of its report.

mod options;

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use flipgate_api::{
    CallerArguments, OutputArguments,
    terminal::{OutputError, print_line},
};

use super::{CommandError, count};
use crate::{
    error::DrillError,
    options::{LoadSpec, Mix, Options, Service, Upstream},
    program::Program,
    protocol::Protocol,
    run::run,
    steps::{ScriptLine, parse_time},
};

/// The text below the options in the help of a drill that is started as `name`.
#[must_use]
pub fn examples(name: &str) -> String {
    let examples = "\
Examples:
  NAME --demo --duration 30s --flip-every 100ms
  NAME --demo --services 2 --endpoints 2 --script chaos.drill --rate 50%
  NAME --url https://shop.test --connect-to 10.0.0.1:443 \\
      --admin unix:/run/flipgate.sock --flip-every 1s
  NAME --url http://127.0.0.1:8080 --upstream web.blue=127.0.0.1:9001 \\
      --upstream web.green=127.0.0.1:9002 --flip './switch-nginx {color}' --flip-every 2s

Kinds of requests (--mix):
  short            a small response
  pair             two short requests, each to another service
  download, upload a body that takes --stream-time
  sse, ws          server-sent events, a WebSocket; they take --stream-time
  refused-preview  a public client asks for a color; the proxy must ignore it
  preview          an internal client asks for a color; the proxy must obey
  scan             ten calls of one client over 2.3 times --stream-time; one version must answer all
  page             a page and ten assets, which only its version has, over 9 times --stream-time

Steps (--step, or one in each line of --script; times count from the end of --warm-up):
  every 200ms flip [SERVICE…]           at 5s promote web=green api=green
  at 6s rollback [SERVICE…]             at 7s replace web.green
  at 8s kill web.green.1                at 9s start web.green.1
  at 10s reload                         at 12s kill|start|restart proxy

Repeated flips pause now and then, so that the replaced color can drain: after 3/4 of --stream-time and at least 5 \
flips, until the drill has received the `drained` events, for at most --stream-time and 1.5s.

Exit code: 0 every tested promise held, 1 a promise is broken, no flip was made without --no-flips, or the drill \
could not run, 2 mistakes on the command line";
    examples.replace("NAME", name)
}

/// The options of a drill.
#[derive(Args, Clone, Debug)]
pub struct DrillCommand {
    /// Start a Flipgate and sample applications, test them, and stop them
    #[arg(long, conflicts_with_all = ["urls", "upstream", "proxy", "flip", "connect_to", "ca", "public_from", "tester_from"], required_unless_present = "urls", help_heading = "Target")]
    demo: bool,
    /// Services of the demo
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = count(1, 8), requires = "demo", help_heading = "Target")]
    services: usize,
    /// Endpoints of each color of the demo
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = count(1, 8), requires = "demo", help_heading = "Target")]
    endpoints: usize,
    /// The URL of a service, http:// or https://. With several services, give each its name
    #[arg(long = "url", value_name = "[SERVICE=]URL", help_heading = "Target")]
    urls: Vec<Service>,
    /// Connect to this address instead of the hosts of the URLs
    #[arg(long, value_name = "ADDRESS", help_heading = "Target")]
    connect_to: Option<SocketAddr>,
    /// Start a sample application at this address, and count the requests that it receives
    #[arg(long, value_name = "SERVICE.COLOR=ADDRESS", help_heading = "Target")]
    upstream: Vec<Upstream>,
    /// Start the proxy with this command, and stop it at the end
    #[arg(long, value_name = "COMMAND", help_heading = "Target")]
    proxy: Option<String>,
    /// Trust the certificate authorities of this PEM file instead of the system's
    #[arg(long, value_name = "FILE", help_heading = "Target")]
    ca: Option<PathBuf>,
    /// The source address of public clients: an address of this machine that the proxy regards as public
    #[arg(long, value_name = "IP", help_heading = "Target")]
    public_from: Option<IpAddr>,
    /// The source address of testers: an address of this machine that the proxy regards as internal
    #[arg(long, value_name = "IP", help_heading = "Target")]
    tester_from: Option<IpAddr>,
    /// Flip every service to its other color, in one call, at this interval
    #[arg(long, value_name = "TIME", value_parser = parse_time, help_heading = "Actions")]
    flip_every: Option<Duration>,
    /// Flip with this command instead of the admin API. The drill replaces {color} and {service}; the end of the
    /// command is the acknowledgement. Without {service}, one call flips all services
    #[arg(long, value_name = "COMMAND", help_heading = "Actions")]
    flip: Option<String>,
    /// Do a step during the load; see below
    #[arg(long, value_name = "STEP", help_heading = "Actions")]
    step: Vec<ScriptLine>,
    /// Do the steps of this file, one in each line
    #[arg(long, value_name = "FILE", help_heading = "Actions")]
    script: Option<PathBuf>,
    /// Test without flips. Otherwise a drill that makes no flip fails
    #[arg(long, conflicts_with_all = ["flip_every", "flip"], help_heading = "Actions")]
    no_flips: bool,
    /// Requests per second, sent at even intervals, or a share of the highest possible rate, such as 50%, which the
    /// drill measures first for 10 to 30 s [default: 500]
    #[arg(long, value_name = "RATE", conflicts_with = "clients", help_heading = "Load")]
    rate: Option<LoadSpec>,
    /// Instead of a rate, clients that send the next request after each response
    #[arg(long, value_name = "NUMBER", value_parser = count(1, 5000), help_heading = "Load")]
    clients: Option<usize>,
    /// Kinds of requests with their weights; see below [default: short=80,download=5,upload=5,ws=5,sse=5; for a demo
    /// all kinds, with fewer streams]
    #[arg(long, value_name = "KIND=WEIGHT,…", help_heading = "Load")]
    mix: Option<Mix>,
    /// For how long after a flip the proxy keeps transactions (scan, page) on the color before: `pin.max_age` of its
    /// services [default for a demo: longer than a page takes]
    #[arg(long, value_name = "TIME", value_parser = parse_time, help_heading = "Load")]
    pin_max_age: Option<Duration>,
    /// After a flip, the proxy may close a WebSocket between two messages with the code 1012 or 1001, and its client
    /// connects again. It then takes 5 times --stream-time. For a demo with scan or page, that is always so
    #[arg(long, help_heading = "Load")]
    reconnect: bool,
    /// The protocol: http1, or h2 (without TLS by prior knowledge; WebSockets always use HTTP/1.1)
    #[arg(long, value_name = "NAME", default_value = "http1", help_heading = "Load")]
    protocol: Protocol,
    /// Open a new connection for each request
    #[arg(long, help_heading = "Load")]
    fresh: bool,
    /// The duration of downloads, uploads, event streams and WebSockets
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = stream_time, help_heading = "Load")]
    stream_time: Duration,
    /// The size of a download
    #[arg(long, value_name = "BYTES", default_value_t = 262_144, value_parser = clap::value_parser!(u64).range(..=1 << 30), help_heading = "Load")]
    download_bytes: u64,
    /// The size of an upload
    #[arg(long, value_name = "BYTES", default_value_t = 65_536, value_parser = clap::value_parser!(u64).range(..=1 << 30), help_heading = "Load")]
    upload_bytes: u64,
    /// Threads that send requests
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = count(1, 64), help_heading = "Load")]
    threads: usize,
    /// The seed of all random choices, to repeat those of an earlier drill
    #[arg(long, value_name = "NUMBER", help_heading = "Load")]
    seed: Option<u64>,
    /// The duration of the measured load
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_time, help_heading = "Timing")]
    duration: Duration,
    /// The duration of the load before it is measured
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_time, help_heading = "Timing")]
    warm_up: Duration,
    /// The part of the duration without repeated flips, for comparison, half at the beginning and half at the end
    /// [default: a fifth of the duration]
    #[arg(long, value_name = "TIME", value_parser = parse_time, help_heading = "Timing")]
    steady: Option<Duration>,
    /// Stop after this number of requests
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..), help_heading = "Timing")]
    count: Option<u64>,
    /// The file for the page with the charts
    #[arg(
        long,
        value_name = "FILE",
        default_value = "flipgate-drill.html",
        help_heading = "Output"
    )]
    report: PathBuf,
    #[command(flatten, next_help_heading = "Output")]
    output: OutputArguments,
    #[command(flatten, next_help_heading = "Admin API")]
    admin: CallerArguments,
}

impl DrillCommand {
    /// Runs the drill, writes its report, and returns the exit code. Blocks the thread.
    ///
    /// The drill starts sample applications as `PROGRAM sample …`, where `PROGRAM` is `sample` and its command a
    /// [`SampleCommand`](super::SampleCommand). It calls `flipgate` only for `--demo`, which starts a Flipgate.
    ///
    /// # Errors
    ///
    /// [`CommandError`] if the drill could not run, or if its report cannot be written.
    pub fn run(
        self,
        sample: Program,
        flipgate: impl FnOnce() -> Result<Program, CommandError>,
    ) -> Result<u8, CommandError> {
        let is_json = self.output.is_json();
        let path = self.report.clone();
        let options = self.options(sample, flipgate)?;
        drill(&options, &path, is_json)
    }
}

fn drill(options: &Options, path: &Path, is_json: bool) -> Result<u8, CommandError> {
    // A path that cannot be written is found before minutes of load. An earlier page stays until there is a new one.
    let was_there = path.exists();
    let opened = std::fs::File::options().append(true).create(true).open(path);
    opened.map_err(|error| report_error(path, &error))?;
    let report = match run(options) {
        Ok(report) => report,
        Err(error) => {
            if !was_there {
                let _ = std::fs::remove_file(path);
            }
            return Err(match error {
                DrillError::Usage(text) => CommandError::usage(text),
                error => CommandError::new(error.to_string()),
            });
        }
    };
    // The disk can be full, so the page comes last.
    let mut printed = match is_json {
        true => print_line(format_args!("{:#}", report.json())),
        false => print_line(report.summary()),
    };
    std::fs::write(path, report.page()).map_err(|error| report_error(path, &error))?;
    if !is_json {
        printed = printed.and_then(|()| print_line(format_args!("Report: {}", path.display())));
    }
    match printed {
        // The exit code still says whether the promises held.
        Ok(()) | Err(OutputError::Closed) => Ok(u8::from(!report.is_clean())),
        Err(error) => Err(error.into()),
    }
}

fn report_error(path: &Path, error: &std::io::Error) -> CommandError {
    let path = path.display();
    CommandError::new(format!(
        "cannot write the report to {path}: {error}\n  Use --report FILE to write it elsewhere."
    ))
}

fn stream_time(text: &str) -> Result<Duration, String> {
    let time = parse_time(text)?;
    if time <= Duration::from_secs(600) {
        Ok(time)
    } else {
        Err("write at most 10 minutes".to_owned())
    }
}
