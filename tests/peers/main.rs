//! Do real peers see what Flipgate promises? Each test is a program of this folder, with clients and servers that
//! others have written. `.ci/run` installs those.
//!
//! A test without its tools is ignored, and counted as such; with `FLIPGATE_PEERS=required` it fails.
//! `FLIPGATE_PYTHON` names the Python that has the packages of `requirements.txt`.

use std::{
    path::Path,
    process::{Command, ExitCode, Stdio},
};

use libtest_mimic::{Arguments, Failed, Trial};

/// A program, and the commands that it needs.
struct Peer {
    name: &'static str,
    program: &'static str,
    commands: &'static [&'static str],
}

/// Where `.ci/run` puts the Python packages.
const PYTHON: &str = "target/peers/bin/python";

const PEERS: [Peer; 9] = [
    Peer {
        name: "grpcio_calls_in_all_four_kinds",
        program: "grpc_kinds.py",
        commands: &["openssl"],
    },
    Peer {
        name: "websockets_talks_over_http1_and_http2",
        program: "websocket.py",
        commands: &["openssl", "haproxy"],
    },
    Peer {
        name: "h2load_loses_nothing_while_colors_are_flipped",
        program: "h2_load.py",
        commands: &["openssl", "h2load"],
    },
    Peer {
        name: "curl_finds_names_certificates_addresses_and_limits_as_promised",
        program: "curl.py",
        commands: &["openssl", "curl", "haproxy"],
    },
    Peer {
        name: "chromium_opens_a_websocket_over_http2",
        program: "browser.py",
        commands: &["openssl", "chromium"],
    },
    Peer {
        name: "a_page_in_chromium_reloads_itself_after_a_flip",
        program: "reload.py",
        commands: &["openssl", "chromium"],
    },
    Peer {
        name: "chromium_shows_the_pictures_of_a_drill",
        program: "report.py",
        commands: &["chromium", "openssl"],
    },
    Peer {
        name: "an_endpoint_that_goes_away_and_comes_back_costs_no_get",
        program: "outage.py",
        commands: &["openssl", "unshare", "ip", "nft", "ss"],
    },
    Peer {
        name: "a_client_or_an_endpoint_that_vanishes_holds_nothing_up",
        program: "vanished.py",
        commands: &["openssl", "unshare", "ip", "nft"],
    },
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // One program at a time: each starts a dozen processes, and has its own deadlines.
    arguments.test_threads = Some(1);
    let is_required = match std::env::var("FLIPGATE_PEERS") {
        Ok(value) if value == "required" => true,
        Ok(value) => {
            eprintln!("error: FLIPGATE_PEERS is {value:?}; write `required`, or leave it out");
            return ExitCode::from(2);
        }
        Err(_) => false,
    };
    let python = std::env::var("FLIPGATE_PYTHON").unwrap_or_else(|_| PYTHON.to_owned());
    let trial = |peer: &'static Peer| {
        let missing = missing(peer, &python);
        let python = python.clone();
        let is_ignored = !missing.is_empty() && !is_required;
        if is_ignored {
            eprintln!(
                "{} is ignored: there is no {}; .ci/run installs what it needs",
                peer.name,
                missing.join(", no ")
            );
        }
        Trial::test(peer.name, move || run(peer, &python, &missing)).with_ignored_flag(is_ignored)
    };
    libtest_mimic::run(&arguments, PEERS.iter().map(trial).collect()).exit_code()
}

/// What a program needs and this machine does not have.
fn missing(peer: &Peer, python: &str) -> Vec<&'static str> {
    let is_there = |it: &&&str| {
        let found = Command::new("sh").args(["-c", &format!("command -v {it}")]).output();
        found.is_ok_and(|it| it.status.success())
    };
    let mut missing: Vec<_> = peer.commands.iter().filter(|it| !is_there(it)).copied().collect();
    if !Path::new(python).exists() {
        missing.push("Python with the packages of tests/peers/requirements.txt");
    }
    missing
}

fn run(peer: &Peer, python: &str, missing: &[&str]) -> Result<(), Failed> {
    if !missing.is_empty() {
        return Err(format!("there is no {}", missing.join(", no ")).into());
    }
    let done = Command::new(python)
        .arg(format!("tests/peers/{}", peer.program))
        .arg(env!("CARGO_BIN_EXE_flipgate"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .output()?;
    let said = String::from_utf8_lossy(&done.stdout);
    let kept = said.lines().filter(|it| it.starts_with("ok ")).count();
    if done.status.success() && kept > 5 {
        return Ok(());
    }
    let failed: Vec<_> = said.lines().filter(|it| !it.starts_with("ok ")).collect();
    let errors = String::from_utf8_lossy(&done.stderr);
    Err(format!("{kept} promises kept, then:\n{}\n{errors}", failed.join("\n")).into())
}
