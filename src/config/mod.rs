//! The configuration file, made into each room's own checked settings.
//!
//! Every mistake that can be found before anything is started is found here, all of them at once, with file, line
//! and key.

mod assets;
mod diagnostics;
mod environment;
mod errors;
mod files;
mod gates;
mod hold;
mod listeners;
mod pins;
mod policy;
mod reader;
mod requests;
mod rollout_stages;
mod rollouts;
mod schema;
mod services;
mod settings;
mod shadow;
mod share;
mod source;
mod streams;
mod version_signal;
mod watch;

use std::{
    fmt, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use tracing::warn;

use self::{diagnostics::Diagnostics, reader::Section, source::Sources};
pub use self::{
    diagnostics::{Diagnostic, Severity},
    environment::Environment,
    schema::schema,
};
use crate::{
    admin,
    audit::AuditSettings,
    care,
    control::Catalog,
    downstream::{self, Listener, Timeouts},
    model::{OwnAddress, OwnAddressKind, OwnAddresses},
    net::is_local,
    proxy,
    rollout::RolloutSettings,
    upstream,
};

/// A checked configuration.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Config {
    /// Where the state is kept.
    pub state_dir: PathBuf,
    /// How large the audit files may become.
    pub audit: AuditSettings,
    /// Worker threads; 0 for one per core.
    pub workers: usize,
    /// What is logged.
    pub log: LogSettings,
    /// The admin API.
    pub admin: admin::AdminSettings,
    /// Where clients come in.
    pub listeners: Vec<Listener>,
    /// Services, and who may see what.
    pub catalog: Catalog,
    /// How long clients may take.
    pub timeouts: Timeouts,
    /// Open connections of clients, of all workers.
    pub connections_max: usize,
    /// Those of one client address.
    pub connections_per_client: ConnectionsPerClient,
    /// What one connection may do.
    pub connection: downstream::ConnectionLimits,
    /// Bytes that a body has to move by while something is waited for as long as that may be.
    pub least_progress: u64,
    /// How messages are passed on.
    pub forwarding: proxy::Forwarding,
    /// How connections to endpoints are opened and kept, of each worker.
    pub upstream: upstream::ConnectionSettings,
    /// Requests at once, of all workers.
    pub in_flight_max: usize,
    /// How much health checking there may be.
    pub care: care::CareSettings,
    /// How endpoints that are names are looked up.
    pub names: upstream::ResolverSettings,
    /// The time between the signal to stop, when `/readyz` turns 503, and the close of the listeners.
    pub shutdown_delay: Duration,
    /// How long requests may take to end then.
    pub shutdown_patience: Duration,
    /// The plans of deployments.
    pub rollouts: RolloutSettings,
}

/// How many connections one client address may have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ConnectionsPerClient {
    /// A quarter of all, but some in any case.
    Auto,
    /// So many.
    AtMost(usize),
}

/// As many as people behind one address and their tools need, where there are few for all.
const PER_CLIENT_MIN: usize = 128;

/// What is logged, and how.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LogSettings {
    /// A level, or directives for single rooms, as `tracing` reads them.
    pub filter: String,
    /// JSON or text; by default text in a terminal and JSON elsewhere.
    pub json: Option<bool>,
}

/// A configuration file, and the environment variables that it may refer to.
#[derive(Clone, Debug)]
pub struct ConfigSource {
    /// The main file.
    pub path: PathBuf,
    /// The environment variables.
    pub environment: Environment,
}

/// A configuration that was read and has no errors.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What is probably not as it was meant.
    pub warnings: Vec<Diagnostic>,
    /// The files that it was read from: the main file, and those that it includes.
    pub files: usize,
}

/// A configuration that cannot be used. Nothing was started or changed.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The main file cannot be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The configuration has errors. Warnings are in the list, too.
    #[error("{}", DiagnosticList(.0))]
    Invalid(Vec<Diagnostic>),
}

struct DiagnosticList<'a>(&'a [Diagnostic]);

// === impl ConnectionsPerClient ===

