//! The options of a drill.

use std::{net::IpAddr, net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use flipgate_api::Caller;
use http::Uri;

use super::{
    program::Program,
    record::Kind,
    steps::{ScriptLine, Step},
};
use crate::{color::Color, protocol::Protocol};

/// The options of a drill.
#[derive(Clone, Debug)]
pub struct Options {
    /// The tested proxy.
    pub target: TargetOptions,
    /// How the drill flips colors.
    pub control: Control,
    /// The program of the sample application, started as `PROGRAM sample …` (see
    /// [`SampleCommand`](crate::command::SampleCommand)).
    pub sample: Program,
    /// Sample applications that the drill starts.
    pub upstreams: Vec<Upstream>,
    /// The command that starts the proxy.
    pub proxy: Option<String>,
    /// The rate, or the number of clients.
    pub load: LoadSpec,
    /// The kinds of requests.
    pub mix: Option<Mix>,
    /// For how long the proxy keeps transactions on a replaced color.
    pub pin_max_age: Option<Duration>,
    /// Whether the proxy may close WebSockets after a flip, so that their clients connect again.
    pub has_reconnects: bool,
    /// The version of HTTP.
    pub protocol: Protocol,
    /// Whether each request opens a new connection.
    pub is_fresh: bool,
    /// Threads that send requests.
    pub threads: usize,
    /// A PEM file with the certificate authorities to trust instead of the system's.
    pub authorities: Option<PathBuf>,
    /// The address to connect to instead of the hosts of the URLs.
    pub connect_to: Option<SocketAddr>,
    /// The source address of public clients.
    pub public_from: Option<IpAddr>,
    /// The source address of testers.
    pub tester_from: Option<IpAddr>,
    /// The duration of the load before it is measured.
    pub warm_up: Duration,
    /// The duration of the measured load.
    pub duration: Duration,
    /// The part of the duration without repeated flips: half at the beginning and half at the end.
    pub steady: Option<Duration>,
    /// The largest number of requests.
    pub count: Option<u64>,
    /// The duration of streams, downloads and uploads.
    pub stream_time: Duration,
    /// The size of a download.
    pub download_bytes: u64,
    /// The size of an upload.
    pub upload_bytes: u64,
    /// The steps during the load.
    pub steps: Vec<ScriptLine>,
    /// The seed of all random choices.
    pub seed: u64,
    /// Whether a drill without flips is complete.
    pub is_without_flips: bool,
    /// The command line, for the report.
    pub command: String,
    /// Whether to show no progress.
    pub is_quiet: bool,
}

/// The tested proxy.
#[derive(Clone, Debug)]
pub enum TargetOptions {
    /// A running proxy with these services.
    Urls(Vec<Service>),
    /// A Flipgate and sample applications that the drill starts as processes.
    Demo {
        /// The number of services, 1 to 8.
        services: usize,
        /// The number of endpoints of each color, 1 to 8.
        endpoints: usize,
        /// The program, started as `PROGRAM run …`.
        flipgate: Program,
    },
}

/// A service and its URL.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Its URL. A path in it is the prefix of every path.
    pub url: Uri,
}

/// How the drill flips colors.
#[derive(Clone, Debug)]
pub enum Control {
    /// With Flipgate's admin API.
    Admin(Caller),
    /// With a command that has `{service}` and `{color}` in it.
    Command(String),
    /// Not at all, or not known yet.
    None,
}

/// A sample application that the drill starts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Upstream {
    /// The name of its service.
    pub service: String,
    /// Its color.
    pub color: Color,
    /// Its address.
    pub address: SocketAddr,
}

/// The load as an option.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LoadSpec {
    /// A rate or a number of clients.
    Fixed(LoadMode),
    /// A share of the highest possible rate, which the drill measures first.
    Share(f64),
}

/// How the load is generated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LoadMode {
    /// Requests per second, at even intervals (open loop).
    Rate(f64),
    /// Clients that send the next request after each response (closed loop).
    Clients(usize),
}

/// Kinds of requests with their weights.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mix(Vec<(Kind, u32)>);

/// The highest rate, in requests per second.
const RATE_MAX: f64 = 1e6;

