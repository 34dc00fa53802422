//! `drill`.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;

use super::{Admin, Failure, Output, count, exit};
use flipgate_drill::{
    Control, DrillError, Kind, Line, Mix, Options, Pace, Protocol, Report, Service, Speed, Step,
    SubjectOptions, Upstream, When, parse_time, run,
};
pub(super) const EXAMPLES: &str = "\
Examples:
  flipgate drill --demo --duration 30s --flip-every 100ms
  flipgate drill --demo --services 2 --endpoints 2 --script chaos.drill --rate 50%
  flipgate drill --url https://shop.test --connect-to 10.0.0.1:443 --admin unix:/run/flipgate.sock
  flipgate drill --url http://127.0.0.1:8080 --upstream web.blue=127.0.0.1:9001 \\
      --upstream web.green=127.0.0.1:9002 --flip './switch-nginx {color}' --flip-every 2s

Steps (--step, or lines of --script), from when the load counts:
  every 200ms flip [SERVICE…]           at 5s promote web=green api=green
  at 6s rollback [SERVICE…]             at 7s replace web.green
  at 8s kill web.green.1                at 9s start web.green.1
  at 10s reload                         at 12s kill|start|restart proxy

Exit code: 0 only if every promise held, 1 if one was broken or there was no drill, 2 for mistakes above";

/// Requests a second, if nobody said how many.
const RATE: f64 = 500.0;

/// What to put to the test, and how.
#[derive(Args, Clone, Debug)]
pub(super) struct DrillArguments {
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
    /// Flip every service to its other color, in one call, this often
    #[arg(long, value_name = "TIME", value_parser = parse_time, help_heading = "What is done to it")]
    flip_every: Option<Duration>,
    /// Do something meanwhile; see below
    #[arg(long, value_name = "STEP", help_heading = "What is done to it")]
    step: Vec<Line>,
    /// A file of such steps, one on each line
    #[arg(long, value_name = "FILE", help_heading = "What is done to it")]
    script: Option<PathBuf>,
    /// Requests a second, whether answers come or not; or a share of what can be done, like 50%, which is
    /// measured first, by trials for 10 to 30 s [default: 500]
    #[arg(long, value_name = "RATE", conflicts_with = "clients", help_heading = "Load")]
    rate: Option<Speed>,
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
}

pub(super) fn drill(
    arguments: DrillArguments,
    admin: &Admin,
    output: Output,
) -> Result<u8, Failure> {
    let path = arguments.report.clone();
    let options = options(arguments, admin, output)?;
    // Not after minutes of load; and a page that is there stays until there is another.
    let was_there = path.exists();
    let opened = std::fs::File::options().append(true).create(true).open(&path);
    opened.map_err(|error| unwritable(&path, &error))?;
    let report = run(&options).map_err(|error| {
        let failure = Failure::new(error.to_string());
        match error {
            DrillError::Usage(_) => failure.with_code(exit::USAGE),
            _ => failure,
        }
    });
    let report: Report = match report {
        Ok(report) => report,
        Err(failure) => {
            if !was_there {
                let _ = std::fs::remove_file(&path);
            }
            return Err(failure);
        }
    };
    // First what cannot fail.
    if output.is_json() {
        anstream::println!("{:#}", report.json());
    } else {
        anstream::println!("{}", report.summary());
    }
    std::fs::write(&path, report.page()).map_err(|error| unwritable(&path, &error))?;
    if !output.is_json() {
        anstream::println!("{}", path.display());
    }
    Ok(u8::from(!report.is_clean()))
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    let path = path.display();
    Failure::new(format!(
        "the report cannot be written to {path}: {error}\n  Say where with --report FILE."
    ))
}

fn options(arguments: DrillArguments, admin: &Admin, output: Output) -> Result<Options, Failure> {
    let DrillArguments {
        demo,
        services,
        endpoints,
        urls,
        connect_to,
        upstream,
        proxy,
        flip,
        flip_every,
        step,
        script,
        rate,
        clients,
        mix,
        protocol,
        fresh,
        ca,
        public_from,
        tester_from,
        duration,
        warm_up,
        steady,
        count,
        stream_time,
        download_bytes,
        upload_bytes,
        threads,
        seed,
        report: _,
    } = arguments;
    let usage = |text: String| Failure::new(text).with_code(exit::USAGE);
    let mut steps = step;
    if let Some(path) = script {
        let text = std::fs::read_to_string(&path)
            .map_err(|error| usage(format!("cannot read {}: {error}", path.display())))?;
        let lines = Line::parse_all(&text);
        steps.extend(lines.map_err(|error| usage(format!("{}: {error}", path.display())))?);
    }
    steps.extend(
        flip_every.map(|every| Line { when: When::Every(every), step: Step::Flip(Vec::new()) }),
    );
    if duration.is_zero() || flip_every.is_some_and(|it| it.is_zero()) {
        return Err(usage(
            "a duration and the time between flips are more than nothing".to_owned(),
        ));
    }
    for (at, one) in urls.iter().enumerate() {
        if urls[..at].iter().any(|it| it.name == one.name) {
            return Err(usage(format!(
                "{} is there twice: name each service, like api=URL",
                one.name
            )));
        }
    }
    if flip.as_ref().is_some_and(|it| !it.contains("{color}")) {
        return Err(usage(
            "--flip: the command needs {color} in it, and {service} if it is of one".to_owned(),
        ));
    }
    let has = |kind| mix.as_ref().is_some_and(|it| it.has(kind));
    if !demo && has(Kind::Wish) && public_from.is_none() {
        let text = "a wish is one of the public: say by --public-from which address of this machine the proxy takes \
                    for that";
        return Err(usage(text.to_owned()));
    }
    if !demo && has(Kind::Preview) && tester_from.is_none() {
        let text = "a preview is a tester's: say by --tester-from which address of this machine the proxy takes for \
                    internal";
        return Err(usage(text.to_owned()));
    }
    let is_flipped = steps.iter().any(|it| !matches!(it.step, Step::Process(..)));
    let control = match flip {
        Some(command) => Control::Command(command),
        None if demo || !is_flipped => Control::Nobody,
        None => Control::Admin(admin.caller()?),
    };
    Ok(Options {
        subject: match demo {
            true => SubjectOptions::Demo { services, endpoints },
            false => SubjectOptions::Given(urls),
        },
        control,
        upstreams: upstream,
        proxy,
        pace: match (rate, clients) {
            (Some(rate), _) => rate,
            (None, Some(clients)) => Speed::Pace(Pace::Clients(clients)),
            (None, None) => Speed::Pace(Pace::Rate(RATE)),
        },
        mix,
        protocol,
        is_fresh: fresh,
        threads,
        authorities: ca,
        connect_to,
        public_from,
        tester_from,
        warm_up,
        duration,
        steady,
        count,
        stream_time,
        download_bytes,
        upload_bytes,
        steps,
        // As many bits as a number in JSON keeps.
        seed: seed.unwrap_or_else(|| fastrand::u64(..1 << 53)),
        is_quiet: output.json,
    })
}

fn stream_time(text: &str) -> Result<Duration, String> {
    let time = parse_time(text)?;
    if time <= Duration::from_secs(600) { Ok(time) } else { Err("10 minutes at most".to_owned()) }
}
