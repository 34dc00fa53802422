//! Mistakes in `[service.X.pin]`.

use std::path::Path;

use flipgate::config::Config;

#[test]
fn settings_that_would_not_do_what_they_say_are_refused() {
    let minimal = std::fs::read_to_string("config/minimal.toml").expect("the file");
    let check = |pins: &str| {
        let api = "[service.api]\npath = \"/api\"\nblue.endpoints = [\"127.0.0.1:9003\"]\n";
        Config::parse(Path::new("flipgate.toml"), &format!("{minimal}\n{api}{pins}\n"))
    };
    let group = "[service.web.pin]\ngroup = \"shop\"\n[service.api.pin]\ngroup = \"shop\"\n";
    let by_name = "start = [\"header:X-Id\"]\ncarry = \"header:X-Id\"";
    for good in ["", "[service.api.pin]", group, &format!("[service.api.pin]\n{by_name}")] {
        assert!(check(good).is_ok(), "{good}");
    }
    for (pins, message) in [
        (
            format!("[service.api.pin]\n{by_name}\ngroup = \"shop\""),
            "only has an effect with carry",
        ),
        (format!("{group}max_age = \"1m\""), "has another `max_age`"),
        ("[service.web.pin]\n[service.api.pin]\ngroup = \"web\"".to_owned(), "has pins of its own"),
        ("[service.api.pin]\ncarry = \"query:scan\"".to_owned(), "a navigation does not carry"),
        ("[service.api.pin]\nidle = \"15m\"".to_owned(), "not shorter than `max_age`"),
        ("[service.api.pin]\nstart = []".to_owned(), "the list is empty"),
        ("[service.api.pin]\nstart = [\"page\"]".to_owned(), "header:NAME=VALUE"),
        ("[service.api.pin]\ndomain = \"example.com\"".to_owned(), "is not in `example.com`"),
    ] {
        let error = format!("{:?}", check(&pins).expect_err(&pins));
        assert!(error.contains(message), "{pins}: {error}");
    }
}
