//! The files of config/, mistakes in a configuration, includes and environment variables.

use std::path::Path;

use flipgate::config::{Config, ConfigSource, Diagnostic, Environment, Severity, schema};

fn load(name: &str) -> Config {
    source(name, &[]).load().unwrap_or_else(|error| panic!("{error}")).config
}

fn source(path: impl AsRef<Path>, variables: &[(&str, &str)]) -> ConfigSource {
    let variables = variables.iter().map(|(name, value)| (name.into(), value.into()));
    let environment = variables.collect::<Environment>();
    ConfigSource { path: path.as_ref().to_owned(), environment }
}

#[test]
fn the_example_is_the_defaults() {
    assert_eq!(load("config/example.toml"), load("config/minimal.toml"));
}

#[test]
fn every_file_of_config_is_good() {
    for folder in ["config", "config/examples"] {
        let entries = std::fs::read_dir(folder).expect("the folder");
        let paths = entries.map(|it| it.expect("an entry").path());
        let files: Vec<_> = paths.filter(|it| it.is_file()).collect();
        assert!(!files.is_empty(), "{folder} has files");
        for path in files {
            load(&path.display().to_string());
        }
    }
}

#[test]
fn a_setting_that_needs_a_restart_is_reported_by_its_key() {
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
        (
            "service.web.drain.websocket = { patience = \"10m\", spread = \"30s\", close = 1012 }",
            None,
        ),
        (
            "service.web.drain.websocket = { patience = \"0s\", spread = \"0s\", close = 4000 }",
            None,
        ),
        ("service.web.drain.sse = { retry = \"1500ms\" }", None),
        ("service.web.drain.grpc = {}", None),
        ("service.web.hold = { for = \"30s\", requests = 5, pass = [\"/healthz\"] }", None),
        ("service.web.drain.download = { spread = \"1m\" }", None),
        ("clients.internal = []", None),
    ] {
        assert_eq!(now.needs_restart(&parse(toml)), Vec::from_iter(key), "{toml}");
    }
}

