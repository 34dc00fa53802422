//! The tested proxy: the addresses of its services and, for a demo, its configuration.

use std::{fmt::Write, net::SocketAddr, path::PathBuf, time::Duration};

use rustls::pki_types::ServerName;
use tokio::sync::Mutex;

use super::{
    color::Color,
    connector::Connector,
    error::DrillError,
    options::{self, Mix, Options},
    processes::{Processes, free_address},
    program::Program,
    record::{Kind, Outcome},
    steps::Step,
    tls::Tls,
    traffic::{ServiceAddresses, first_color, page_time},
};

/// The services of the tested proxy, and the connectors of their clients.
#[derive(Debug)]
pub(super) struct Target {
    names: Vec<String>,
    public: Vec<Connector>,
    tester: Vec<Connector>,
    /// For how long transactions may stay on a replaced color.
    pins: Option<Duration>,
    /// Whether WebSockets may be closed after a flip.
    pub(super) has_reconnects: bool,
    /// The Flipgate of a demo.
    pub(super) demo: Option<DemoProxy>,
}

/// The Flipgate of a demo.
#[derive(Debug)]
pub(super) struct DemoProxy {
    /// Its configuration file.
    pub(super) file: PathBuf,
    /// The socket of its admin API.
    pub(super) socket: PathBuf,
    state: PathBuf,
    listen: SocketAddr,
    services: Vec<(String, [Vec<SocketAddr>; 2])>,
    /// Whether the services have a gate and a watch.
    pub(super) has_gates: bool,
    /// Whether the services have a watch, for gradual promotions.
    is_gradual: bool,
    /// For how long the services keep transactions. With that they have asset fallback, too.
    pub(super) pins: Option<Duration>,
    /// Whether the services close WebSockets after a flip.
    pub(super) has_reconnects: bool,
}

/// The timeout for the first response of a proxy that the drill started, and of one that was running before.
const START_TIMEOUT: Duration = Duration::from_secs(20);
const RUNNING_TIMEOUT: Duration = Duration::from_secs(3);

/// How much longer pins of a demo are valid than a page takes.
const PIN_RESERVE: Duration = Duration::from_secs(2);

/// The names of the services of a demo.
const NAMES: [&str; 8] = ["web", "api", "files", "events", "search", "mail", "jobs", "auth"];

impl Target {
    /// The proxy at URLs.
    pub(super) async fn from_urls(
        services: &[options::Service],
        options: &Options,
    ) -> Result<Self, DrillError> {
        let (mut names, mut public, mut tester) = (Vec::new(), Vec::new(), Vec::new());
        for service in services {
            let connector = url_connector(service, options).await?;
            names.push(service.name.clone());
            tester.push(Connector { from: options.tester_from, ..connector.clone() });
            public.push(connector);
        }
        let has_transactions = options.mix.as_ref().is_some_and(Mix::has_transactions);
        let pins = options.pin_max_age.filter(|_| has_transactions);
        let has_reconnects = options.has_reconnects;
        Ok(Self { names, public, tester, pins, has_reconnects, demo: None })
    }

