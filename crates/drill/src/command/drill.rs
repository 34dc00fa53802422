//! The drill: its options, and what is printed and written when it is over.

mod options;

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use flipgate_api::{
    CallerArguments,
    terminal::{OutputError, print_line},
};

use super::{CommandError, count, is_json};
use crate::{
    error::DrillError,
    options::{LoadSpec, Mix, Options, Service, Upstream},
    program::Program,
    protocol::Protocol,
    run::run,
    steps::{ScriptLine, parse_time},
};

/// What help prints below the options of a drill that is started as `name`.
#[must_use]
pub fn examples(name: &str) -> String {
    let examples = "\
Examples:
  NAME --demo --duration 30s --flip-every 100ms
  NAME --demo --services 2 --endpoints 2 --script chaos.drill --rate 50%
  NAME --url https://shop.test --connect-to 10.0.0.1:443 --admin unix:/run/flipgate.sock
  NAME --url http://127.0.0.1:8080 --upstream web.blue=127.0.0.1:9001 \\
      --upstream web.green=127.0.0.1:9002 --flip './switch-nginx {color}' --flip-every 2s

Steps (--step, or lines of --script), from when the load counts:
  every 200ms flip [SERVICE…]           at 5s promote web=green api=green
  at 6s rollback [SERVICE…]             at 7s replace web.green
  at 8s kill web.green.1                at 9s start web.green.1
  at 10s reload                         at 12s kill|start|restart proxy

A flip that is repeated pauses after 3/4 of --stream-time and at least 5 turns, until its `drained` events are
heard, and for at most --stream-time and 1.5s. An event may be heard 500ms after the end of the last request,
and 3 times the longest delay of the drill's own timer meanwhile.

Exit code: 0 only if every promise held, 1 if one was broken or there was no drill, 2 for mistakes above";
    examples.replace("NAME", name)
}