#[test]
fn mistakes_that_would_start_and_not_work_are_found() {
    for (toml, mistake) in [
        ("admin.listen = \"0.0.0.0:9900\"", "needs a token"),
        ("admin.listen = \"127.0.0.1:8080\"", "a listener has this address"),
        ("log.level = \"verbose\"", "write error, warn, info"),
        ("clients.trusted_proxies = [\"0.0.0.0/0\"]", "could claim any address"),
        ("clients.internal = [\"10.0.0.1/8\"]", "use `10.0.0.0/8`"),
        ("shutdown.patience = 30", "duration with its unit"),
        ("shutdown.patience = \"0s\"", "longer than 0"),
        ("timeouts.head = \"25h\"", "at most 24 hours"),
        ("limits.connections = 0", "from 1 to"),
        ("limits.max_line = \"100B\"", "from \"1KiB\" to \"63KiB\""),
        ("limits.max_head = \"64KiB\"", "from \"1KiB\" to \"63KiB\""),
        ("limits.max_head = \"none\"", "from \"1KiB\" to \"63KiB\""),
        ("limits.max_head = \"4KiB\"", "is larger than `max_head`"),
        ("service.api.blue.endpoints = [\"a:1\"]", "both answer for host `*` and path `/`"),
        ("service.shop = { hosts = [\"shop.test\"] }", "service.shop.blue: missing"),
        ("service.shop = { hosts = [], blue = {} }", "the list is empty"),
        ("admin = 5", "expected a table, found integer"),
        ("dns.servers = [\"ns1\"]", "not the address of a name server"),
        ("dns = { min_ttl = \"9m\" }", "is shorter than `min_ttl`"),
        ("service.web.health.status = [\"200\"]", "only has an effect with `path`"),
        ("service.web.health = { path = \"healthz\" }", "expected a path"),
        ("service.web.health = { path = \"/\", status = [] }", "every response would be a failure"),
        ("service.web.health.interval = \"1ms\"", "at least \"100 ms\""),
        ("service.web.balance.policy = \"random\"", "\"least_request\", \"round_robin\""),
        ("service.web.balance.hash_on = \"cookie:sid\"", "policy = \"hash\""),
        ("service.web.balance = { policy = \"hash\", hash_on = \"sid\" }", "\"header:NAME\""),
        ("service.web.ejection = { base = \"10m\" }", "is shorter than `base`"),
        ("service.web.timeouts.upstream_stall = \"0s\"", "longer than 0"),
        ("service.web.timeouts.upstream_response = \"none\"", "duration with its unit"),
        ("service.web.timeouts.stall = \"1s\"", "unknown key `stall`"),
        (
            "service.web.drain.abandoned = \"maybe\"",
            "expected \"cut\" or \"wait\", found \"maybe\"",
        ),
        ("service.web.drain.patience = \"1s\"", "unknown key `patience`"),
        ("service.web.drain.websockets = {}", "did you mean `websocket`?"),
        ("service.web.drain.websocket = \"10m\"", "expected a table, found string"),
        ("service.web.drain.websocket.close = 1006", "1006 is not a status code of a Close frame"),
        ("service.web.drain.websocket.retry = \"1s\"", "unknown key `retry`"),
        ("service.web.drain.sse.close = 1012", "unknown key `close`"),
        ("service.web.drain.sse.retry = \"0s\"", "expected a duration longer than 0, or \"none\""),
        ("service.web.drain.upload.patience = 5", "expected a duration with its unit"),
        ("service.web.drain.grpc.spread = \"25h\"", "at most 24 hours, or \"0s\""),
        ("service.web.retry.on = [\"6xx\"]", "or \"closed\""),
        ("service.web.retry.on = [\"200-503\"]", "of successful responses"),
        ("service.web.ejection.on = [\"1xx\"]", "of successful responses"),
        ("service.web.health.path = \"/a#b\"", "expected a path"),
        ("service.web.retry.budget = 101", "from 0 to 100"),
        ("service.web.limits.client_rate = \"50\"", "like \"50/s\""),
        ("service.web.limits.client_burst = 5", "only has an effect with `client_rate`"),
        (
            "service.shop = { hosts = [\"shop.test\"], blue.endpoints = [{ address = \"a:1\", weight = 101 }] }",
            "from 1 to 100",
        ),
        (
            "service.shop = { hosts = [\"shop.test\"], blue.endpoints = [{ weight = 1 }] }",
            "address: missing",
        ),
        (
            "service.shop = { hosts = [\"shop.test\"], blue.endpoints = [{ address = \"a\" }, 5] }",
            "has no valid port",
        ),
        ("service.web.version_signal = { path = \"/\" }", "the place of paths of the application"),
        ("service.web.hold.for = \"6m\"", "at most \"5m\""),
        ("service.web.hold.requests = 0", "from 1 to 10000"),
        ("service.web.hold.pass = [\"healthz\"]", "is not a path"),
        ("service.web.hold.pass = [\"/a/../b\"]", "is not a path"),
        ("service.web.hold = { pas = [] }", "did you mean `pass`?"),
        ("service.web.version_signal.spread = 5", "duration with its unit"),
        ("service.web.version_signal = { sread = \"1s\" }", "did you mean `spread`?"),
        ("service.web.assets = {}", "prefixes: missing"),
        ("service.web.assets.prefixes = []", "nothing is an asset"),
        (
            "service.web.assets = { prefixes = [\"/a\"], status = [\"2xx\"] }",
            "of successful responses",
        ),
        (
            "service.web.assets = { prefixes = [\"/a\"], status = [], html_is_missing = false }",
            "no asset is missing",
        ),
        (
            "service.shop = { hosts = [\"shop.test\"], path = \"/shop\", blue = {}, assets.prefixes = [\"/a\"] }",
            "is not below the path `/shop` of the service",
        ),
        ("clients.internal = \"10.0.0.0/8\"", "expected a list"),
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

fn errors(toml: &str) -> Vec<Diagnostic> {
    Config::parse(Path::new("x.toml"), toml).expect_err("it has mistakes")
}

/// One missing bracket was reported as eight mistakes.
#[test]
fn a_syntax_error_is_one_error_and_hides_its_consequences() {
    for toml in [
        "[[listener]\nlisten = \"127.0.0.1:1\"\n[service.web]\nhosts = [\"*\"]\n",
        "[service.web]\nhosts = [\"*\"\npath = \"/\"\n[service.api]\nhosts = [\"a\"]\n[[listener]]\n",
        "workers = 1 2\n[service.web]\nhots = 1\n",
        "log.level = \"info\nworkers = 1\n[service.web]\n",
    ] {
        let found = errors(toml);
        assert_eq!(found.len(), 1, "{toml}: {found:?}");
        assert!(found[0].message.starts_with("not valid TOML"), "{found:?}");
    }
}

/// A misspelled table was two mistakes: the first said that the right one is missing.
#[test]
fn each_mistake_is_reported_once_and_with_its_cause() {
    const LISTENER: &str = "[[listener]]\nlisten = \"127.0.0.1:1\"\n";
    const BLUE: &str = "blue.endpoints = [\"a:1\"]\n";
    for (toml, mistake, help) in [
        (format!("{LISTENER}[services.web]\n{BLUE}"), "unknown key `services`", "`service`"),
        (
            format!("[[listeners]]\nlisten = \"127.0.0.1:1\"\n[service.web]\n{BLUE}"),
            "unknown key `listeners`",
            "`listener`",
        ),
        (
            format!("{LISTENER}[service.web.red]\nendpoints = [\"a:1\"]\n"),
            "unknown key `red`",
            "blue",
        ),
        (
            format!("{LISTENER}[service.web]\n{BLUE}hosts = [\"https://a.b/\"]\n"),
            "is not a host",
            "example.com",
        ),
        (
            format!("{LISTENER}[service.web.blue]\nendpoints = [127.0.0.1:9001]\n"),
            "not valid TOML",
            "double quotes",
        ),
        (
            format!("{LISTENER}{LISTENER}[service.web]\n{BLUE}"),
            "listener[0].listen has the address 127.0.0.1:1",
            "remove one",
        ),
        (format!("{LISTENER}[service.web]\nhosts = []\n{BLUE}"), "the list is empty", "[\"*\"]"),
        (format!("{LISTENER}[service.web]\n"), "missing", "[service.web.blue]"),
        (LISTENER.to_owned(), "missing", "[service.web]"),
        (
            format!("include = \"a.toml\"\n{LISTENER}[service.web]\n{BLUE}"),
            "expected a list of paths",
            "conf.d",
        ),
        (format!("include = [1]\n{LISTENER}[service.web]\n{BLUE}"), "expected a path", "integer"),
        (
            format!("include = [\"${{A}}.toml\"]\n{LISTENER}[service.web]\n{BLUE}"),
            "environment variables are not filled in",
            "without",
        ),
    ] {
        let found = errors(&toml);
        assert_eq!(found.len(), 1, "{toml}: {found:?}");
        let shown = found[0].to_string();
        assert!(shown.contains(mistake) && shown.contains(help), "{toml}: {shown}");
    }
}

#[test]
fn a_key_that_is_set_twice_is_named_beside_all_other_mistakes() {
    let found = errors(
        "workers = 1\nworkers = 2\nstatedir = \"x\"\n[[listener]]\nlisten = \"1\"\n[service.web]\n\
         blue.endpoints = [\"a:1\"]\nhosts = [\"a\"]\nhosts = [\"b\"]\n",
    );
    let shown: Vec<_> = found.iter().map(ToString::to_string).collect();
    assert_eq!(shown.len(), 4, "{shown:?}");
    assert!(shown[0].starts_with("x.toml:2:1: duplicate key `workers`"), "{shown:?}");
    assert!(shown[1].starts_with("x.toml:3:1: statedir: unknown key `statedir`; did you mean"));
    assert!(shown[2].starts_with("x.toml:5:10: listener[0].listen: "), "{shown:?}");
    assert!(shown[3].starts_with("x.toml:9:1: duplicate key `hosts`"), "{shown:?}");
}

#[test]
fn environment_variables_are_filled_into_strings_and_may_be_numbers() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("flipgate.toml");
    let text = "workers = \"${WORKERS}\"\nadmin.require_if_match = \"${STRICT:-true}\"\n[[listener]]\n\
                listen = \"${HOST}:${PORT:-8080}\"\n[service.web.blue]\nversion = \"${VERSION}\"\n\
                endpoints = [\"${HOST}:1\"]\n";
    std::fs::write(&path, text).expect("written");
    let variables = [("WORKERS", "3"), ("HOST", "127.0.0.1"), ("VERSION", "8")];
    let config = source(&path, &variables).load().expect("a good file").config;
    assert_eq!((config.workers, config.admin.require_if_match), (3, true));
    assert_eq!(config.listeners[0].address.to_string(), "127.0.0.1:8080");
    let web = &config.catalog.services()["web"];
    assert_eq!(web.blue.version.as_ref().map(ToString::to_string).as_deref(), Some("8"));

    // A value cannot add keys or lines, and what is not set is an error at its place that hides no others.
    let with_line = [("WORKERS", "3\nadmin.listen = 1"), ("HOST", "127.0.0.1"), ("VERSION", "8")];
    let found = source(&path, &with_line).load().expect_err("a mistake").to_string();
    assert!(
        found.contains(":1:11: workers: environment variable `WORKERS` has a control character"),
        "{found}"
    );
    let hostile = [("WORKERS", "3, admin.listen = \"0.0.0.0:1\""), ("HOST", "127.0.0.1")];
    let found = source(&path, &hostile).load().expect_err("mistakes").to_string();
    assert!(found.contains(":1:11: workers: expected a whole number from 0 to 1024"), "{found}");
    assert!(found.contains(
        ":6:11: service.web.blue.version: environment variable `VERSION` is not set; set it"
    ));
    assert_eq!(found.lines().count(), 2, "{found}");
    // Without a variable, a number in quotes is still a string.
    assert!(errors("workers = \"3\"").iter().any(|it| it.message.contains("found string")));
}

/// A long chain was read by recursion, and a reload of it ended the process with a stack overflow.
#[test]
fn a_chain_of_included_files_has_a_limit() {
    let folder = tempfile::tempdir().expect("a folder");
    let name = |number: usize| folder.path().join(format!("{number}.toml"));
    let write = |length: usize| {
        for it in 0..length {
            let next = format!("include = [\"{}.toml\"]\n", it + 1);
            std::fs::write(name(it), next).expect("written");
        }
        let last =
            "[[listener]]\nlisten = \"127.0.0.1:1\"\n[service.web.blue]\nendpoints = [\"a:1\"]\n";
        std::fs::write(name(length), last).expect("written");
    };
    write(16);
    source(name(0), &[]).load().expect("16 files deep");
    write(5000);
    let found = source(name(0), &[]).load().expect_err("too deep").to_string();
    assert!(
        found.contains("16.toml:1:12: include: files are included through more than 16"),
        "{found}"
    );
}

#[test]
fn included_files_are_one_configuration_and_paths_are_relative_to_their_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        std::fs::write(&path, text).expect("written");
        path
    };
    let main = write(
        "flipgate.toml",
        "include = [\"conf.d/*.toml\", \"none.d/*.toml\", \"more/tokens.toml\"]\n\
         [[listener]]\nlisten = \"127.0.0.1:1\"\n",
    );
    write("conf.d/a.toml", "[service.a]\npath = \"/a\"\nblue.endpoints = [\"a:1\"]\n");
    write(
        "conf.d/b.toml",
        "[[listener]]\nlisten = \"127.0.0.1:2\"\n[service.b]\nblue.endpoints = [\"b:1\"]\n",
    );
    write("more/secret", "0123456789abcdef0123");
    write(
        "more/tokens.toml",
        "[[admin.token]]\nname = \"t\"\nscope = \"read\"\nfile = \"secret\"\n",
    );
    let loaded = source(&main, &[]).load().expect("good files");
    let names: Vec<_> = loaded.config.catalog.services().keys().map(ToString::to_string).collect();
    assert_eq!((names, loaded.files), (vec!["a".to_owned(), "b".to_owned()], 4));
    assert_eq!(loaded.config.listeners.len(), 2);
    assert_eq!(loaded.config.admin.tokens.len(), 1);
    assert_eq!(loaded.config.state_dir, folder.path().join("state"));

    // Each mistake names the file that it is in.
    write("conf.d/c.toml", "workers = 2\n[service.a]\npath = \"/c\"\n[service.c]\nhots = 1\n");
    let found = source(&main, &[]).load().expect_err("mistakes").to_string();
    let (a, c) = (folder.path().join("conf.d/a.toml"), folder.path().join("conf.d/c.toml"));
    let double = format!(
        "{}:3:1: service.a.path: duplicate key; it is also set at {}:2",
        c.display(),
        a.display()
    );
    assert!(found.contains(&double), "{found}");
    assert!(
        found.contains(&format!("{}:5:1: service.c.hots: unknown key", c.display())),
        "{found}"
    );

    write("conf.d/c.toml", "include = [\"../flipgate.toml\"]\n");
    let found = source(&main, &[]).load().expect_err("a circle").to_string();
    assert!(found.contains("includes itself") && found.lines().count() == 1, "{found}");
    write("conf.d/c.toml", "include = [\"missing.toml\"]\n");
    let found = source(&main, &[]).load().expect_err("a file is missing").to_string();
    assert!(
        found.contains("c.toml:1:12: include: cannot read ") && found.lines().count() == 1,
        "{found}"
    );
}