    /// Starts sample applications, and writes the configuration of a Flipgate in front of them.
    pub(super) async fn demo(
        processes: &mut Processes,
        services: usize,
        endpoints: usize,
        flipgate: &Program,
        options: &Options,
    ) -> Result<Self, DrillError> {
        let listen = free_address()?;
        let names: Vec<String> = NAMES.iter().take(services).map(ToString::to_string).collect();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut pools = Vec::new();
        for (index, name) in (0_u8..).zip(&names) {
            let mut colors = [Vec::new(), Vec::new()];
            for color in Color::BOTH {
                for _ in 0..endpoints {
                    colors[color as usize].push(processes.add(index, color, any).await?);
                }
            }
            pools.push((name.clone(), colors));
        }
        let has_transactions = options.mix.as_ref().is_some_and(Mix::has_transactions);
        let max_age = options.pin_max_age.unwrap_or(page_time(options.stream_time) + PIN_RESERVE);
        let pins = has_transactions.then_some(max_age);
        let has_reconnects = options.has_reconnects || has_transactions;
        let folder = processes.folder();
        let demo = DemoProxy {
            file: folder.join("flipgate.toml"),
            socket: folder.join("admin.sock"),
            state: folder.join("state"),
            listen,
            services: pools,
            has_gates: options
                .steps
                .iter()
                .any(|it| matches!(it.step, Step::Refuse(_) | Step::Guard(..))),
            is_gradual: options.is_gradual(),
            pins,
            has_reconnects,
        };
        std::fs::write(&demo.file, configuration(&demo, false))?;
        let file = demo.file.display().to_string();
        let arguments = ["run", "--config", &file].map(str::to_owned).to_vec();
        processes.set_proxy(flipgate.clone(), arguments);
        let connector = |name: &String, from: [u8; 4]| Connector {
            address: listen,
            authority: format!("{name}.test"),
            prefix: String::new(),
            tls: None,
            protocol: options.protocol,
            from: Some(from.into()),
            is_fresh: options.is_fresh,
        };
        Ok(Self {
            public: names.iter().map(|it| connector(it, [127, 0, 0, 2])).collect(),
            tester: names.iter().map(|it| connector(it, [127, 0, 0, 1])).collect(),
            names,
            pins,
            has_reconnects,
            demo: Some(demo),
        })
    }

    /// How long transactions may stay on a replaced color, in nanoseconds. `None` if that is not known.
    pub(super) fn pin_age(&self) -> Option<u64> {
        self.pins.map(|it| u64::try_from(it.as_nanos()).unwrap_or(u64::MAX))
    }

    /// The services of which the proxy may remember transactions in memory only. In the demo, those with a header instead of
    /// a cookie.
    pub(super) fn forgetful(&self) -> Vec<u8> {
        let all = 0..u8::try_from(self.names.len()).unwrap_or(u8::MAX);
        all.filter(|it| self.demo.is_none() || carries_by_header(usize::from(*it))).collect()
    }

    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    pub(super) fn name(&self, index: u8) -> &str {
        &self.names[usize::from(index)]
    }

    /// The index of a service. Steps have only names that exist.
    pub(super) fn index(&self, name: &str) -> u8 {
        let index = self.names.iter().position(|it| it == name).unwrap_or_default();
        u8::try_from(index).unwrap_or_default()
    }

    pub(super) fn indices(&self) -> impl Iterator<Item = u8> + use<> {
        0..u8::try_from(self.names.len()).unwrap_or(u8::MAX)
    }

    /// The connectors of all services, for the clients of one thread.
    pub(super) fn addresses(&self) -> Vec<ServiceAddresses> {
        let connectors = self.public.iter().cloned().zip(self.tester.iter().cloned());
        connectors.map(|(public, tester)| ServiceAddresses::new(public, tester)).collect()
    }