// === impl Mix ===

impl Mix {
    /// A mix of one kind.
    #[must_use]
    pub fn only(kind: Kind) -> Self {
        Self(vec![(kind, 1)])
    }

    /// The default mix.
    #[must_use]
    pub fn default_mix() -> Self {
        use Kind::{Download, Short, Sse, Upload, Ws};
        Self(vec![(Short, 80), (Download, 5), (Upload, 5), (Ws, 5), (Sse, 5)])
    }

    /// The default mix of a demo, in which the drill knows the internal networks: with both kinds of previews, and with
    /// pairs if there are several services.
    #[must_use]
    pub fn demo_default(services: usize) -> Self {
        use Kind::{Download, Pair, Preview, RefusedPreview, Short, Sse, Upload, Ws};
        let short = if services > 1 { [(Short, 66), (Pair, 20)] } else { [(Short, 86), (Pair, 0)] };
        let others =
            [(Download, 2), (Upload, 2), (Ws, 2), (Sse, 2), (RefusedPreview, 3), (Preview, 3)];
        Self(short.into_iter().chain(others).collect())
    }

    /// With clients that keep cookies, for gradual promotions.
    pub(super) fn with_visitors(mut self) -> Self {
        self.0.push((Kind::Visitor, 10));
        self
    }

    /// A random kind, by weight.
    pub(super) fn choose(&self, random: &mut fastrand::Rng) -> Kind {
        let all: u32 = self.0.iter().map(|(_, weight)| weight).sum();
        let mut index = random.u32(..all);
        for (kind, weight) in &self.0 {
            if index < *weight {
                return *kind;
            }
            index -= weight;
        }
        unreachable!("a place is below the sum of the weights")
    }

    /// Whether it has transactions, for which the services of a demo have pins.
    #[must_use]
    pub fn has_transactions(&self) -> bool {
        Kind::ALL.into_iter().any(|it| it.is_transaction() && self.has(it))
    }

    /// Whether some of its clients keep cookies.
    #[must_use]
    pub fn has_cookies(&self) -> bool {
        Kind::ALL.into_iter().any(|it| it.keeps_cookies() && self.has(it))
    }

    /// Whether it has a kind.
    #[must_use]
    pub fn has(&self, kind: Kind) -> bool {
        self.0.iter().any(|(it, weight)| *it == kind && *weight > 0)
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = || Kind::ALL.map(Kind::name).join(", ");
        let mut mix = Vec::new();
        for part in text.split(',') {
            let (name, weight) = part.split_once('=').ok_or_else(|| {
                format!(
                    "`{part}`: write KIND=WEIGHT, such as short=80,ws=5; the kinds are {}",
                    names()
                )
            })?;
            let kind = Kind::ALL.into_iter().find(|it| it.name() == name.trim());
            let kind = kind
                .ok_or_else(|| format!("there is no kind `{name}`; the kinds are {}", names()))?;
            let weight = weight.trim().parse().ok().filter(|it| *it <= 1_000_000);
            let weight = weight
                .ok_or_else(|| format!("the weight of {name} is not a number from 0 to 1000000"))?;
            if mix.iter().any(|(it, _)| *it == kind) {
                return Err(format!("{name} is there twice"));
            }
            mix.push((kind, weight));
        }
        if mix.iter().all(|(_, weight)| *weight == 0) {
            return Err("all weights are 0; write at least one larger weight".to_owned());
        }
        Ok(Self(mix))
    }
}

impl std::fmt::Display for Mix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts = self.0.iter().filter(|(_, weight)| *weight > 0);
        let parts: Vec<_> =
            parts.map(|(kind, weight)| format!("{}={weight}", kind.name())).collect();
        write!(f, "{}", parts.join(","))
    }
}

// === impl Options ===

impl Options {
    /// Whether a step promotes a color gradually.
    pub(super) fn is_gradual(&self) -> bool {
        self.steps.iter().any(|it| matches!(it.step, Step::Gradual(..)))
    }
}

// === impl LoadSpec ===

