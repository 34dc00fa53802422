//! Mistakes in the configuration of gates are found before anything starts.

use flipgate::config::Config;

const BASE: &str =
    "[[listener]]\nlisten = \"127.0.0.1:1\"\n[service.web]\nblue.endpoints = [\"a:1\"]\n";

/// The mistakes of a configuration with this gate.
fn mistakes(gate: &str) -> Vec<String> {
    let text = format!("{BASE}[service.web.gate]\n{gate}\n");
    match Config::parse("x.toml".as_ref(), &text) {
        Ok(_) => Vec::new(),
        Err(mistakes) => mistakes.iter().map(|it| format!("{}: {}", it.key, it.message)).collect(),
    }
}

#[test]
fn each_mistake_is_reported_at_its_key() {
    let rule = |rule: &str| {
        format!(
            "compatible = {{ manifest = \"/m\", rules = [{{ name = \"r\", require = \"{rule}\" }}] }}"
        )
    };
    let step = |step: &str| format!("smoke = [{{ path = \"/\", {step} }}]");
    for (gate, key, what) in [
        ("deadline = \"2h\"", "deadline", "expected a duration of at most 1 hour"),
        ("healthy = { share = 0 }", "healthy.share", "from 1 to 100"),
        ("healthy = { share = 50, endpoints = 1 }", "healthy.endpoints", "`share` is set, too"),
        ("healthy = { endpoint = 1 }", "healthy.endpoint", "unknown key"),
        (
            "approval = { four_eyes = true }",
            "approval.four_eyes",
            "can only be told apart by their tokens",
        ),
        ("compatible = { manifest = \"m\" }", "compatible.manifest", "expected a path"),
        ("compatible = { manifest = \"/m\" }", "compatible.rules", "missing"),
        (&rule("new.a ="), "compatible.rules[0].require", "line 1, column 7: unexpected '='"),
        (
            &rule("nwe.a == 1"),
            "compatible.rules[0].require",
            "unknown name \"nwe\"; did you mean \"new\"?",
        ),
        (
            &rule("versoin(new.a) == 1"),
            "compatible.rules[0].require",
            "unknown function \"versoin\"",
        ),
        (
            &rule("true").replace("r\"", "r\", on = [\"flip\"]"),
            "compatible.rules[0].on",
            "expected \"promote\" or \"rollback\"",
        ),
        ("smoke = [{ method = \"GET\" }]", "smoke[0].path", "missing"),
        (&step("method = \"G T\""), "smoke[0].method", "is not a method"),
        (
            &step("headers = { \"a b\" = \"c\" }"),
            "smoke[0].headers.a b",
            "is not the name of a header",
        ),
        (
            &step("headers = { connection = \"close\" }"),
            "smoke[0].headers.connection",
            "Flipgate sets `connection` itself",
        ),
        (&step("expect.status = []"), "smoke[0].expect.status", "the list is empty"),
        (&step("expect.status = [\"6xx\"]"), "smoke[0].expect.status", "is not a status"),
        (&step("expect.body = \"(\""), "smoke[0].expect.body", "not a regular expression"),
        (
            &step("expect.headers = { a = \"(\" }"),
            "smoke[0].expect.headers.a",
            "not a regular expression",
        ),
        (&step("expect.json = \"new.a == 1\""), "smoke[0].expect.json", "unknown name \"new\""),
        (&step("save = { \"a-b\" = \"body.a\" }"), "smoke[0].save.a-b", "is not a name"),
        (
            "smoke = [{ path = \"/{id}\" }, { path = \"/\", save = { id = \"body.id\" } }]",
            "smoke",
            "uses {id}, which only a later step",
        ),
        ("warm_up = { paths = [\"/\"] }", "warm_up.requests", "missing"),
        ("warm_up = { requests = 1, p95 = \"1s\" }", "warm_up.p95", "`requests` is set, too"),
        ("warm_up = { requests = 1, paths = [] }", "warm_up.paths", "the list is empty"),
        (
            "hook = { url = \"ftp://a/b\", secret_file = \"/nowhere\" }",
            "hook.url",
            "expected a URL",
        ),
        (
            "hook = { url = \"http://u:p@a/b\", secret_file = \"/nowhere\" }",
            "hook.url",
            "a URL with a password is not supported",
        ),
        (
            "hook = { url = \"http://a/b\", secret_file = \"/nowhere\" }",
            "hook.secret_file",
            "cannot read /nowhere",
        ),
        ("hook = { url = \"http://a/b\" }", "hook.secret_file", "missing"),
        ("shadow = { share = 0 }", "shadow.share", "from 1 to 100"),
        ("shadow = { different = 101 }", "shadow.different", "from 0 to 100"),
        ("shadow = { requests = 0 }", "shadow.requests", "from 1 to 1000000"),
        ("shadow = { for = \"2m\" }", "shadow.for", "are not shorter than gate.deadline"),
        (
            "deadline = \"1m\"\nshadow = { timeout = \"1s\" }",
            "shadow.timeout",
            "are not shorter than gate.deadline",
        ),
        ("shadow = { exclude = [\"logout\"] }", "shadow.exclude[0]", "is not a path prefix"),
        ("shadow = { ignore = [\"a/b\"] }", "shadow.ignore[0]", "expected a JSON pointer"),
        ("shadow = { ignore_text = [\"(\"] }", "shadow.ignore_text[0]", "not a regular expression"),
        ("shadow = { headers = [\"a b\"] }", "shadow.headers[0]", "is not the name of a header"),
        ("shadow = { latency = 5 }", "shadow.latency", "or \"none\""),
        ("shadow = { ignored = [] }", "shadow.ignored", "unknown key"),
        ("smok = []", "smok", "did you mean"),
    ] {
        let found = mistakes(gate);
        let expected = found.iter().find(|it| it.starts_with(&format!("service.web.gate.{key}")));
        let is_there = expected.is_some_and(|it| it.contains(what));
        // The help of an unknown key is apart from its message.
        assert!(is_there || what == "did you mean" && expected.is_some(), "{gate}: {found:#?}");
    }
}

#[test]
fn what_is_right_has_no_mistake() {
    for gate in [
        "",
        "deadline = \"1h\"\nhealthy = { endpoints = 2, for = \"10s\" }",
        "compatible = { manifest = \"/m?full=1\", rules = [{ name = \"r\", require = \"new.a == old.a || candidate.b > active.b\" }] }",
        "smoke = [{ path = \"/\", save = { id = \"body.id\" } }, { path = \"/{id}?x={other}\" }]",
        "warm_up = { p95 = \"50ms\" }",
        "shadow = {}",
        "deadline = \"10m\"\nshadow = { share = 100, for = \"9m\", requests = 1, different = 0, credentials = true, exclude = [\"/\"], latency = \"200ms\" }",
    ] {
        assert_eq!(mistakes(gate), [""; 0], "{gate}");
    }
}
