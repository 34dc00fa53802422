//! The listeners.

use std::net::SocketAddr;

use super::{
    reader::{Section, flag, text, whole, word},
    settings::{network, path},
};
use crate::{
    downstream::{HttpVersions, Listener},
    tls::{ALPN_HTTP1, ALPN_HTTP2, ClientAuth, FileError, KeyPair, ServerSettings},
};

pub(super) fn listeners(root: &Section<'_>) -> Vec<Listener> {
    let sections = root.sections("listener");
    if sections.is_empty() && !root.has("listener") && !root.is_misspelled("listener") {
        root.note("listener", "missing\nwrite [[listener]] with listen = \"127.0.0.1:8080\"");
    }
    let mut listeners: Vec<Listener> = Vec::new();
    let mut names = Vec::new();
    for section in sections {
        if let Some(listener) = listener(&section) {
            let is_taken =
                |it: &Listener| it.address == listener.address && listener.address.port() != 0;
            if let Some(place) = listeners.iter().position(is_taken) {
                let (other, address): (&String, _) = (&names[place], listener.address);
                let what = format!(
                    "{other} has the address {address}, too\nremove one of the two, or change its address"
                );
                section.note("listen", what);
            }
            names.push(section.name("listen"));
            listeners.push(listener);
        }
        section.finish();
    }
    listeners
}

fn listener(section: &Section<'_>) -> Option<Listener> {
    let address = section.need("listen", "\"127.0.0.1:8080\"", |it| socket(text(it)?));
    let preview = section.read("preview", None, |it| {
        let color = text(it)?.parse();
        color.map(Some).map_err(|error: crate::model::ParseColorError| error.to_string())
    });
    let speaks = protocols(section);
    let proxies = proxies(section);
    let redirects_to = section.read("redirect_to_https", None, |it| {
        let port = whole(it, 1..=usize::from(u16::MAX))?;
        Ok(u16::try_from(port).ok())
    });
    let (tls, hsts) = tls(section, speaks);
    if tls.is_some() && redirects_to.is_some() {
        section.note("redirect_to_https", "this listener has TLS itself\nremove one of the two, or redirect from a listener without TLS");
    }
    if preview.is_some() && redirects_to.is_some() {
        section.note("redirect_to_https", "every request of this listener is redirected, so that there is nothing to preview\nremove one of the two");
    }
    let health_checks = section.read("health_checks", false, flag);
    Some(Listener {
        address: address?,
        preview,
        http_versions: speaks,
        proxies,
        tls,
        hsts,
        https_redirect_port: redirects_to,
        health_checks,
    })
}

fn protocols(section: &Section<'_>) -> HttpVersions {
    let both = vec!["http1".to_owned(), "h2".to_owned()];
    let named = section.list("protocols", both, |it| match it {
        "http1" | "h2" => Ok(it.to_owned()),
        _ => Err(format!("expected \"http1\" or \"h2\", found \"{it}\"")),
    });
    if named.is_empty() && section.is_empty_list("protocols") {
        section
            .note("protocols", "the list is empty\nwrite [\"http1\", \"h2\"], or remove the key");
    }
    let has = |name: &str| named.iter().any(|it| it == name);
    HttpVersions { http1: has("http1"), http2: has("h2") }
}

fn proxies(section: &Section<'_>) -> Vec<ipnet::IpNet> {
    let inner = section.section("proxy_protocol");
    if !section.has("proxy_protocol") {
        return Vec::new();
    }
    let from = inner.list("from", Vec::new(), |it| match network(it)? {
        net if net.prefix_len() == 0 => {
            Err("every client could claim any address\nlist the networks of the proxies in front of Flipgate".to_owned())
        }
        net => Ok(net),
    });
    if from.is_empty() && (!inner.has("from") || inner.is_empty_list("from")) {
        inner.note("from", "missing\nlist the networks of the proxies, like [\"10.0.0.5/32\"]");
    }
    inner.finish();
    from
}

fn tls(section: &Section<'_>, speaks: HttpVersions) -> (Option<ServerSettings>, Option<String>) {
    let inner = section.section("tls");
    if !section.has("tls") {
        return (None, None);
    }
    let certificates: Vec<_> = inner.sections("certificates").iter().filter_map(key_pair).collect();
    if certificates.is_empty() && !inner.has("certificates") {
        inner.note_missing("certificates", "cert and key");
    }
    let has_tls12 =
        inner.read("min_version", true, |it| word(it, &[("1.2", true), ("1.3", false)]));
    let hsts = inner.read("hsts", None, |it| transport_security(text(it)?).map(Some));
    let client = client_auth(&inner);
    inner.finish();
    let protocols = [(ALPN_HTTP2, speaks.http2), (ALPN_HTTP1, speaks.http1)];
    let protocols = protocols.into_iter().filter(|it| it.1).map(|it| it.0).collect();
    let settings = ServerSettings { certificates, has_tls12, protocols, client };
    (Some(settings), hsts)
}

fn key_pair(section: &Section<'_>) -> Option<KeyPair> {
    let cert = section.need("cert", "the path of the certificate and its chain, in PEM", path);
    let key = section.need("key", "the path of its private key, in PEM", path);
    section.finish();
    let pair = KeyPair { cert: cert?, key: key? };
    let settings = ServerSettings {
        certificates: vec![pair.clone()],
        has_tls12: true,
        protocols: Vec::new(),
        client: None,
    };
    for FileError { path, what } in settings.check().err().into_iter().flatten() {
        let key = if path == pair.key { "key" } else { "cert" };
        section.note(key, format_args!("{}: {what}", path.display()));
    }
    Some(pair)
}

fn client_auth(section: &Section<'_>) -> Option<ClientAuth> {
    let inner = section.section("client");
    if !section.has("client") {
        return None;
    }
    let ca = inner.need(
        "ca",
        "the path of the certificate authorities that sign client certificates, in PEM",
        |it| {
            let ca = path(it)?;
            let auth = ClientAuth { ca: ca.clone(), is_required: false, is_internal: false };
            let checked = auth.check();
            checked.map(|()| ca).map_err(|error| error.to_string())
        },
    );
    let is_required = inner.read("required", false, flag);
    let is_internal = inner.read("internal", false, flag);
    inner.finish();
    Some(ClientAuth { ca: ca?, is_required, is_internal })
}

/// RFC 6797, section 6.1.
fn transport_security(text: &str) -> Result<String, String> {
    let mut directives = text.split(';').map(str::trim);
    let has_age = directives
        .next()
        .and_then(|it| it.strip_prefix("max-age="))
        .is_some_and(|it| it.parse::<u32>().is_ok());
    match has_age && directives.all(|it| matches!(it, "includeSubDomains" | "preload")) {
        true => Ok(text.to_owned()),
        false => {
            Err("expected a value like \"max-age=31536000; includeSubDomains\", in seconds"
                .to_owned())
        }
    }
}

fn socket(text: &str) -> Result<SocketAddr, String> {
    let wrong =
        format!("`{text}` is not an address with a port\nwrite \"0.0.0.0:80\" or \"[::]:80\"");
    text.parse().map_err(|_| wrong)
}
