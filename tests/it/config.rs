//! Do the files of config/ say what is true?

use std::path::Path;

use flipgate::config::Config;

fn load(name: &str) -> Config {
    Config::load(Path::new(name)).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn the_example_is_the_defaults() {
    assert_eq!(load("config/example.toml"), load("config/minimal.toml"));
}

#[test]
fn every_file_of_config_is_good() {
    for entry in std::fs::read_dir("config").expect("the folder") {
        load(&entry.expect("an entry").path().display().to_string());
    }
}

#[test]
fn what_needs_a_restart_is_named_by_its_key() {
    let minimal = std::fs::read_to_string("config/minimal.toml").expect("the file");
    let parse = |toml: &str| {
        let text = format!("{toml}\n{minimal}");
        Config::parse(Path::new("x.toml"), &text).expect("a good file")
    };
    let now = parse("");
    for (toml, key) in [
        ("workers = 3", Some("workers")),
        ("timeouts.stall = \"5s\"", Some("timeouts")),
        ("timeouts.upstream_connect = \"1s\"", Some("timeouts")),
        ("limits.upstream_idle = 7", Some("limits")),
        ("limits.connections = 7", Some("limits")),
        ("limits.max_line = \"7KiB\"", Some("limits")),
        ("limits.in_flight = 7", Some("limits")),
        ("dns.min_ttl = \"2s\"", Some("dns")),
        ("shutdown.patience = \"1s\"", Some("shutdown")),
        ("timeouts.upstream_response = \"1s\"", None),
        ("service.web.timeouts.upstream_connect = \"1s\"", None),
        ("service.web.timeouts.request = \"1s\"", None),
        ("service.web.drain.abandoned = \"wait\"", None),
        ("clients.internal = []", None),
    ] {
        assert_eq!(now.needs_restart(&parse(toml)), Vec::from_iter(key), "{toml}");
    }
}

/// A key that is read and not in the example is one that nobody finds.
#[test]
fn the_example_has_every_key() {
    let example = std::fs::read_to_string("config/example.toml").expect("the file");
    let mut keys = Vec::new();
    for source in [
        "src/config/mod.rs",
        "src/config/settings.rs",
        "src/config/services.rs",
        "src/config/listeners.rs",
        "src/config/policy.rs",
    ] {
        let text = std::fs::read_to_string(source).expect("source is UTF-8");
        let calls = [
            "most(\"",
            "statuses(section, \"",
            "read(\"",
            "list(\"",
            "need(\"",
            "time(\"",
            "number(\"",
            "section(\"",
            "sections(\"",
        ];
        for call in calls {
            let found = text.match_indices(call).map(|(place, _)| {
                let rest = &text[place + call.len()..];
                rest.split('"').next().unwrap_or_default().to_owned()
            });
            keys.extend(found);
        }
        let broken = text.split("read(\n").skip(1).chain(text.split("list(\n").skip(1));
        keys.extend(
            broken
                .filter_map(|it| Some(it.trim().strip_prefix('"')?.split('"').next()?.to_owned())),
        );
    }
    assert!(keys.len() > 70, "{keys:?}");
    for key in keys {
        assert!(example.contains(&key), "{key} is not in config/example.toml");
    }
}

#[test]
fn mistakes_that_would_start_and_not_work_are_found() {
    for (toml, mistake) in [
        ("admin.listen = \"0.0.0.0:9900\"", "needs a token"),
        ("admin.listen = \"127.0.0.1:8080\"", "of a listener too"),
        ("log.level = \"verbose\"", "is error, warn, info"),
        ("clients.trusted_proxies = [\"0.0.0.0/0\"]", "who they are"),
        ("clients.internal = [\"10.0.0.1/8\"]", "write `10.0.0.0/8`"),
        ("shutdown.patience = 30", "duration with its unit"),
        ("shutdown.patience = \"0s\"", "longer than 0"),
        ("timeouts.head = \"25h\"", "at most a day"),
        ("limits.connections = 0", "from 1 to"),
        ("limits.max_line = \"100B\"", "from \"1KiB\" to \"63KiB\""),
        ("limits.max_head = \"64KiB\"", "from \"1KiB\" to \"63KiB\""),
        ("limits.max_head = \"none\"", "from \"1KiB\" to \"63KiB\""),
        ("limits.max_head = \"4KiB\"", "is larger than `max_head`"),
        ("service.api.blue.endpoints = [\"a:1\"]", "both answer for host `*` and path `/`"),
        ("service.shop = { hosts = [\"shop.test\"] }", "service.shop.blue: is missing"),
        ("service.shop = { hosts = [], blue = {} }", "names no host"),
        ("admin = 5", "is a table"),
        ("dns.servers = [\"ns1\"]", "not the address of a name server"),
        ("dns = { min_ttl = \"9m\" }", "is shorter than `min_ttl`"),
        ("service.web.health.status = [\"200\"]", "without `path`"),
        ("service.web.health = { path = \"healthz\" }", "is a path"),
        ("service.web.health = { path = \"/\", status = [] }", "no answer would be good"),
        ("service.web.health.interval = \"1ms\"", "at least \"100 ms\""),
        ("service.web.balance.policy = \"random\"", "\"least_request\", \"round_robin\""),
        ("service.web.balance.hash_on = \"cookie:sid\"", "policy = \"hash\""),
        ("service.web.balance = { policy = \"hash\", hash_on = \"sid\" }", "\"header:NAME\""),
        ("service.web.ejection = { base = \"10m\" }", "is shorter than `base`"),
        ("service.web.timeouts.upstream_stall = \"0s\"", "longer than 0"),
        ("service.web.timeouts.upstream_response = \"none\"", "duration with its unit"),
        ("service.web.timeouts.stall = \"1s\"", "is not a key here"),
        ("service.web.drain.abandoned = \"maybe\"", "is \"cut\" or \"wait\""),
        ("service.web.drain.patience = \"1s\"", "is not a key here"),
        ("service.web.retry.on = [\"6xx\"]", "or \"closed\""),
        ("service.web.retry.on = [\"200-503\"]", "that are good"),
        ("service.web.ejection.on = [\"1xx\"]", "that are good"),
        ("service.web.health.path = \"/a#b\"", "is a path"),
        ("service.web.retry.budget = 101", "from 0 to 100"),
        ("service.web.limits.client_rate = \"50\"", "like \"50/s\""),
        ("service.web.limits.client_burst = 5", "is for `client_rate`"),
        (
            "service.shop = { hosts = [\"shop.test\"], blue.endpoints = [{ address = \"a:1\", weight = 101 }] }",
            "from 1 to 100",
        ),
        (
            "service.shop = { hosts = [\"shop.test\"], blue.endpoints = [{ weight = 1 }] }",
            "address: is missing",
        ),
        (
            "service.shop = { hosts = [\"shop.test\"], blue.endpoints = [{ address = \"a\" }, 5] }",
            "has no port",
        ),
        ("clients.internal = \"10.0.0.0/8\"", "is a list"),
        ("workers = 1.5", "whole number"),
        ("state_dir = ", ""),
        ("a b", ""),
    ] {
        let minimal = std::fs::read_to_string("config/minimal.toml").expect("the file");
        let text = format!("{toml}\n{minimal}");
        let found = Config::parse(Path::new("x.toml"), &text).expect_err(toml);
        let all: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert!(
            all.iter().any(|it| it.starts_with("x.toml:") && it.contains(mistake)),
            "{toml}: {all:?}"
        );
    }
    let none = Config::parse(Path::new("x.toml"), "").expect_err("nothing is there");
    let keys: Vec<_> = none.iter().map(|it| it.key.as_str()).collect();
    assert_eq!(keys, ["listener", "service"]);
}
