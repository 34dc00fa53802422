//! Everything but the services.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use ipnet::IpNet;
use toml::de::DeValue;

use super::{
    ConnectionsPerClient, LogSettings,
    reader::{Section, flag, text, whole},
};
use crate::{
    admin, care,
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
    pub(super) patience: Timeouts,
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

/// Loopback. Not the private networks: behind a NAT, a container network or an L4 load balancer, the public
/// arrives from one of them.
const INTERNAL: [&str; 2] = ["127.0.0.0/8", "::1/128"];

/// Longer times are most likely a mistake of the unit.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

pub(super) fn log(section: &Section<'_>) -> LogSettings {
    let filter = section.read("level", "info".to_owned(), |it| {
        let level = text(it)?;
        let is_level = |it: &str| it.parse::<tracing_subscriber::filter::LevelFilter>().is_ok();
        // A bare word that is no level would be taken for the name of a room, and silence the rest.
        let is_good = level.split(',').all(|it| it.contains('=') || is_level(it));
        match is_good && level.parse::<tracing_subscriber::filter::Targets>().is_ok() {
            true => Ok(level.to_owned()),
            false => Err("is error, warn, info, debug, trace or off".to_owned()),
        }
    });
    let json = section.read("format", None, |it| match text(it)? {
        "auto" => Ok(None),
        "json" => Ok(Some(true)),
        "text" => Ok(Some(false)),
        _ => Err("is \"auto\", \"json\" or \"text\"".to_owned()),
    });
    section.finish();
    LogSettings { filter, json }
}

pub(super) fn admin(section: &Section<'_>) -> admin::AdminSettings {
    let default = admin::AdminAddress::default();
    let listen = section.read("listen", default, |it| {
        text(it)?.parse().map_err(|error: admin::ParseAddressError| error.to_string())
    });
    let hosts = section.list("hosts", Vec::new(), |it| match crate::model::Host::parse(it) {
        Ok(host) => Ok(host.as_str().to_owned()),
        Err(error) => Err(error.to_string()),
    });
    let require_if_match = section.read("require_if_match", false, flag);
    let tokens: Vec<_> = section.sections("token").iter().filter_map(token).collect();
    if !listen.is_local() && tokens.is_empty() && !section.has("token") {
        let what = "is reachable from other machines and needs a token: add [[admin.token]], or \
                    listen on 127.0.0.1 or a unix socket";
        section.note("listen", what);
    }
    let require_token = section.read("require_token", false, flag);
    if require_token && tokens.is_empty() && !section.has("token") {
        let what = "is true, but there is no token: add [[admin.token]]";
        section.note("require_token", what);
    }
    section.finish();
    admin::AdminSettings { listen, hosts, require_if_match, require_token, tokens }
}

fn token(section: &Section<'_>) -> Option<admin::Token> {
    let scope = section.need("scope", "\"read\", \"promote\" or \"admin\"", |it| {
        text(it)?.parse().map_err(|error: admin::ParseScopeError| error.to_string())
    });
    let name = section
        .need("name", "whose token it is, like \"pipeline\"", |it| text(it).map(str::to_owned));
    let secret = section.need("file", "the file that the token is in", |it| {
        let file = path(it)?;
        let content = std::fs::read_to_string(&file)
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
            Err("would let everybody say who they are: list the proxies before us".to_owned())
        }
        net => Ok(net),
    });
    let public_marks = section.read("public_marks", false, flag);
    let keeps_trace = section.read("trace_context", false, |it| match text(it)? {
        "new" => Ok(false),
        "keep" => Ok(true),
        _ => Err("is \"new\" or \"keep\"".to_owned()),
    });
    section.finish();
    ClientSettings { internal, trusted_proxies, public_marks, keeps_trace }
}

pub(super) fn forwarding(section: &Section<'_>) -> proxy::Forwarding {
    let known = proxy::Forwarding::default();
    let trailers = section.list("trailers", known.trailers.to_vec(), |it| {
        let pattern = it.parse().map_err(|error: ParseNamePatternError| error.to_string())?;
        match NamePattern::exact(&pattern).is_some_and(proxy::is_never_a_trailer) {
            true => Err(format!("`{it}` means something else in a head, and is never a trailer")),
            false => Ok(pattern),
        }
    });
    let via = section.read("via", known.via, |it| match text(it)? {
        "both" => Ok(proxy::Via::Both),
        "requests" => Ok(proxy::Via::Requests),
        "none" => Ok(proxy::Via::None),
        _ => Err("is \"both\", \"requests\" or \"none\"".to_owned()),
    });
    section.finish();
    proxy::Forwarding { via, trailers: trailers.into() }
}

