//! The services of the file.

use std::{collections::BTreeMap, path::PathBuf};

use super::{
    policy::policy,
    reader::{Diagnostics, Section, StringOrTable, text, whole},
    settings::{duration, path, size},
};
use crate::{
    control::{Catalog, ServiceSpec},
    model::{
        Color, Endpoint, HostPattern, Link, OwnAddresses, PoolSpec, Protocol, ProxyProtocol,
        ServiceName, ServiceRules, UpstreamTls, Version, WeightedEndpoint,
    },
    tls::{FileError, UpstreamConnector},
    upstream::wrong_socket,
};

/// Every service that could be read. One that could not has left its mistakes.
pub(super) fn services(
    root: &Section<'_>,
    own: &OwnAddresses,
) -> BTreeMap<ServiceName, ServiceSpec> {
    let section = root.section("service");
    let mut services = BTreeMap::new();
    for (name, place, service) in section.named() {
        let parsed = name.parse::<ServiceName>();
        if let Err(error) = &parsed {
            service.note_at(place, error);
        }
        let spec = spec(&service, own);
        if let Ok(name) = parsed {
            services.insert(name, spec);
        }
    }
    if services.is_empty() && !root.has("service") {
        let what = "is missing: write [service.web] with [service.web.blue] and its endpoints";
        root.note("service", what);
    }
    services
}

fn spec(section: &Section<'_>, own: &OwnAddresses) -> ServiceSpec {
    let any_host = vec![HostPattern::Any];
    let hosts = section.list("hosts", any_host, |it| {
        it.parse().map_err(|_| {
            format!("`{it}` is not a host: write \"example.com\", \"*.example.com\" or \"*\", without a port")
        })
    });
    if hosts.is_empty() {
        section.note("hosts", "names no host: write [\"*\"] for every host, or leave it out");
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
    if !section.has("blue") && !section.has("green") {
        let name = section.name("blue");
        section.note("blue", format_args!("is missing: write [{name}] with its endpoints"));
    }
    let rules = ServiceRules {
        body_max: section.read("max_body", None, size),
        tunnel_patience: section.read("tunnel_idle", None, |it| duration(it).map(Some)),
    };
    let policy = policy(section);
    section.finish();
    ServiceSpec { hosts, path: prefix, active, blue, green, rules, policy }
}

fn pool(section: &Section<'_>, own: &OwnAddresses) -> PoolSpec {
    let version = section
        .read("version", None, |it| Version::to_be_set(text(it)?).map(Some).map_err(str::to_owned));
    let endpoints = section.tables_or_texts("endpoints", weighted);
    let mut spec = PoolSpec::new(version, endpoints).unwrap_or_else(|error| {
        section.note("endpoints", error);
        PoolSpec::default()
    });
    refuse_own(section, &spec, own);
    spec.link = link(section);
    let has_tls = spec.endpoints.iter().any(|it| it.endpoint.is_tls);
    if section.has("tls") && !has_tls && !spec.endpoints.is_empty() {
        let what = "is for endpoints by https, and none of these is: write \"https://host:port\"";
        section.note("tls", what);
    }
    section.finish();
    spec
}

/// Notes the endpoints whose requests would come back.
fn refuse_own(section: &Section<'_>, spec: &PoolSpec, own: &OwnAddresses) {
    for WeightedEndpoint { endpoint, .. } in &spec.endpoints {
        if let Some(what) = wrong_socket(endpoint, own) {
            section.note("endpoints", what);
        } else if let Some(found) = own.find(endpoint) {
            let what = format!("`{endpoint}` is {found}: write the address of the application");
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
        StringOrTable::Text(address) => endpoint(address).map(Into::into),
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

/// How the endpoints of a pool are spoken to.
fn link(section: &Section<'_>) -> Link {
    let protocol = section.read("protocol", None, |it| match text(it)? {
        "http1" => Ok(Some(Protocol::Http1)),
        "h2" => Ok(Some(Protocol::H2)),
        _ => Err("is \"http1\" or \"h2\"".to_owned()),
    });
    let proxy_protocol = section.read("proxy_protocol", None, |it| match text(it)? {
        "v1" => Ok(Some(ProxyProtocol::V1)),
        "v2" => Ok(Some(ProxyProtocol::V2)),
        _ => Err("is \"v1\" or \"v2\"".to_owned()),
    });
    let inner = section.section("tls");
    let file = |key| inner.read(key, None, |it| path(it).map(Some));
    let server_name = inner.read("server_name", None, |it| match text(it)?.parse() {
        Ok(HostPattern::Exact(name)) => Ok(Some(name.into())),
        _ => Err("is the name of a host, like \"app.internal\"".to_owned()),
    });
    let tls = UpstreamTls { ca: file("ca"), cert: file("cert"), key: file("key"), server_name };
    match (&tls.cert, &tls.key) {
        (Some(_), None) => inner.note("key", "is missing: the certificate needs its key"),
        (None, Some(_)) => inner.note("cert", "is missing: the key needs its certificate"),
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

/// The catalog of the services, unless two of them want the same requests.
pub(super) fn catalog(
    services: BTreeMap<ServiceName, ServiceSpec>,
    mistakes: &Diagnostics<'_>,
    root: &Section<'_>,
) -> Option<Catalog> {
    match Catalog::new(services) {
        Ok(catalog) => Some(catalog),
        Err(error) => {
            let place = root.section("service").place_of(error.two.as_str());
            let key = format!("service.{}", error.two);
            mistakes.note(
                place,
                &key,
                format_args!("{error}: give one of them another host or path"),
            );
            None
        }
    }
}
