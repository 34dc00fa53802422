//! The services of the file.

use std::{collections::BTreeMap, path::PathBuf};

use super::{
    diagnostics::Diagnostics,
    gates::gates,
    hold::hold,
    pins::{check_groups, pins},
    policy::policy,
    reader::{Section, StringOrTable, text, whole, word},
    settings::{duration, path, size},
    share::share,
    watch::watch,
};
use crate::{
    control::{Catalog, ServiceSpec},
    model::{
        Color, Endpoint, HostPattern, Link, OwnAddresses, PoolSpec, Protocol, ProxyProtocol,
        ServiceName, ServiceRules, UpstreamTls, Version, WeightedEndpoint,
    },
    tls::{FileError, UpstreamConnector},
    upstream::invalid_socket,
};

/// All services without errors; the errors of the others are noted.
pub(super) fn services(
    root: &Section<'_>,
    own: &OwnAddresses,
    requires_token: bool,
) -> BTreeMap<ServiceName, ServiceSpec> {
    let section = root.section("service");
    let mut services = BTreeMap::new();
    for (name, place, service) in section.named() {
        let parsed = name.parse::<ServiceName>();
        if let Err(error) = &parsed {
            service.note_at(place, error);
        }
        let spec = spec(&service, own, requires_token);
        if let Ok(name) = parsed {
            services.insert(name, spec);
        }
    }
    check_groups(root, &services);
    if services.is_empty() && !root.has("service") && !root.is_misspelled("service") {
        let what = "missing\nwrite [service.web] with [service.web.blue] and its endpoints";
        root.note("service", what);
    }
    services
}

fn spec(section: &Section<'_>, own: &OwnAddresses, requires_token: bool) -> ServiceSpec {
    let any_host = vec![HostPattern::Any];
    let hosts = section.list("hosts", any_host, |it| {
        it.parse().map_err(|_| {
            format!("`{it}` is not a host\nwrite \"example.com\", \"*.example.com\" or \"*\", without a port")
        })
    });
    if section.is_empty_list("hosts") {
        section.note("hosts", "the list is empty\nwrite [\"*\"] for every host, or remove the key");
    }
    let whole = "/".parse().expect("the shortest path");
    let prefix = section.read("path", whole, |it| {
        text(it)?.parse().map_err(|error: crate::model::ParsePathError| error.to_string())
    });
    let active = section.read("active", Color::Blue, |it| {
        text(it)?.parse().map_err(|error: crate::model::ParseColorError| error.to_string())
    });
    let blue = pool(&section.section("blue"), own);
    let green = pool(&section.section("green"), own);
    let rules = ServiceRules {
        body_max: section.read("max_body", None, size),
        tunnel_timeout: section.read("tunnel_idle", None, |it| duration(it).map(Some)),
    };
    let policy = policy(section, &prefix);
    let gate = gates(&section.section("gate"), requires_token);
    let watch = section.has("watch").then(|| watch(&section.section("watch")));
    let pins = section.has("pin").then(|| pins(&section.section("pin"), &hosts));
    let share = share(&section.section("share"), &hosts);
    let hold = hold(&section.section("hold"));
    // A table of another name was most likely meant as a color, and is reported below.
    if !section.has("blue") && !section.has("green") && !section.has_unknown_table() {
        let name = section.name("blue");
        section.note("blue", format_args!("missing\nwrite [{name}] with its endpoints"));
    }
    section.finish();
    warn_of_unlikely_pools(section, active, &blue, &green);
    ServiceSpec {
        hosts,
        path: prefix,
        active,
        blue,
        green,
        rules,
        policy,
        gate,
        watch,
        pins,
        share,
        hold,
    }
}

/// Notes pools that are valid, but most likely not what was meant.
fn warn_of_unlikely_pools(section: &Section<'_>, active: Color, blue: &PoolSpec, green: &PoolSpec) {
    let (name, own) = match active {
        Color::Blue => ("blue", blue),
        Color::Green => ("green", green),
    };
    let other = active.other();
    if own.endpoints.is_empty() && (section.has("blue") || section.has("green")) {
        let key = if section.has(name) { name } else { "active" };
        section.warn(
            key,
            format_args!(
                "{active} is active at the first start and has no endpoints: every request gets a 503\n\
                 add endpoints, or write active = \"{other}\""
            ),
        );
    }
    for WeightedEndpoint { endpoint, .. } in &blue.endpoints {
        if green.endpoints.iter().any(|it| it.endpoint == *endpoint) {
            let what = format!(
                "`{endpoint}` is an endpoint of blue and of green: a promotion does not change the version that it \
                 serves\ngive each color its own endpoints"
            );
            section.warn("green", what);
        }
    }
}