    /// Waits until each service answers a public client, and returns the colors of the responses.
    pub(super) async fn wait_until_serving(
        &self,
        processes: &Mutex<Processes>,
    ) -> Result<Vec<Color>, DrillError> {
        let mut colors = Vec::new();
        for (name, connector) in self.names.iter().zip(&self.public) {
            let is_ours = {
                let processes = processes.lock().await;
                processes.has_proxy() || processes.has_apps()
            };
            let until =
                tokio::time::Instant::now() + if is_ours { START_TIMEOUT } else { RUNNING_TIMEOUT };
            loop {
                let outcome = match first_color(connector).await {
                    Ok(color) => {
                        colors.push(color);
                        break;
                    }
                    Err(outcome) => outcome,
                };
                if let Some(ended) = processes.lock().await.take_proxy_exit() {
                    return Err(DrillError::Process(ended));
                }
                if tokio::time::Instant::now() > until {
                    let why =
                        connector.connect_error().await.unwrap_or_else(|| outcome.to_string());
                    let processes = processes.lock().await;
                    let (sample, log) = (processes.sample_command(), processes.proxy_log());
                    return Err(no_response(name, connector, outcome, &why, &sample, &log));
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(colors)
    }
}

fn no_response(
    name: &str,
    connector: &Connector,
    outcome: Outcome,
    why: &str,
    sample: &str,
    log: &str,
) -> DrillError {
    let Connector { address, authority, prefix, .. } = connector;
    let mut text = format!(
        "no response of {name} at {address} ({authority}{prefix}/traffic/{}): {why}",
        Kind::Short.name()
    );
    if outcome == Outcome::UnknownResponder {
        let _ = write!(
            text,
            "\n  The drill needs sample applications behind the proxy: start them with `{sample}`, or let the drill \
             start them with --upstream",
        );
    }
    if !log.is_empty() {
        let _ = write!(text, "\n  The last output of the proxy:\n{log}");
    }
    DrillError::Target(text)
}

async fn url_connector(
    service: &options::Service,
    options: &Options,
) -> Result<Connector, DrillError> {
    let options::Service { name, url } = service;
    let wrong = |what: &str| DrillError::Target(format!("{name}: {url}: {what}"));
    let authority = url.authority().ok_or_else(|| wrong("has no host"))?;
    let is_tls = url.scheme_str() == Some("https");
    let port = authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let address = match options.connect_to {
        Some(address) => address,
        None => {
            let found = tokio::net::lookup_host((host, port)).await;
            let mut found = found.map_err(|error| wrong(&error.to_string()))?;
            found.next().ok_or_else(|| wrong("has no address"))?
        }
    };
    let tls = match is_tls {
        false => None,
        true => {
            let tls = Tls::new(options.authorities.as_deref()).map_err(DrillError::Usage)?;
            let server =
                ServerName::try_from(host.to_owned()).map_err(|_| wrong("is not a valid name"))?;
            Some((server, tls))
        }
    };
    Ok(Connector {
        address,
        authority: authority.to_string(),
        prefix: url.path().trim_end_matches('/').to_owned(),
        tls,
        protocol: options.protocol,
        from: options.public_from,
        is_fresh: options.is_fresh,
    })
}

/// The configuration of a demo. Two versions of it, with different limits of bodies, alternate at reloads.
pub(super) fn configuration(demo: &DemoProxy, is_changed: bool) -> String {
    let DemoProxy {
        file: _,
        socket,
        state,
        listen,
        services,
        has_gates,
        is_gradual,
        pins,
        has_reconnects,
    } = demo;
    let mut text = format!(
        "state_dir = {:?}\nshutdown.patience = \"5s\"\nclients.internal = [\"127.0.0.1/32\"]\n\
         [log]\nlevel = \"warn\"\n[admin]\nlisten = {:?}\n[[listener]]\nlisten = \"{listen}\"\n",
        state.display().to_string(),
        format!("unix:{}", socket.display()),
    );
    for (index, (name, [blue, green])) in services.iter().enumerate() {
        let list = |endpoints: &[SocketAddr]| {
            endpoints.iter().map(|it| format!("\"{it}\"")).collect::<Vec<_>>().join(", ")
        };
        let body = if is_changed { "2GiB" } else { "1GiB" };
        let _ = write!(
            text,
            "[service.{name}]\nhosts = [\"{name}.test\"]\nmax_body = \"{body}\"\n\
             blue = {{ version = \"1\", endpoints = [{}] }}\n\
             green = {{ version = \"2\", endpoints = [{}] }}\n",
            list(blue),
            list(green),
        );
        if *has_gates || *is_gradual {
            // All public clients of the drill have one address.
            text.push_str("watch = { for = \"10m\", clients = 1 }\n");
        }
        if *has_gates {
            text.push_str("gate.smoke = [{ path = \"/whoami\" }]\n");
        }
        if let Some(max_age) = pins {
            let millis = max_age.as_millis();
            // Every second service recognizes scans by their number. Pages have none, so they need the fallback there.
            let carry = if carries_by_header(index) { "header:X-Scan-Id" } else { "cookie" };
            let _ = write!(
                text,
                "pin = {{ start = [\"document\", \"header:X-Scan-Id\"], carry = \"{carry}\", max_age = \"{millis}ms\" }}\n\
                 assets = {{ prefixes = [\"/traffic/asset\"] }}\n",
            );
        }
        if *has_reconnects {
            text.push_str(
                "drain.websocket = { patience = \"200ms\", spread = \"300ms\", close = 1012 }\n",
            );
        }
    }
    text
}
/// Whether the transactions of a service of the demo are carried by a header of the client.
fn carries_by_header(index: usize) -> bool {
    index % 2 == 1
}
