//! Everything but the services.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use ipnet::IpNet;

use super::{
    ConnectionsPerClient, LogSettings,
    files::{self, TOKEN_MAX},
    reader::{Section, Value, flag, text, whole, word},
};
use crate::{
    admin,
    audit::AuditSettings,
    care,
    downstream::{self, Timeouts},
    http1::HeadLimits,
    model::{NamePattern, Networks, ParseNamePatternError},
    proxy,
    upstream::{self, AddressFamilies, ResolverSettings},
};

/// The most that `max_line` and `max_head` may be.
const HEAD_BYTES_MAX: usize = 63 * 1024;

pub(super) struct ClientSettings {
    pub(super) internal: Vec<IpNet>,
    pub(super) trusted_proxies: Vec<IpNet>,
    pub(super) public_marks: bool,
    pub(super) keeps_trace: bool,
}

pub(super) struct TimeoutSettings {
    pub(super) timeouts: Timeouts,
    pub(super) upstream: upstream::ConnectionSettings,
    pub(super) response: Duration,
}

pub(super) struct LimitSettings {
    pub(super) connections: usize,
    pub(super) connections_per_client: ConnectionsPerClient,
    pub(super) connection: downstream::ConnectionLimits,
    /// Bytes for each second.
    pub(super) least_rate: Option<u64>,
    pub(super) upstream_idle: usize,
    pub(super) in_flight: usize,
    pub(super) care: care::CareSettings,
}

/// Loopback. Not the private networks: behind a NAT, a container network or an L4 load balancer, public clients
/// have an address of one of them.
const INTERNAL: [&str; 2] = ["127.0.0.0/8", "::1/128"];

/// A longer time is most likely written with the wrong unit.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

pub(super) fn log(section: &Section<'_>) -> LogSettings {
    let filter = section.read("level", "info".to_owned(), |it| {
        let level = text(it)?;
        let is_level = |it: &str| it.parse::<tracing_subscriber::filter::LevelFilter>().is_ok();
        // A bare word that is not a level would be read as the name of a module, and silence all others.
        let is_good = level.split(',').all(|it| it.contains('=') || is_level(it));
        match is_good && level.parse::<tracing_subscriber::filter::Targets>().is_ok() {
            true => Ok(level.to_owned()),
            false => Err(format!(
                "`{level}` is not a log level\nwrite error, warn, info, debug, trace or off"
            )),
        }
    });
    let formats = [("auto", None), ("json", Some(true)), ("text", Some(false))];
    let json = section.read("format", None, |it| word(it, &formats));
    section.finish();
    LogSettings { filter, json }
}

pub(super) fn audit(section: &Section<'_>) -> AuditSettings {
    let known = AuditSettings::default();
    let settings = AuditSettings {
        file_bytes_max: section.read("max_file", known.file_bytes_max, |it| match size(it)? {
            Some(bytes @ 65_536..=268_435_456) => Ok(bytes),
            _ => Err("expected a size from \"64KiB\" to \"256MiB\"".to_owned()),
        }),
        full_files_max: section.read("files", known.full_files_max, |it| whole(it, 1..=1000)),
    };
    section.finish();
    settings
}

pub(super) fn admin(section: &Section<'_>) -> admin::AdminSettings {
    let default = admin::AdminAddress::default();
    let listen = section.read("listen", default, |it| {
        let listen =
            text(it)?.parse().map_err(|error: admin::ParseAddressError| error.to_string())?;
        Ok(match listen {
            admin::AdminAddress::Unix(path) => admin::AdminAddress::Unix(it.folder().join(path)),
            tcp @ admin::AdminAddress::Tcp(_) => tcp,
        })
    });
    let hosts = section.list("hosts", Vec::new(), |it| match crate::model::Host::parse(it) {
        Ok(host) => Ok(host.as_str().to_owned()),
        Err(error) => Err(error.to_string()),
    });
    let require_if_match = section.read("require_if_match", false, flag);
    let tokens: Vec<_> = section.sections("token").iter().filter_map(token).collect();
    if !listen.is_local() && tokens.is_empty() && !section.has("token") {
        let what = "an address that other machines can reach needs a token\nadd [[admin.token]], or listen on \
                    127.0.0.1 or a unix socket";
        section.note("listen", what);
    }
    let require_token = section.read("require_token", false, flag);
    if require_token && tokens.is_empty() && !section.has("token") {
        let what = "no token is configured\nadd [[admin.token]]";
        section.note("require_token", what);
    }
    section.finish();
    admin::AdminSettings { listen, hosts, require_if_match, require_token, tokens }
}

