//! `Forwarded` and `X-Forwarded-*` say the same, whichever the trusted proxy sent.

use crate::support::{Client, TestProxy, Upstream, client::INTERNAL, client::PUBLIC};

/// Every 127.0.0.2 is a trusted proxy.
fn behind_a_proxy(upstream: &Upstream) -> TestProxy {
    TestProxy::build()
        .with("clients.internal = []\nclients.trusted_proxies = [\"127.0.0.2/32\", \"10.0.0.0/8\"]")
        .service("web", &[upstream], &[])
        .start()
}

/// The values of the upstream's fields with this name.
fn told<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    let lines = head.lines().filter_map(|it| it.split_once(": "));
    lines.filter(|it| it.0.eq_ignore_ascii_case(name)).map(|it| it.1).collect()
}

/// Chain, scheme and host of the upstream's request, in both families.
fn both(head: &str) -> (Vec<String>, String, String) {
    let [chain] = told(head, "X-Forwarded-For")[..] else { panic!("one chain: {head}") };
    let chain: Vec<_> = chain.split(", ").map(str::to_owned).collect();
    let [scheme] = told(head, "X-Forwarded-Proto")[..] else { panic!("one scheme: {head}") };
    let [host] = told(head, "X-Forwarded-Host")[..] else { panic!("one host: {head}") };
    let [forwarded] = told(head, "Forwarded")[..] else { panic!("one Forwarded: {head}") };
    let elements: Vec<_> = forwarded.split(", ").collect();
    let parameter = |element: &str, name: &str| -> Option<String> {
        let found = element.split(';').find_map(|it| it.strip_prefix(name)?.strip_prefix('='));
        found.map(|it| it.trim_matches(['"', '[', ']']).to_owned())
    };
    let hops: Vec<_> = elements.iter().filter_map(|it| parameter(it, "for")).collect();
    assert_eq!(hops, chain, "{forwarded}");
    for element in elements {
        assert!(parameter(element, "proto").is_none_or(|it| it == scheme), "{scheme}: {forwarded}");
        assert!(parameter(element, "host").is_none_or(|it| it == host), "{host}: {forwarded}");
    }
    // An application may read the first element or the last one.
    for place in [forwarded.split(", ").next(), forwarded.split(", ").last()] {
        let element = place.expect("an element");
        assert!(parameter(element, "proto").is_some(), "{forwarded}");
    }
    (chain, scheme.to_owned(), host.to_owned())
}