impl ConnectionsPerClient {
    /// How many of so many that there may be.
    #[must_use]
    pub fn of(self, connections: usize) -> usize {
        match self {
            Self::Auto => (connections / 4).max(PER_CLIENT_MIN),
            Self::AtMost(count) => count,
        }
    }
}

// === impl Loaded ===

impl Loaded {
    /// Logs the warnings.
    pub fn log_warnings(&self) {
        for Diagnostic { severity: _, file, line, column: _, key, message, help } in &self.warnings
        {
            let help = help.as_deref().unwrap_or_default();
            warn!(file, line, key, help, "configuration: {message}");
        }
    }
}

// === impl ConfigSource ===

impl ConfigSource {
    /// Reads and checks the configuration.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], with all errors of the configuration.
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        let unreadable = |source| ConfigError::Unreadable { path: self.path.clone(), source };
        let sources = Sources::read(&self.path).map_err(unreadable)?;
        self.check_files(&sources).map_err(ConfigError::Invalid)
    }

    /// Checks a configuration with this text in place of the main file's.
    ///
    /// # Errors
    ///
    /// All errors of the configuration.
    pub fn check(&self, text: String) -> Result<Loaded, Vec<Diagnostic>> {
        self.check_files(&Sources::with(&self.path, text))
    }

    fn check_files(&self, sources: &Sources) -> Result<Loaded, Vec<Diagnostic>> {
        let diagnostics = Diagnostics::new(&sources.files);
        let table = sources.parse(&self.environment, &diagnostics);
        let read =
            |it| Config::read(&Section::root(it, &diagnostics), &diagnostics, &self.environment);
        match (table.as_ref().and_then(read), diagnostics.has_errors()) {
            (Some(config), false) => {
                let warnings = diagnostics.into_sorted();
                Ok(Loaded { config, warnings, files: sources.files.len() })
            }
            _ => Err(diagnostics.into_sorted()),
        }
    }
}

// === impl Config ===

impl Config {
    /// Checks the text of a configuration without environment variables. `path` is the file's name in errors, and
    /// relative paths are relative to it.
    ///
    /// # Errors
    ///
    /// All errors of the text.
    pub fn parse(path: &Path, text: &str) -> Result<Self, Vec<Diagnostic>> {
        let source = ConfigSource { path: path.to_owned(), environment: Environment::default() };
        source.check(text.to_owned()).map(|it| it.config)
    }

    fn read(
        root: &Section<'_>,
        diagnostics: &Diagnostics<'_>,
        environment: &Environment,
    ) -> Option<Self> {
        // A known key; it was followed when the files were read.
        root.list("include", Vec::new(), |_| Ok(()));
        let state_dir = root.read("state_dir", diagnostics.folder(0).join("state"), settings::path);
        let audit = settings::audit(&root.section("audit"));
        let workers = root.read("workers", 0, |it| reader::whole(it, 0..=1024));
        let log = settings::log(&root.section("log"));
        let admin = settings::admin(&root.section("admin"));
        let listeners = listeners::listeners(root);
        if let admin::AdminAddress::Tcp(address) = &admin.listen
            && address.port() != 0
            && listeners.iter().any(|it| it.address == *address)
        {
            root.section("admin").note("listen", "a listener has this address");
        }
        let clients = settings::clients(&root.section("clients"));
        let forwarding = settings::forwarding(&root.section("forwarding"));
        let times = settings::timeouts(&root.section("timeouts"));
        let limits = settings::limits(&root.section("limits"));
        let names = settings::names(&root.section("dns"));
        let (shutdown_delay, shutdown_patience) = settings::shutdown(&root.section("shutdown"));
        let own = own_addresses(listeners.iter().map(|it| it.address), &admin.listen);
        let services = services::services(root, &own, admin.require_token);
        let known: Vec<_> = services.keys().cloned().collect();
        let rollouts = rollouts::rollouts(root, &known, environment);
        root.finish();
        let mut catalog = services::catalog(services, diagnostics, root)?;
        catalog.internal = clients.internal;
        catalog.trusted_proxies = clients.trusted_proxies;
        catalog.public_marks = clients.public_marks;
        catalog.keeps_trace = clients.keeps_trace;
        catalog.response_timeout = times.response;
        let upstream = upstream::ConnectionSettings {
            idle_max: limits.upstream_idle,
            stall: times.timeouts.stall,
            ..times.upstream
        };
        Some(Self {
            state_dir,
            audit,
            workers,
            log,
            admin,
            listeners,
            catalog,
            timeouts: times.timeouts,
            connections_max: limits.connections,
            connections_per_client: limits.connections_per_client,
            connection: limits.connection,
            least_progress: limits
                .least_rate
                .map_or(0, |it| it.saturating_mul(times.timeouts.stall.as_secs())),
            forwarding,
            upstream,
            in_flight_max: limits.in_flight,
            care: limits.care,
            names,
            shutdown_delay,
            shutdown_patience,
            rollouts,
        })
    }