fn token(section: &Section<'_>) -> Option<admin::Token> {
    let scope = section.need("scope", "\"read\", \"approve\", \"promote\" or \"admin\"", |it| {
        text(it)?.parse().map_err(|error: admin::ParseScopeError| error.to_string())
    });
    let name = section.need(
        "name",
        "the name of the token's owner for the log, like \"pipeline\"",
        |it| text(it).map(str::to_owned),
    );
    let secret = section.need("file", "the path of the file with the token", |it| {
        let file = path(it)?;
        let content = files::read_regular(&file, TOKEN_MAX)
            .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        admin::Secret::new(content.trim()).map_err(|error| format!("{}: {error}", file.display()))
    });
    section.finish();
    Some(admin::Token { name: name?, scope: scope?, secret: secret? })
}

pub(super) fn clients(section: &Section<'_>) -> ClientSettings {
    let internal = INTERNAL.map(|it| network(it).expect("networks of the RFCs")).to_vec();
    let internal = section.list("internal", internal, network);
    let trusted_proxies = section.list("trusted_proxies", Vec::new(), |it| match network(it)? {
        net if net.prefix_len() == 0 => {
            Err("every client could claim any address\nlist the networks of the proxies in front of Flipgate".to_owned())
        }
        net => Ok(net),
    });
    let public_marks = section.read("public_marks", false, flag);
    let keeps_trace =
        section.read("trace_context", false, |it| word(it, &[("new", false), ("keep", true)]));
    section.finish();
    ClientSettings { internal, trusted_proxies, public_marks, keeps_trace }
}

pub(super) fn forwarding(section: &Section<'_>) -> proxy::Forwarding {
    let known = proxy::Forwarding::default();
    let trailers = section.list("trailers", known.trailers.to_vec(), |it| {
        let pattern = it.parse().map_err(|error: ParseNamePatternError| error.to_string())?;
        match NamePattern::exact(&pattern).is_some_and(proxy::is_never_a_trailer) {
            true => Err(format!(
                "`{it}` is never forwarded as a trailer: it changes the meaning of a message"
            )),
            false => Ok(pattern),
        }
    });
    let messages = [
        ("both", proxy::Via::Both),
        ("requests", proxy::Via::Requests),
        ("none", proxy::Via::None),
    ];
    let via = section.read("via", known.via, |it| word(it, &messages));
    section.finish();
    proxy::Forwarding { via, trailers: trailers.into() }
}

pub(super) fn timeouts(section: &Section<'_>) -> TimeoutSettings {
    let time = |key, default| section.read(key, Duration::from_secs(default), duration);
    let times = TimeoutSettings {
        timeouts: Timeouts {
            handshake: time("handshake", 10),
            head: time("head", 10),
            keep_alive: time("keep_alive", 75),
            stall: time("stall", 60),
            upstream: time("upstream_stall", 300),
            request: section.read("request", None, whole_exchange),
            tunnel: time("tunnel", 3600),
        },
        upstream: upstream::ConnectionSettings {
            connect: time("upstream_connect", 5),
            idle: time("upstream_idle", 30),
            idle_max: 0,
            stall: Duration::ZERO,
        },
        response: time("upstream_response", 60),
    };
    section.finish();
    times
}

/// The timeout of a whole exchange, or `"none"`.
pub(super) fn whole_exchange(value: Value<'_>) -> Result<Option<Duration>, String> {
    match text(value) {
        Ok("none") => Ok(None),
        _ => duration(value).map(Some),
    }
}

pub(super) fn limits(section: &Section<'_>) -> LimitSettings {
    let number = |key, default, bounds| section.read(key, default, |it| whole(it, bounds));
    let known = HeadLimits::default();
    let head = HeadLimits {
        line: section.read("max_line", known.line, part_of_head),
        head: section.read("max_head", known.head, part_of_head),
    };
    if head.line > head.head {
        let key = if section.has("max_line") { "max_line" } else { "max_head" };
        section.note(
            key,
            "`max_line` (default \"8KiB\") is larger than `max_head` (default \"32KiB\")",
        );
    }
    let limits = LimitSettings {
        connections: number("connections", 8192, 1..=1_000_000),
        connections_per_client: section.read(
            "connections_per_client",
            ConnectionsPerClient::Auto,
            |it| match text(it) {
                Ok("auto") => Ok(ConnectionsPerClient::Auto),
                Ok("none") => Ok(ConnectionsPerClient::AtMost(usize::MAX)),
                _ => whole(it, 1..=1_000_000)
                    .map(ConnectionsPerClient::AtMost)
                    .map_err(|what| format!("{what}, \"auto\" or \"none\"")),
            },
        ),
        connection: downstream::ConnectionLimits {
            requests: number("requests_per_connection", 100_000, 1..=1_000_000_000),
            streams: u32::try_from(number("h2_streams", 100, 1..=10_000)).unwrap_or(100),
            resets: number("h2_resets", 100, 1..=1_000_000),
            head,
        },
        least_rate: section.read("min_rate", None, size),
        upstream_idle: number("upstream_idle", 256, 0..=100_000),
        in_flight: number("in_flight", 100_000, 1..=10_000_000),
        care: care::CareSettings {
            checks_per_second: u32::try_from(number("health_checks", 400, 1..=100_000))
                .unwrap_or(400),
        },
    };
    section.finish();
    limits
}