#[test]
fn a_valid_but_probably_unintended_setting_is_a_warning() {
    let good = "[[listener]]\nlisten = \"127.0.0.1:1\"\n";
    let warnings = |services: &str| {
        let loaded = source("x.toml", &[]).check(format!("{good}{services}")).expect("no errors");
        assert!(loaded.warnings.iter().all(|it| it.severity == Severity::Warning));
        loaded.warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let empty = warnings("[service.web]\nblue = {}\ngreen = { endpoints = [\"a:1\"] }\n");
    assert!(empty.len() == 1 && empty[0].contains("service.web.blue: blue is active"), "{empty:?}");
    let both = "blue = { endpoints = [\"a:1\"] }\ngreen = { endpoints = [\"a:1\"] }\n";
    let both = warnings(&format!("[service.web]\n{both}"));
    assert!(both.len() == 1 && both[0].contains("`a:1` is an endpoint of blue and of green"));
    let good = "blue = { endpoints = [\"a:1\"] }\ngreen = { endpoints = [\"b:1\"] }\n";
    assert_eq!(warnings(&format!("[service.web]\n{good}")), [""; 0]);
}

/// The schema has every key of the example, and the reader every key of the schema.
#[test]
fn the_schema_has_the_keys_that_are_read() {
    fn keys(schema: &serde_json::Value, path: &str, found: &mut Vec<String>) {
        let tables = [schema, &schema["items"], &schema["additionalProperties"]];
        for table in tables {
            for (name, inner) in table["properties"].as_object().into_iter().flatten() {
                found.push(name.clone());
                keys(inner, &format!("{path}.{name}"), found);
            }
        }
        for inner in schema["items"]["anyOf"].as_array().into_iter().flatten() {
            keys(inner, path, found);
        }
    }
    let mut of_schema = Vec::new();
    keys(&schema(), "", &mut of_schema);
    of_schema.sort();
    of_schema.dedup();
    let mut read = Vec::new();
    for file in [
        "mod",
        "settings",
        "services",
        "listeners",
        "policy",
        "gates",
        "shadow",
        "watch",
        "rollouts",
        "rollout_stages",
    ] {
        let text = std::fs::read_to_string(format!("src/config/{file}.rs")).expect("source");
        for call in [
            "most(\"",
            "read(\"",
            "list(\"",
            "string_table(\"",
            "table(section, \"",
            "need(\"",
            "time(\"",
            "number(\"",
            "numbers(\"",
            "section(\"",
            "sections(\"",
            "strings_or_tables(\"",
            "file(\"",
            "statuses(section, \"",
        ] {
            read.extend(text.match_indices(call).map(|(place, _)| {
                text[place + call.len()..].split('"').next().unwrap_or_default().to_owned()
            }));
        }
    }
    read.sort();
    read.dedup();
    let missing: Vec<_> = read.iter().filter(|it| !of_schema.contains(it)).collect();
    assert!(missing.is_empty(), "not in the schema: {missing:?}");
    let example = std::fs::read_to_string("config/example.toml").expect("the file");
    let unknown: Vec<_> = of_schema.iter().filter(|it| !example.contains(it.as_str())).collect();
    assert!(unknown.is_empty(), "in the schema, but not in the example: {unknown:?}");
}

/// A plan that would begin and not end, or not be undone, is no plan.
#[test]
fn a_plan_of_a_rollout_that_cannot_be_ended_or_undone_is_a_mistake() {
    const SERVICE: &str = "[[listener]]\nlisten = \"127.0.0.1:1\"\n[service.web]\nblue.endpoints = [\"a:1\"]\n[rollouts]\nexec = true\n";
    let stage = |more: &str| format!("[[rollout.x.stage]]\nname = \"a\"\n{more}\n");
    let undo = "undo = { kind = \"exec\", command = [\"true\"] }";
    for (plan, mistake) in [
        ("[rollout.x]\nstage = []\n".to_owned(), "missing"),
        ("[rollout.x]\n".to_owned(), "missing"),
        (stage(&format!("kind = \"promote\"\n{undo}")), "undoes such a stage by itself"),
        (stage(&format!("kind = \"hold\"\n{undo}")), "undoes such a stage by itself"),
        (stage(&format!("kind = \"pool\"\n{undo}")), "undoes such a stage by itself"),
        (
            stage(
                "kind = \"approve\"\nundo = { kind = \"exec\", command = [\"true\"], deadline = \"none\" }",
            ),
            "deadline",
        ),
        (stage("kind = \"call\"\nurl = \"http://a:99999/\""), "is not a URL"),
        (stage("kind = \"call\"\nurl = \"http://a:/\""), "is not a URL"),
        (stage("kind = \"promote\"\nsteps = [10, 100]\nconfirm_within = \"5m\""), "steps"),
    ] {
        let found = errors(&format!("{SERVICE}{plan}"));
        assert_eq!(found.len(), 1, "{plan}: {found:?}");
        let shown = found[0].to_string();
        assert!(shown.contains(mistake), "{plan}: {shown}");
    }
    let good = stage(&format!("kind = \"approve\"\n{undo}"))
        + &stage("kind = \"promote\"\nconfirm_within = \"5m\"").replace("\"a\"", "\"b\"");
    Config::parse(Path::new("x.toml"), &format!("{SERVICE}{good}")).expect("a good one");
}
