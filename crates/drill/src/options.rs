//! What a drill is told to do.

use std::{net::IpAddr, net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use flipgate_api::Caller;
use http::Uri;

use super::{program::Program, record::Kind, steps::ScriptLine};
use crate::{color::Color, protocol::Protocol};

/// What a drill is told to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// What is put to the test.
    pub target: TargetOptions,
    /// How colors are flipped.
    pub control: Control,
    /// Runs the sample application by `PROGRAM sample …`, as a
    /// [`SampleCommand`](crate::command::SampleCommand).
    pub sample: Program,
    /// Sample applications that the drill starts.
    pub upstreams: Vec<Upstream>,
    /// A command that is the proxy, started and ended by the drill.
    pub proxy: Option<String>,
    /// How often who asks.
    pub load: LoadSpec,
    /// What is asked for.
    pub mix: Option<Mix>,
    /// How the proxy is spoken to.
    pub protocol: Protocol,
    /// Whether each request has a connection of its own.
    pub is_fresh: bool,
    /// Threads that ask.
    pub threads: usize,
    /// Certificates of the authorities to trust instead of the system's: a PEM file.
    pub authorities: Option<PathBuf>,
    /// Where connections go, whatever the URLs say.
    pub connect_to: Option<SocketAddr>,
    /// The address that the public comes from.
    pub public_from: Option<IpAddr>,
    /// The address that testers come from.
    pub tester_from: Option<IpAddr>,
    /// How long the load goes on before it counts.
    pub warm_up: Duration,
    /// How long it counts.
    pub duration: Duration,
    /// How much of that has no flips, for comparison: half at the beginning and half at the end.
    pub steady: Option<Duration>,
    /// Requests at most.
    pub count: Option<u64>,
    /// How long streams, downloads and uploads take.
    pub stream_time: Duration,
    /// Bytes of a download.
    pub download_bytes: u64,
    /// Bytes of an upload.
    pub upload_bytes: u64,
    /// What is done meanwhile.
    pub steps: Vec<ScriptLine>,
    /// Chooses among what is random.
    pub seed: u64,
    /// Whether nothing is said but the JSON.
    pub is_quiet: bool,
}

/// What is put to the test.
#[derive(Clone, Debug)]
pub enum TargetOptions {
    /// What listens at URLs.
    Urls(Vec<Service>),
    /// A Flipgate of our own, as a process, in front of sample applications.
    Demo {
        /// How many services; 1 to 8.
        services: usize,
        /// How many endpoints each color of them has; 1 to 8.
        endpoints: usize,
        /// The Flipgate: its command `run` is the proxy.
        flipgate: Program,
    },
}

/// A service and where it is.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Its address; a path in it stands in front of every path.
    pub url: Uri,
}

/// How colors are flipped.
#[derive(Clone, Debug)]
pub enum Control {
    /// By Flipgate's admin API.
    Admin(Caller),
    /// By a command, with `{service}` and `{color}` in it.
    Command(String),
    /// Not at all.
    None,
}

/// A sample application that the drill starts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Upstream {
    /// Of which service.
    pub service: String,
    /// Of which color.
    pub color: Color,
    /// Where it listens.
    pub address: SocketAddr,
}

/// How often who asks, as it is written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LoadSpec {
    /// So.
    Fixed(LoadMode),
    /// At a share of what can be done at most, which is measured first.
    Share(f64),
}

/// How often who asks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LoadMode {
    /// So many requests a second, whatever the answers do.
    Rate(f64),
    /// So many clients, each of which asks when it has its answer.
    Clients(usize),
}

/// What is asked for, by weight.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mix(Vec<(Kind, u32)>);

/// Requests a second at most.
const RATE_MAX: f64 = 1e6;

// === impl Mix ===

impl Mix {
    /// One kind alone.
    #[must_use]
    pub fn only(kind: Kind) -> Self {
        Self(vec![(kind, 1)])
    }

    /// What a mix is if nobody said.
    #[must_use]
    pub fn default_mix() -> Self {
        use Kind::{Download, Short, Sse, Upload, Ws};
        Self(vec![(Short, 80), (Download, 5), (Upload, 5), (Ws, 5), (Sse, 5)])
    }

    /// The same of a Flipgate whose networks are known: with wishes of the public and of testers, and
    /// with pairs where there are several services.
    #[must_use]
    pub fn demo_default(services: usize) -> Self {
        use Kind::{Download, Pair, Preview, RefusedPreview, Short, Sse, Upload, Ws};
        let short = if services > 1 { [(Short, 66), (Pair, 20)] } else { [(Short, 86), (Pair, 0)] };
        let others =
            [(Download, 2), (Upload, 2), (Ws, 2), (Sse, 2), (RefusedPreview, 3), (Preview, 3)];
        Self(short.into_iter().chain(others).collect())
    }

    /// One of them, as often as its weight says.
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

    /// Whether there is any of a kind.
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
                    "`{part}`: write KIND=WEIGHT, like short=80,ws=5; the kinds are {}",
                    names()
                )
            })?;
            let kind = Kind::ALL.into_iter().find(|it| it.name() == name.trim());
            let kind = kind.ok_or_else(|| format!("there is no kind `{name}`, but {}", names()))?;
            let weight = weight.trim().parse().ok().filter(|it| *it <= 1_000_000);
            let weight =
                weight.ok_or_else(|| format!("the weight of {name} is a number up to 1000000"))?;
            if mix.iter().any(|(it, _)| *it == kind) {
                return Err(format!("{name} is there twice"));
            }
            mix.push((kind, weight));
        }
        if mix.iter().all(|(_, weight)| *weight == 0) {
            return Err("nothing is left to ask for: all weights are 0".to_owned());
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

// === impl LoadSpec ===

impl FromStr for LoadSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            "write requests a second, like 500, or a share of what can be done, like 50%".to_owned()
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

    /// `[NAME=]URL`; without a name it is `web`.
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
            "write SERVICE.COLOR=ADDRESS:PORT, like web.blue=127.0.0.1:9001".to_owned()
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