    /// What differs in `new` that a running process cannot take, by key.
    #[must_use]
    pub fn needs_restart(&self, new: &Self) -> Vec<&'static str> {
        let Self {
            state_dir,
            audit,
            workers,
            log,
            admin,
            listeners,
            catalog: _,
            timeouts,
            connections_max,
            connections_per_client,
            connection,
            least_progress,
            forwarding,
            upstream,
            in_flight_max,
            care,
            names,
            shutdown_delay,
            shutdown_patience,
            rollouts: _,
        } = new;
        let same_times =
            upstream::ConnectionSettings { idle_max: self.upstream.idle_max, ..*upstream };
        [
            ("state_dir", self.state_dir != *state_dir),
            ("audit", self.audit != *audit),
            ("workers", self.workers != *workers),
            ("log", self.log != *log),
            ("admin", self.admin != *admin),
            ("listener", self.listeners != *listeners),
            ("forwarding", self.forwarding != *forwarding),
            ("timeouts", self.timeouts != *timeouts || self.upstream != same_times),
            (
                "limits",
                self.connections_max != *connections_max
                    || self.connections_per_client != *connections_per_client
                    || self.connection != *connection
                    || self.least_progress != *least_progress
                    || self.upstream.idle_max != upstream.idle_max
                    || self.in_flight_max != *in_flight_max
                    || self.care != *care,
            ),
            ("dns", self.names != *names),
            (
                "shutdown",
                self.shutdown_patience != *shutdown_patience
                    || self.shutdown_delay != *shutdown_delay,
            ),
        ]
        .into_iter()
        .filter_map(|(key, differs)| differs.then_some(key))
        .collect()
    }
}

const ADMIN: &str = "the admin API";

/// Reads a configuration from standard input.
///
/// # Errors
///
/// If it cannot be read, is longer than 16 MiB, or is not UTF-8.
pub fn read_standard_input() -> io::Result<String> {
    files::read_from(io::stdin().lock(), files::CONFIG_MAX)
}

/// Where a process with these listeners and this admin API can be reached. A port of 0 becomes a real one only when the listener is opened.
#[must_use]
pub fn own_addresses(
    listeners: impl Iterator<Item = SocketAddr>,
    admin: &admin::AdminAddress,
) -> OwnAddresses {
    let port = |address: SocketAddr, what| {
        (address.port() != 0)
            .then_some(OwnAddress { address: OwnAddressKind::Tcp(address), description: what })
    };
    let admin = match admin {
        admin::AdminAddress::Tcp(address) => port(*address, ADMIN),
        admin::AdminAddress::Unix(path) => Some(OwnAddress {
            address: OwnAddressKind::Unix(path.as_path().into()),
            description: ADMIN,
        }),
    };
    let listeners = listeners.filter_map(|it| port(it, "a listener"));
    OwnAddresses::new(listeners.chain(admin).collect(), is_local)
}

impl fmt::Display for DiagnosticList<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, diagnostic) in self.0.iter().enumerate() {
            if place > 0 {
                f.write_str("\n")?;
            }
            diagnostic.fmt(f)?;
        }
        Ok(())
    }
}
