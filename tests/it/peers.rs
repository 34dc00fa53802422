//! Do real peers see what we promise? Programs of `tests/peers/`, each with clients and servers that
//! others have written. `.ci/run` installs those; where they are missing elsewhere, a program is left out
//! and says so.

use std::{
    path::Path,
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
};

/// One program at a time: each starts a dozen processes, and has its own deadlines.
static TURN: Mutex<()> = Mutex::new(());

/// Where `.ci/run` puts the Python packages.
const PYTHON: &str = "target/peers/bin/python";

fn run(program: &str, tools: &[&str]) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let is_there = |it: &&&str| {
        let found = Command::new("sh").args(["-c", &format!("command -v {it}")]).output();
        found.is_ok_and(|it| it.status.success())
    };
    let python = std::env::var("FLIPGATE_PYTHON").unwrap_or_else(|_| PYTHON.to_owned());
    let mut missing: Vec<&str> = tools.iter().filter(|it| !is_there(it)).copied().collect();
    if !Path::new(&python).exists() {
        missing.push("the Python packages of tests/peers/requirements.txt");
    }
    if !missing.is_empty() {
        let left_out = format!("{program} is left out: there is no {}", missing.join(", no "));
        assert!(std::env::var_os("FLIPGATE_PEERS").is_none(), "{left_out}");
        println!("{left_out}; .ci/run installs what it needs");
        return;
    }
    let done = Command::new(python)
        .arg(format!("tests/peers/{program}"))
        .arg(env!("CARGO_BIN_EXE_flipgate"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .output()
        .expect("Python runs");
    let said = String::from_utf8_lossy(&done.stdout);
    let failed: Vec<_> = said.lines().filter(|it| !it.starts_with("ok ")).collect();
    let errors = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{program}:\n{}\n{errors}", failed.join("\n"));
    assert!(said.lines().filter(|it| it.starts_with("ok ")).count() > 5, "{said}");
}

#[test]
fn grpcio_calls_in_all_four_kinds() {
    run("grpc_kinds.py", &["openssl"]);
}

#[test]
fn websockets_talks_over_http1_and_http2() {
    run("websocket.py", &["openssl", "haproxy"]);
}

#[test]
fn h2load_loses_nothing_while_colors_are_flipped() {
    run("h2_load.py", &["openssl", "h2load"]);
}

#[test]
fn curl_finds_names_certificates_addresses_and_limits_as_promised() {
    run("curl.py", &["openssl", "curl", "haproxy"]);
}

#[test]
fn chromium_opens_a_websocket_over_http2() {
    run("browser.py", &["openssl", "chromium"]);
}

#[test]
fn chromium_shows_the_pictures_of_a_drill() {
    run("report.py", &["chromium", "openssl"]);
}

#[test]
fn an_endpoint_that_goes_away_and_comes_back_costs_no_get() {
    run("outage.py", &["openssl", "unshare", "ip", "nft", "ss"]);
}

#[test]
fn a_client_or_an_endpoint_that_vanishes_holds_nothing_up() {
    run("vanished.py", &["openssl", "unshare", "ip", "nft"]);
}