impl FromStr for LoadSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            "write requests per second, such as 500, or a share of the highest possible rate, such as 50%".to_owned()
        };
        if let Some(share) = text.strip_suffix('%') {
            let share = share.parse::<f64>().ok().filter(|it| (1.0..=100.0).contains(it));
            return share.map(|it| Self::Share(it / 100.0)).ok_or_else(wrong);
        }
        let rate = text.parse::<f64>().ok().filter(|it| *it > 0.0 && *it <= RATE_MAX);
        rate.map(|it| Self::Fixed(LoadMode::Rate(it))).ok_or_else(wrong)
    }
}

// === impl Service ===

impl FromStr for Service {
    type Err = String;

    /// `[NAME=]URL`. The default name is `web`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "write http://HOST:PORT or NAME=https://HOST:PORT".to_owned();
        let (name, url) = match text.split_once('=') {
            Some((name, url)) if !name.contains("://") => (name, url),
            _ => ("web", text),
        };
        let url = url.parse::<Uri>().map_err(|_| wrong())?;
        let is_known = matches!(url.scheme_str(), Some("http" | "https"));
        if name.is_empty() || !is_known || url.authority().is_none() || url.query().is_some() {
            return Err(wrong());
        }
        Ok(Self { name: name.to_owned(), url })
    }
}

// === impl Upstream ===

impl FromStr for Upstream {
    type Err = String;

    /// `SERVICE.COLOR=HOST:PORT`
    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = || {
            let (pool, address) = text.split_once('=')?;
            let (service, color) = pool.rsplit_once('.')?;
            let address: SocketAddr = address.parse().ok()?;
            let color = color.parse().ok()?;
            (!service.is_empty() && address.port() != 0).then(|| Self {
                service: service.to_owned(),
                color,
                address,
            })
        };
        parsed().ok_or_else(|| {
            "write SERVICE.COLOR=ADDRESS:PORT, such as web.blue=127.0.0.1:9001".to_owned()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_is_kinds_with_weights_and_its_errors_say_what_is_wrong() {
        let mix: Mix = "short=80, ws=20".parse().expect("a mix");
        assert_eq!(mix.to_string(), "short=80,ws=20");
        let mut random = fastrand::Rng::with_seed(1);
        let sockets = (0..10_000).filter(|_| mix.choose(&mut random) == Kind::Ws).count();
        assert!((1800..2200).contains(&sockets), "{sockets}");
        for (bad, why) in [
            ("", "write KIND=WEIGHT"),
            ("short", "write KIND=WEIGHT"),
            ("long=1", "there is no kind `long`"),
            ("short=x", "the weight of short"),
            ("short=1,short=2", "twice"),
            ("short=0", "all weights are 0"),
        ] {
            let error = bad.parse::<Mix>().expect_err(bad);
            assert!(error.contains(why), "{bad}: {error}");
        }
    }

    #[test]
    fn a_load_is_a_rate_or_a_share_of_the_capacity() {
        assert_eq!("500".parse(), Ok(LoadSpec::Fixed(LoadMode::Rate(500.0))));
        assert_eq!("50%".parse(), Ok(LoadSpec::Share(0.5)));
        for bad in ["", "0", "-1", "0%", "101%", "nan", "inf", "1e9"] {
            assert!(bad.parse::<LoadSpec>().is_err(), "{bad}");
        }
    }

    #[test]
    fn services_and_upstreams_have_names() {
        let service: Service = "api=https://a.test:8443/x".parse().expect("a service");
        assert_eq!((service.name.as_str(), service.url.path()), ("api", "/x"));
        let service: Service = "http://a.test".parse().expect("a service");
        assert_eq!(service.name, "web");
        for bad in ["", "a.test", "ftp://a.test", "=http://a", "http://a/?x=1", "http:///"] {
            assert!(bad.parse::<Service>().is_err(), "{bad}");
        }
        let upstream: Upstream = "web.blue=127.0.0.1:9001".parse().expect("an upstream");
        assert_eq!((upstream.service.as_str(), upstream.color), ("web", Color::Blue));
        for bad in ["", "web=1.1.1.1:1", "web.red=1.1.1.1:1", "web.blue=x", ".blue=1.1.1.1:1"] {
            assert!(bad.parse::<Upstream>().is_err(), "{bad}");
        }
    }
}