/// `X-Forwarded-Proto: https` was passed on beside a `Forwarded` with `proto=http`, and Rack 3 redirected
/// to https for ever.
#[tokio::test]
async fn both_families_say_the_same_whichever_the_trusted_proxy_wrote() {
    let blue = Upstream::start("blue").await;
    let proxy = behind_a_proxy(&blue);
    let mut client = Client::connect(PUBLIC, proxy.public).await;
    for (fields, chain, scheme, host) in [
        ("", &["127.0.0.2"][..], "http", "a.test"),
        (
            "X-Forwarded-For: 203.0.113.5\r\nX-Forwarded-Proto: https\r\n",
            &["203.0.113.5", "127.0.0.2"],
            "https",
            "a.test",
        ),
        (
            "X-Forwarded-For: 203.0.113.5, 10.0.0.2\r\nX-Forwarded-Proto: https\r\n\
             X-Forwarded-Host: shop.test:8443\r\n",
            &["203.0.113.5", "10.0.0.2", "127.0.0.2"],
            "https",
            "shop.test:8443",
        ),
        ("X-Forwarded-For: 2001:db8::1\r\n", &["2001:db8::1", "127.0.0.2"], "http", "a.test"),
        ("X-Forwarded-Proto: https\r\n", &["127.0.0.2"], "https", "a.test"),
        ("X-Forwarded-Host: shop.test\r\n", &["127.0.0.2"], "http", "shop.test"),
        (
            "Forwarded: for=203.0.113.5;proto=https;host=shop.test\r\n",
            &["203.0.113.5", "127.0.0.2"],
            "https",
            "shop.test",
        ),
        (
            "Forwarded: for=\"[2001:db8::1]\";proto=https\r\n",
            &["2001:db8::1", "127.0.0.2"],
            "https",
            "a.test",
        ),
        (
            "Forwarded: for=203.0.113.5;proto=https\r\nForwarded: for=10.0.0.2;proto=https\r\n",
            &["203.0.113.5", "10.0.0.2", "127.0.0.2"],
            "https",
            "a.test",
        ),
        ("Forwarded: for=unknown;proto=https\r\n", &["unknown", "127.0.0.2"], "https", "a.test"),
        // Both, and they agree.
        (
            "X-Forwarded-For: 203.0.113.5\r\nX-Forwarded-Proto: https\r\n\
             Forwarded: for=203.0.113.5;proto=https;host=shop.test\r\n",
            &["203.0.113.5", "127.0.0.2"],
            "https",
            "shop.test",
        ),
        // What the one leaves out, the other one says.
        (
            "X-Forwarded-For: 203.0.113.5\r\nForwarded: for=203.0.113.5;proto=https\r\n",
            &["203.0.113.5", "127.0.0.2"],
            "https",
            "a.test",
        ),
        // Both, and they do not: a proxy that writes the one passes on what its client says by the other.
        (
            "X-Forwarded-For: 203.0.113.5\r\nX-Forwarded-Proto: https\r\n\
             Forwarded: for=10.0.0.1;proto=http;host=evil.test\r\n",
            &["203.0.113.5", "127.0.0.2"],
            "https",
            "a.test",
        ),
        (
            "X-Forwarded-For: 203.0.113.5\r\nX-Forwarded-Proto: https\r\n\
             Forwarded: for=203.0.113.5;proto=http\r\n",
            &["203.0.113.5", "127.0.0.2"],
            "https",
            "a.test",
        ),
        (
            "X-Forwarded-Proto: http\r\nForwarded: for=203.0.113.5;proto=https\r\n",
            &["203.0.113.5", "127.0.0.2"],
            "https",
            "a.test",
        ),
        // A list has a value for each hop.
        (
            "X-Forwarded-For: 203.0.113.5, 10.0.0.2\r\nX-Forwarded-Proto: https, http\r\n",
            &["203.0.113.5", "10.0.0.2", "127.0.0.2"],
            "https",
            "a.test",
        ),
    ] {
        let head = client.get("/head", fields).await.text();
        let chain: Vec<_> = chain.iter().map(ToString::to_string).collect();
        assert_eq!(both(&head), (chain, scheme.to_owned(), host.to_owned()), "{fields}");
    }
}

#[tokio::test]
async fn unreadable_forwarding_fields_are_not_forwarded() {
    let blue = Upstream::start("blue").await;
    let proxy = behind_a_proxy(&blue);
    let mut client = Client::connect(PUBLIC, proxy.public).await;
    for fields in [
        // A quote that is open would swallow what is added.
        "Forwarded: for=203.0.113.5;host=\"a\r\n",
        "Forwarded: for=203.0.113.5;host=\"a.test\\\"\r\n",
        "X-Forwarded-Proto: htt\"ps\r\nX-Forwarded-Host: a\"b;proto=x\r\n",
        "X-Forwarded-Proto: \r\nX-Forwarded-Host: \r\n",
        "X-Forwarded-Host: a.test/evil?\r\n",
    ] {
        let head = client.get("/head", fields).await.text();
        let (_, scheme, host) = both(&head);
        assert_eq!((scheme.as_str(), host.as_str()), ("http", "a.test"), "{fields}: {head}");
    }
}

#[tokio::test]
async fn forwarding_fields_of_a_client_that_is_no_trusted_proxy_are_ignored() {
    let blue = Upstream::start("blue").await;
    let proxy = behind_a_proxy(&blue);
    let mut client = Client::connect(INTERNAL, proxy.public).await;
    let forged = "X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\n\
                  Forwarded: for=10.0.0.1;proto=https;host=evil\r\n";
    let head = client.get("/head", forged).await.text();
    assert_eq!(both(&head), (vec!["127.0.0.1".into()], "http".into(), "a.test".into()));
}
