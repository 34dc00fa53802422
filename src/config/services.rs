//! The services of the file.

use std::collections::BTreeMap;

use super::reader::{Mistakes, Section, text};
use crate::{
    control::{Catalog, ServiceSpec},
    model::{Color, PoolSpec, ServiceName},
};

/// Every service that could be read. One that could not has left its mistakes.
pub(super) fn services(root: &Section<'_>) -> BTreeMap<ServiceName, ServiceSpec> {
    let section = root.section("service");
    let mut services = BTreeMap::new();
    for (name, place, service) in section.named() {
        let parsed = name.parse::<ServiceName>();
        if let Err(error) = &parsed {
            service.note_at(place, error);
        }
        let spec = spec(&service);
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

fn spec(section: &Section<'_>) -> ServiceSpec {
    let any_host = vec![crate::model::HostPattern::Any];
    let hosts = section.list("hosts", any_host, |it| {
        it.parse().map_err(|_| {
            format!("`{it}` is not a host: write \"example.com\", \"*.example.com\" or \"*\", without a port")
        })
    });
    if hosts.is_empty() {
        section.note("hosts", "names no host: write [\"*\"] for every host, or leave it out");
    }
    let whole = "/".parse().expect("the shortest path");
    let path = section.read("path", whole, |it| {
        text(it)?.parse().map_err(|error: crate::model::ParsePathError| error.to_string())
    });
    let active = section.read("active", Color::Blue, |it| {
        text(it)?.parse().map_err(|error: crate::model::ParseColorError| error.to_string())
    });
    let blue = pool(&section.section("blue"));
    let green = pool(&section.section("green"));
    if !section.has("blue") && !section.has("green") {
        let name = section.name("blue");
        section.note("blue", format_args!("is missing: write [{name}] with its endpoints"));
    }
    section.finish();
    ServiceSpec { hosts, path, active, blue, green }
}

fn pool(section: &Section<'_>) -> PoolSpec {
    let version = section.read("version", None, |it| {
        text(it)?.parse().map(Some).map_err(|error: &str| error.to_owned())
    });
    let endpoints = section.list("endpoints", Vec::new(), |it| {
        it.parse().map_err(|error: crate::model::ParseEndpointError| error.to_string())
    });
    let spec = PoolSpec::new(version, endpoints).unwrap_or_else(|error| {
        section.note("endpoints", error);
        PoolSpec::default()
    });
    section.finish();
    spec
}

/// The catalog of the services, unless two of them want the same requests.
pub(super) fn catalog(
    services: BTreeMap<ServiceName, ServiceSpec>,
    mistakes: &Mistakes<'_>,
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