/// What to put to the test, and how.
#[derive(Args, Clone, Debug)]
pub struct DrillCommand {
    /// Start a Flipgate and its sample applications, and end them afterwards
    #[arg(long, conflicts_with_all = ["urls", "upstream", "proxy", "flip", "connect_to", "ca", "public_from", "tester_from"], required_unless_present = "urls", help_heading = "What is put to the test")]
    demo: bool,
    /// Services of the demo
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = count(1, 8), requires = "demo", help_heading = "What is put to the test")]
    services: usize,
    /// Endpoints of each color of the demo
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = count(1, 8), requires = "demo", help_heading = "What is put to the test")]
    endpoints: usize,
    /// Where a service is: http:// or https://, with its name in front if there are several
    #[arg(long = "url", value_name = "[SERVICE=]URL", help_heading = "What is put to the test")]
    urls: Vec<Service>,
    /// Connect here, whatever the URLs say
    #[arg(long, value_name = "ADDRESS", help_heading = "What is put to the test")]
    connect_to: Option<SocketAddr>,
    /// Start a sample application, so that what arrives there is counted
    #[arg(long, value_name = "SERVICE.COLOR=ADDRESS", help_heading = "What is put to the test")]
    upstream: Vec<Upstream>,
    /// Start the proxy with this command, and end it afterwards
    #[arg(long, value_name = "COMMAND", help_heading = "What is put to the test")]
    proxy: Option<String>,
    /// Flip with this command instead of the admin API; {color} and {service} are filled in, and its end is
    /// the acknowledgement. Without {service}, one call is a flip of all services
    #[arg(long, value_name = "COMMAND", help_heading = "What is done to it")]
    flip: Option<String>,
    /// Flip every service to its other color, in one call, this often. With the admin API, flips pause now and then
    /// until what the last one left behind is drained
    #[arg(long, value_name = "TIME", value_parser = parse_time, help_heading = "What is done to it")]
    flip_every: Option<Duration>,
    /// Do something meanwhile; see below
    #[arg(long, value_name = "STEP", help_heading = "What is done to it")]
    step: Vec<ScriptLine>,
    /// A file of such steps, one on each line
    #[arg(long, value_name = "FILE", help_heading = "What is done to it")]
    script: Option<PathBuf>,
    /// Requests a second, whether answers come or not; or a share of what can be done, like 50%, which is
    /// measured first, by trials for 10 to 30 s [default: 500]
    #[arg(long, value_name = "RATE", conflicts_with = "clients", help_heading = "Load")]
    rate: Option<LoadSpec>,
    /// Instead of a rate, so many clients that ask when they have their answer, streams too
    #[arg(long, value_name = "NUMBER", value_parser = count(1, 5000), help_heading = "Load")]
    clients: Option<usize>,
    /// Kinds of requests by weight: short; pair (two services, one after the other); download, upload, ws and sse, which
    /// take --stream-time; wish (of the public for a color, not to be granted) and preview (of a tester, to be
    /// granted) [default: short=80,download=5,upload=5,ws=5,sse=5; of a demo all kinds, with fewer streams]
    #[arg(long, value_name = "KIND=WEIGHT,…", help_heading = "Load")]
    mix: Option<Mix>,
    /// http1, or h2 (in the clear by prior knowledge; WebSockets go by HTTP/1.1)
    #[arg(long, value_name = "NAME", default_value = "http1", help_heading = "Load")]
    protocol: Protocol,
    /// A connection for each request instead of kept ones
    #[arg(long, help_heading = "Load")]
    fresh: bool,
    /// Trust the authorities of this PEM file instead of the system's
    #[arg(long, value_name = "FILE", help_heading = "What is put to the test")]
    ca: Option<PathBuf>,
    /// The address of this machine that the public comes from: one that the proxy takes for public
    #[arg(long, value_name = "IP", help_heading = "What is put to the test")]
    public_from: Option<IpAddr>,
    /// The address of this machine that testers come from: one that the proxy takes for internal
    #[arg(long, value_name = "IP", help_heading = "What is put to the test")]
    tester_from: Option<IpAddr>,
    /// How long the load counts
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_time, help_heading = "Time")]
    duration: Duration,
    /// How long it goes on before that
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_time, help_heading = "Time")]
    warm_up: Duration,
    /// How much of the duration has no flips, for comparison [default: a fifth, half at each end]
    #[arg(long, value_name = "TIME", value_parser = parse_time, help_heading = "Time")]
    steady: Option<Duration>,
    /// Requests at most
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..), help_heading = "Time")]
    count: Option<u64>,
    /// How long downloads, uploads, event streams and WebSockets take
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = stream_time, help_heading = "Load")]
    stream_time: Duration,
    /// Bytes of a download
    #[arg(long, value_name = "BYTES", default_value_t = 262_144, value_parser = clap::value_parser!(u64).range(..=1 << 30), help_heading = "Load")]
    download_bytes: u64,
    /// Bytes of an upload
    #[arg(long, value_name = "BYTES", default_value_t = 65_536, value_parser = clap::value_parser!(u64).range(..=1 << 30), help_heading = "Load")]
    upload_bytes: u64,
    /// Threads that ask
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = count(1, 64), help_heading = "Load")]
    threads: usize,
    /// Chooses what is random, to do it again
    #[arg(long, value_name = "NUMBER", help_heading = "Load")]
    seed: Option<u64>,
    /// Where the page with the pictures is written
    #[arg(long, value_name = "FILE", default_value = "flipgate-drill.html")]
    report: PathBuf,
    #[command(flatten)]
    admin: CallerArguments,
    /// JSON, also in a terminal
    #[arg(long)]
    json: bool,
}

impl DrillCommand {
    /// Runs the drill, writes its report, and returns the exit code. Blocks the thread.
    ///
    /// Sample applications are processes of the program `sample`, started as `PROGRAM sample …`, whose
    /// command is a [`SampleCommand`](super::SampleCommand). `flipgate` is asked for only if the drill starts a
    /// Flipgate of its own.
    ///
    /// # Errors
    ///
    /// [`CommandError`] if there was no drill, or if its report cannot be written.
    pub fn run(
        self,
        sample: Program,
        flipgate: impl FnOnce() -> Result<Program, CommandError>,
    ) -> Result<u8, CommandError> {
        let is_json = is_json(self.json);
        let path = self.report.clone();
        let options = self.options(sample, flipgate)?;
        drill(&options, &path, is_json)
    }
}

fn drill(options: &Options, path: &Path, is_json: bool) -> Result<u8, CommandError> {
    // Not after minutes of load; and a page that is there stays until there is another.
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
    // First what cannot fail.
    let mut printed = match is_json {
        true => print_line(format_args!("{:#}", report.json())),
        false => print_line(report.summary()),
    };
    std::fs::write(path, report.page()).map_err(|error| report_error(path, &error))?;
    if !is_json {
        printed = printed.and_then(|()| print_line(path.display()));
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
        "the report cannot be written to {path}: {error}\n  Say where with --report FILE."
    ))
}

fn stream_time(text: &str) -> Result<Duration, String> {
    let time = parse_time(text)?;
    if time <= Duration::from_secs(600) { Ok(time) } else { Err("10 minutes at most".to_owned()) }
}