fn pool(section: &Section<'_>, own: &OwnAddresses) -> PoolSpec {
    let version = section
        .read("version", None, |it| Version::parse_new(text(it)?).map(Some).map_err(str::to_owned));
    let endpoints = section.strings_or_tables("endpoints", weighted);
    let mut spec = PoolSpec::new(version, endpoints).unwrap_or_else(|error| {
        section.note("endpoints", error);
        PoolSpec::default()
    });
    refuse_own(section, &spec, own);
    spec.link = link(section);
    let has_tls = spec.endpoints.iter().any(|it| it.endpoint.is_tls);
    if section.has("tls") && !has_tls && !spec.endpoints.is_empty() {
        let what =
            "no endpoint of this pool uses TLS\nwrite \"https://host:port\", or remove `tls`";
        section.note("tls", what);
    }
    section.finish();
    spec
}

/// Notes endpoints that are addresses of this Flipgate: their requests would come back.
fn refuse_own(section: &Section<'_>, spec: &PoolSpec, own: &OwnAddresses) {
    for WeightedEndpoint { endpoint, .. } in &spec.endpoints {
        if let Some(what) = invalid_socket(endpoint, own) {
            section.note("endpoints", what);
        } else if let Some(found) = own.find(endpoint) {
            let what = format!(
                "`{endpoint}` is {found} of this Flipgate\nwrite the address of the application"
            );
            section.note("endpoints", what);
        }
    }
}

/// An address, or a table of an address and a weight.
fn weighted(written: StringOrTable<'_>) -> Result<WeightedEndpoint, String> {
    let endpoint = |it: &str| {
        it.parse::<Endpoint>().map_err(|error: crate::model::ParseEndpointError| error.to_string())
    };
    match written {
        StringOrTable::String(address) => endpoint(address).map(Into::into),
        StringOrTable::Table(section) => {
            let example = "the address, like \"127.0.0.1:9001\"";
            let address = section.need("address", example, |it| endpoint(text(it)?));
            let weight =
                section.read("weight", 1, |it| whole(it, 1..=WeightedEndpoint::MAX.into()));
            section.finish();
            address.and_then(|it| WeightedEndpoint::new(it, weight)).ok_or_else(String::new)
        }
    }
}

/// The protocol and TLS settings of the connections to the endpoints of a pool.
fn link(section: &Section<'_>) -> Link {
    let protocol = section.read("protocol", None, |it| {
        word(it, &[("http1", Some(Protocol::Http1)), ("h2", Some(Protocol::H2))])
    });
    let proxy_protocol = section.read("proxy_protocol", None, |it| {
        word(it, &[("v1", Some(ProxyProtocol::V1)), ("v2", Some(ProxyProtocol::V2))])
    });
    let inner = section.section("tls");
    let file = |key| inner.read(key, None, |it| path(it).map(Some));
    let server_name = inner.read("server_name", None, |it| match text(it)?.parse() {
        Ok(HostPattern::Exact(name)) => Ok(Some(name.into())),
        _ => Err("expected the name of a host, like \"app.internal\"".to_owned()),
    });
    let tls = UpstreamTls { ca: file("ca"), cert: file("cert"), key: file("key"), server_name };
    match (&tls.cert, &tls.key) {
        (Some(_), None) => {
            inner.note("key", "missing\nwrite the path of the private key of `cert`");
        }
        (None, Some(_)) => {
            inner.note("cert", "missing\nwrite the path of the certificate of `key`");
        }
        _ if tls == UpstreamTls::default() => {}
        _ => {
            if let Err(FileError { path, what }) = UpstreamConnector::check(&tls) {
                let is = |it: &Option<PathBuf>| it.as_ref() == Some(&path);
                let key = match () {
                    () if is(&tls.key) => "key",
                    () if is(&tls.cert) => "cert",
                    () => "ca",
                };
                inner.note(key, format_args!("{}: {what}", path.display()));
            }
        }
    }
    inner.finish();
    Link { protocol, tls, proxy_protocol }
}

/// The catalog of the services, unless two of them have the same host and path.
pub(super) fn catalog(
    services: BTreeMap<ServiceName, ServiceSpec>,
    diagnostics: &Diagnostics<'_>,
    root: &Section<'_>,
) -> Option<Catalog> {
    match Catalog::new(services) {
        Ok(catalog) => Some(catalog),
        Err(error) => {
            let place = root.section("service").place_of(error.two.as_str());
            let key = format!("service.{}", error.two);
            diagnostics.error(
                place,
                &key,
                format_args!("{error}\ngive one of them another host or path"),
            );
            None
        }
    }
}