pub(super) fn timeouts(section: &Section<'_>) -> TimeoutSettings {
    let time = |key, default| section.read(key, Duration::from_secs(default), duration);
    let times = TimeoutSettings {
        patience: Timeouts {
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

/// The limit of a whole exchange, which there need not be.
pub(super) fn whole_exchange(value: &DeValue<'_>) -> Result<Option<Duration>, String> {
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
            "`max_line`, by default \"8KiB\", is larger than `max_head`, by default \"32KiB\"",
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
                format!("`{it}` is not the address of a name server: write \"10.0.0.2\" or \"10.0.0.2:53\"")
            })
        }),
        families: section.read("families", known.families, |it| match text(it)? {
            "both" => Ok(AddressFamilies::Both),
            "ipv4" => Ok(AddressFamilies::V4),
            "ipv6" => Ok(AddressFamilies::V6),
            _ => Err("is \"both\", \"ipv4\" or \"ipv6\"".to_owned()),
        }),
        ttl_min: section.read("min_ttl", known.ttl_min, duration),
        ttl_max: section.read("max_ttl", known.ttl_max, duration),
        timeout: section.read("timeout", known.timeout, duration),
    };
    if settings.ttl_max < settings.ttl_min {
        let key = if section.has("max_ttl") { "max_ttl" } else { "min_ttl" };
        section.note(key, "`max_ttl`, by default \"5m\", is shorter than `min_ttl`");
    }
    section.finish();
    settings
}

/// How long it is told before it happens, and how long requests then have.
pub(super) fn shutdown(section: &Section<'_>) -> (Duration, Duration) {
    let delay = section.read("delay", Duration::ZERO, |it| match text(it) {
        Ok("0s") => Ok(Duration::ZERO),
        _ => duration(it).map_err(|what| format!("{what}, or \"0s\"")),
    });
    let patience = section.read("patience", Duration::from_secs(30), duration);
    section.finish();
    (delay, patience)
}

pub(super) fn path(value: &DeValue<'_>) -> Result<PathBuf, String> {
    match text(value)? {
        "" => Err("is a path, not an empty text".to_owned()),
        path => Ok(PathBuf::from(path)),
    }
}

/// A duration as people write it: `"500ms"`, `"30s"`, `"1m 30s"`.
pub(super) fn duration(value: &DeValue<'_>) -> Result<Duration, String> {
    let wrong = "is a duration with its unit, like \"30s\", \"500ms\" or \"1m 30s\"";
    let duration = text(value)
        .ok()
        .and_then(|it| it.parse::<jiff::SignedDuration>().ok())
        .and_then(|it| Duration::try_from(it).ok())
        .ok_or(wrong)?;
    match duration {
        Duration::ZERO => Err("is a duration longer than 0".to_owned()),
        it if it > LONGEST => Err("is a duration of at most a day, \"24h\"".to_owned()),
        it => Ok(it),
    }
}

/// A size as people write it: `"500B"`, `"32KiB"`, `"10MiB"`, `"1GiB"`; `"none"` for no limit.
pub(super) fn size(value: &DeValue<'_>) -> Result<Option<u64>, String> {
    let wrong =
        "is a size with its unit, like \"500B\", \"32KiB\", \"10MiB\" or \"1GiB\", or \"none\"";
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

/// Bytes of a request's head, or of a part of it.
fn part_of_head(value: &DeValue<'_>) -> Result<usize, String> {
    let bytes = size(value)?.and_then(|it| usize::try_from(it).ok());
    bytes
        .filter(|it| (1024..=HEAD_BYTES_MAX).contains(it))
        .ok_or_else(|| "is a size from \"1KiB\" to \"63KiB\"".to_owned())
}

pub(super) fn network(text: &str) -> Result<IpNet, String> {
    Networks::parse(text).map_err(|error| error.to_string())
}