pub(super) fn names(section: &Section<'_>) -> ResolverSettings {
    let known = ResolverSettings::default();
    let settings = ResolverSettings {
        servers: section.list("servers", Vec::new(), |it| {
            let address = it.parse::<SocketAddr>().ok();
            let address = address.or_else(|| Some(SocketAddr::new(it.parse().ok()?, 53)));
            address.filter(|it| it.port() != 0).ok_or_else(|| {
                format!("`{it}` is not the address of a name server\nwrite \"10.0.0.2\" or \"10.0.0.2:53\"")
            })
        }),
        families: section.read("families", known.families, |it| {
            let families = [
                ("both", AddressFamilies::Both),
                ("ipv4", AddressFamilies::V4),
                ("ipv6", AddressFamilies::V6),
            ];
            word(it, &families)
        }),
        ttl_min: section.read("min_ttl", known.ttl_min, duration),
        ttl_max: section.read("max_ttl", known.ttl_max, duration),
        timeout: section.read("timeout", known.timeout, duration),
    };
    if settings.ttl_max < settings.ttl_min {
        let key = if section.has("max_ttl") { "max_ttl" } else { "min_ttl" };
        section.note(key, "`max_ttl` (default \"5m\") is shorter than `min_ttl`");
    }
    section.finish();
    settings
}

/// The delay before the listeners close, and the time that requests in flight have after that.
pub(super) fn shutdown(section: &Section<'_>) -> (Duration, Duration) {
    let delay = section.read("delay", Duration::ZERO, |it| match text(it) {
        Ok("0s") => Ok(Duration::ZERO),
        _ => duration(it).map_err(|what| format!("{what}, or \"0s\"")),
    });
    let timeout = section.read("patience", Duration::from_secs(30), duration);
    section.finish();
    (delay, timeout)
}

/// A path, relative to the file that it is written in.
pub(super) fn path(value: Value<'_>) -> Result<PathBuf, String> {
    match text(value)? {
        "" => Err("expected a path, found an empty string".to_owned()),
        path => Ok(value.folder().join(path)),
    }
}

/// A duration, such as `"500ms"`, `"30s"`, `"1m 30s"`.
pub(super) fn duration(value: Value<'_>) -> Result<Duration, String> {
    let wrong = "expected a duration with its unit, like \"30s\", \"500ms\" or \"1m 30s\"";
    let duration = text(value)
        .ok()
        .and_then(|it| it.parse::<jiff::SignedDuration>().ok())
        .and_then(|it| Duration::try_from(it).ok())
        .ok_or(wrong)?;
    match duration {
        Duration::ZERO => Err("expected a duration longer than 0".to_owned()),
        it if it > LONGEST => Err("expected a duration of at most 24 hours".to_owned()),
        it => Ok(it),
    }
}

/// A size, such as `"500B"`, `"32KiB"`, `"10MiB"`, `"1GiB"`; `"none"` for no limit.
pub(super) fn size(value: Value<'_>) -> Result<Option<u64>, String> {
    let wrong = "expected a size with its unit, like \"500B\", \"32KiB\", \"10MiB\" or \"1GiB\", or \"none\"";
    let text = text(value)?;
    if text == "none" {
        return Ok(None);
    }
    let digits = text.find(|it: char| !it.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim_start() {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(wrong.to_owned()),
    };
    let size = number.parse::<u64>().ok().and_then(|it| it.checked_mul(factor));
    size.filter(|it| *it > 0).map(Some).ok_or_else(|| wrong.to_owned())
}

/// The size limit of a request head or of a part of it, in bytes.
fn part_of_head(value: Value<'_>) -> Result<usize, String> {
    let bytes = size(value)?.and_then(|it| usize::try_from(it).ok());
    bytes
        .filter(|it| (1024..=HEAD_BYTES_MAX).contains(it))
        .ok_or_else(|| "expected a size from \"1KiB\" to \"63KiB\"".to_owned())
}

pub(super) fn network(text: &str) -> Result<IpNet, String> {
    Networks::parse(text).map_err(|error| error.to_string())
}
