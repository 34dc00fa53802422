//! The drill finds planted faults, and none in a proxy without them.

use std::{
    io::Read,
    net::{SocketAddr, TcpListener},
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::support::{
    Upstream, eventually,
    planted::{Fault, Planted, Upstreams},
    process,
};

/// All kinds of requests that a public client has.
const ALL: &str = "short=60,pair=20,download=5,upload=5,ws=5,sse=5,refused-preview=5";

/// Ten flips of both services a second.
const FLIPS: &[&str] = &["--flip-every=100ms"];

/// A listener at a port outside of the range of automatic ports, so that the port is still free when it is opened again
/// a moment later.
fn listener_for_later() -> TcpListener {
    let ports = std::iter::repeat_with(|| fastrand::u16(15_000..32_000)).take(1000);
    let mut listeners = ports.filter_map(|it| TcpListener::bind(("127.0.0.1", it)).ok());
    listeners.next().expect("a free port")
}

/// The report of a drill of a proxy with two services and a fault, and its exit code.
async fn drill(fault: Fault, mix: &str, more: &[&str]) -> (Value, Option<i32>) {
    drill_of(fault, 1, mix, more).await
}

/// The same, with a number of endpoints of each color.
async fn drill_of(
    fault: Fault,
    endpoints: usize,
    mix: &str,
    more: &[&str],
) -> (Value, Option<i32>) {
    // Held until the proxy has its ports, so that it gets none of these.
    let held: Vec<_> = std::iter::repeat_with(listener_for_later).take(4 * endpoints).collect();
    let ports: Vec<_> = held.iter().map(|it| it.local_addr().expect("a bound socket")).collect();
    let colors: Vec<Vec<SocketAddr>> = ports.chunks(endpoints).map(<[_]>::to_vec).collect();
    let services: Vec<Upstreams> =
        colors.chunks(2).map(|it| [it[0].clone(), it[1].clone()]).collect();
    let planted = Planted::start(fault, services).await;
    drop(held);
    let folder = tempfile::tempdir().expect("a folder");
    let mut arguments = vec![
        "drill".to_owned(),
        "--json".to_owned(),
        format!("--mix={mix}"),
        "--public-from=127.0.0.1".to_owned(),
        "--tester-from=127.0.0.1".to_owned(),
        format!("--url=web=http://{}", planted.public[0]),
        format!("--url=api=http://{}", planted.public[1]),
        format!("--admin=http://{}", planted.admin),
        format!("--report={}", folder.path().join("report.html").display()),
    ];
    let places = ["web.blue", "web.green", "api.blue", "api.green"];
    for (place, endpoints) in places.iter().zip(&colors) {
        arguments.extend(endpoints.iter().map(|at| format!("--upstream={place}={at}")));
    }
    let load = "--duration=3s --warm-up=100ms --steady=0s --rate=150 --stream-time=250ms";
    let name = |it: &str| it.split('=').next().map(str::to_owned);
    // Options of a test replace the usual ones.
    let load = load.split_whitespace().filter(|it| more.iter().all(|own| name(own) != name(it)));
    arguments.extend(load.chain(more.iter().copied()).map(str::to_owned));
    let output = tokio::task::spawn_blocking(move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        process::run(&arguments)
    })
    .await
    .expect("no panic inside");
    let text = String::from_utf8_lossy(&output.stdout);
    let report = serde_json::from_str(&text).unwrap_or_else(|error| {
        panic!("{fault:?}: {error}\n{text}\n{}", String::from_utf8_lossy(&output.stderr))
    });
    (report, output.status.code())
}

/// The state of each promise.
fn state(report: &Value, promise: &str) -> String {
    let promises = report["promises"].as_array().expect("promises");
    let found = promises.iter().find(|it| it["name"] == promise).expect("a promise");
    found["state"].as_str().expect("a word").to_owned()
}

/// The promises that are broken.
fn broken(report: &Value) -> Vec<&str> {
    let promises = report["promises"].as_array().expect("promises").iter();
    promises.filter(|it| it["state"] == "broken").filter_map(|it| it["name"].as_str()).collect()
}

/// The drill finds a planted fault: it breaks a promise, and besides that only some of `others`.
async fn finds(fault: Fault, mix: &str, promise: &str, others: &[&str]) {
    let (report, code) = drill(fault, mix, FLIPS).await;
    is_found(fault, (&report, code), promise, others);
}

fn is_found(fault: Fault, (report, code): (&Value, Option<i32>), promise: &str, others: &[&str]) {
    assert_eq!(code, Some(1), "{fault:?}: {report:#}");
    assert_eq!(report["clean"], false);
    let broken = broken(report);
    assert!(broken.contains(&promise), "{fault:?}: {report:#}");
    let is_known = |it: &&str| *it == promise || others.contains(it);
    assert!(broken.iter().all(is_known), "{fault:?}: {broken:?}: {report:#}");
    let violations = report["violations"].as_array().expect("violations");
    let text = |it: &Value| it["text"].as_str().map(str::len);
    assert!(violations.iter().all(|it| text(it) > Some(20)), "{report:#}");
}

#[tokio::test]
async fn a_good_proxy_keeps_every_promise() {
    let (report, code) = drill(Fault::None, ALL, FLIPS).await;
    assert_eq!(code, Some(0), "{report:#}");
    for promise in [
        "answered",
        "register",
        "together",
        "once",
        "whole",
        "kept",
        "private",
        "drained",
        "acknowledged",
    ] {
        assert_eq!(state(&report, promise), "held", "{promise}: {report:#}");
    }
    assert!(report["flips"]["count"].as_u64() > Some(10), "{report:#}");
    // Flips pause until they come.
    assert!(report["drains"]["events"].as_u64() > Some(2), "{report:#}");
}

#[tokio::test]
async fn untested_promises_are_unchecked_not_held() {
    let (report, code) = drill(Fault::None, "preview=1", &["--step=at 1s flip"]).await;
    assert_eq!(code, Some(1), "this proxy grants no previews: {report:#}");
    for promise in ["register", "together", "kept"] {
        assert_eq!(state(&report, promise), "unchecked", "{promise}: {report:#}");
    }
}

#[test]
fn bad_colors_are_refused_and_rolled_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let report = format!("--report={}", folder.path().join("report.html").display());
    let load = ["--duration=9s", "--warm-up=100ms", "--rate=100", "--stream-time=250ms"];
    let script = ["drill", "--demo", "--json", "--script=tests/gates.drill", &report];
    let output = process::run(&[&script[..], &load].concat());
    let text = String::from_utf8_lossy(&output.stdout);
    let report: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(output.status.code(), Some(0), "{report:#}");
    for promise in ["answered", "register", "once", "private", "drained", "gated", "guarded"] {
        assert_eq!(state(&report, promise), "held", "{promise}: {report:#}");
    }
    let promises = report["promises"].as_array().expect("promises");
    let guarded = promises.iter().find(|it| it["name"] == "guarded").expect("a promise");
    assert_eq!(guarded["checked"], 2);
    let cost = guarded["cost"].as_u64().expect("a number");
    assert!((4..500).contains(&cost), "{report:#}");
    assert!(report["requests"]["excused"].as_u64() >= Some(cost), "{report:#}");
}

#[test]
fn transactions_stay_on_their_version_and_websockets_move() {
    let folder = tempfile::tempdir().expect("a folder");
    let report = format!("--report={}", folder.path().join("report.html").display());
    let mix = "--mix=short=40,pair=10,ws=10,sse=4,refused-preview=3,preview=3,scan=10,page=10";
    let load = ["--duration=5s", "--warm-up=100ms", "--rate=50", "--stream-time=1s", "--json"];
    let flips = ["drill", "--demo", "--services=2", "--flip-every=1s", mix, &report];
    let output = process::run(&[&flips[..], &load].concat());
    let text = String::from_utf8_lossy(&output.stdout);
    let report: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(output.status.code(), Some(0), "{report:#}");
    for promise in [
        "answered",
        "register",
        "together",
        "once",
        "whole",
        "kept",
        "private",
        "drained",
        "acknowledged",
        "pinned",
        "whole_page",
    ] {
        assert_eq!(state(&report, promise), "held", "{promise}: {report:#}");
    }
    assert!(report["reconnects"].as_u64() > Some(0), "{report:#}");
}

#[tokio::test]
async fn a_proxy_without_gates_is_found() {
    let steps = &["--step=at 1s refuse web"];
    let (report, code) = drill(Fault::None, "short=1", steps).await;
    assert_eq!(code, Some(1), "{report:#}");
    assert_eq!(broken(&report), ["gated"], "{report:#}");
}

#[test]
fn a_drill_without_flips_is_incomplete_unless_that_is_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("report.html");
    let report = format!("--report={}", path.display());
    let common = ["drill", "--demo", "--duration=1s", "--warm-up=0s", "--rate=50", &report];
    for (more, code) in [(&[][..], 1), (&["--no-flips"], 0)] {
        let arguments: Vec<&str> = common.iter().chain(more).copied().collect();
        let output = process::run(&arguments);
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(code), "{text}");
        let json: Value = serde_json::from_str(&text).expect("JSON");
        let why = json["incomplete"].as_str();
        assert_eq!(why.is_some_and(|it| it.contains("--no-flips")), code == 1, "{text}");
        assert_eq!(state(&json, "acknowledged"), "unchecked");
        let page = std::fs::read_to_string(&path).expect("a page");
        assert_eq!(page.contains("The drill is incomplete"), code == 1);
    }
}

#[test]
fn the_table_of_a_drill_fits_narrow_terminals() {
    let folder = tempfile::tempdir().expect("a folder");
    let report = format!("--report={}", folder.path().join("report.html").display());
    let output = process::flipgate(&["drill", "--demo", "--duration=1s", "--no-flips", &report])
        .args(["--warm-up=0s", "--rate=50", "--output=table"])
        .env("COLUMNS", "60")
        .stdin(Stdio::null())
        .output()
        .expect("the program is there");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("promises held"), "{text}");
    let lines = text.lines().filter(|it| !it.starts_with("Report: "));
    for line in lines {
        assert!(line.chars().count() <= 60, "{line}");
    }
}

#[tokio::test]
async fn a_kill_of_the_inactive_color_excuses_nothing() {
    let kill = ["--step=at 0s kill web.green.1", "--step=at 0s kill api.green.1"];
    let (report, code) = drill(Fault::Loses, "short=1", &kill).await;
    assert_eq!(code, Some(1), "{report:#}");
    assert_eq!(state(&report, "answered"), "broken", "{report:#}");
    assert_eq!(report["requests"]["excused"], 0, "{report:#}");
}

#[tokio::test]
async fn a_flip_without_a_barrier_is_found() {
    finds(Fault::NoBarrier, ALL, "register", &["private"]).await;
}

#[tokio::test]
async fn a_request_that_is_counted_too_late_is_found() {
    finds(Fault::CountsLate, "short=1", "drained", &[]).await;
}

#[tokio::test]
async fn a_download_that_is_cut_by_a_flip_is_found() {
    finds(Fault::Cuts, ALL, "kept", &["answered", "whole"]).await;
}

#[tokio::test]
async fn a_public_response_of_the_other_color_is_found() {
    // Before the first flip, the other color was never active: `private`. During a flip of both services, a leak of one
    // of them looks like a partial flip: `together`. A leak of the replaced color may be in flight after its `drained`
    // event: `drained`.
    finds(Fault::Leaks, ALL, "register", &["private", "together", "drained"]).await;
}

#[tokio::test]
async fn a_public_preview_that_is_granted_is_found() {
    finds(Fault::HonorsPublicPreview, ALL, "private", &[]).await;
}

#[tokio::test]
async fn a_flip_of_two_services_in_two_steps_is_found() {
    finds(Fault::Halves, ALL, "together", &[]).await;
}

#[tokio::test]
async fn a_request_that_is_sent_twice_is_found() {
    finds(Fault::Doubles, ALL, "once", &[]).await;
}

#[tokio::test]
async fn a_byte_that_is_changed_is_found() {
    finds(Fault::Alters, ALL, "whole", &[]).await;
}

#[tokio::test]
async fn trailers_that_are_lost_are_found() {
    finds(Fault::Untrailed, ALL, "whole", &[]).await;
}

#[tokio::test]
async fn a_request_without_a_response_is_found() {
    finds(Fault::Loses, ALL, "answered", &[]).await;
}

#[tokio::test]
async fn a_flip_that_fails_is_found() {
    finds(Fault::Refuses, ALL, "acknowledged", &[]).await;
}

/// Transactions of which scans take 0.6 s and pages 2.5 s, and WebSockets that are closed after a flip.
const TRANSACTIONS: &str = "short=40,scan=20,page=25,ws=15";

/// The planted proxy keeps pins for 4 s after a flip.
const PINS: &[&str] = &["--flip-every=100ms", "--pin-max-age=4s", "--reconnect"];

#[tokio::test]
async fn a_good_proxy_keeps_its_transactions_and_closes_websockets() {
    let (report, code) = drill(Fault::None, TRANSACTIONS, PINS).await;
    assert_eq!(code, Some(0), "{report:#}");
    for promise in
        ["answered", "register", "once", "whole", "kept", "drained", "pinned", "whole_page"]
    {
        assert_eq!(state(&report, promise), "held", "{promise}: {report:#}");
    }
    assert!(report["reconnects"].as_u64() > Some(50), "{report:#}");
    // The last ones, which come when the pins have ended.
    assert_eq!(report["drains"]["events"], 2, "{report:#}");
}

#[tokio::test]
async fn a_transaction_of_two_versions_is_found() {
    let (report, code) = drill(Fault::MixesTransactions, TRANSACTIONS, PINS).await;
    is_found(Fault::MixesTransactions, (&report, code), "pinned", &[]);
}

#[tokio::test]
async fn a_request_without_a_pin_on_the_replaced_color_is_found_beside_transactions() {
    let others = &["private", "together", "drained", "pinned", "whole_page", "once", "kept"];
    let (report, code) = drill(Fault::Leaks, TRANSACTIONS, PINS).await;
    is_found(Fault::Leaks, (&report, code), "register", others);
}

#[tokio::test]
async fn an_asset_that_is_lost_is_found() {
    let (report, code) = drill(Fault::LosesAssets, TRANSACTIONS, PINS).await;
    is_found(Fault::LosesAssets, (&report, code), "whole_page", &[]);
}

#[tokio::test]
async fn a_color_that_is_drained_under_its_pins_is_found() {
    let (report, code) = drill(Fault::DrainedUnderPins, TRANSACTIONS, PINS).await;
    is_found(Fault::DrainedUnderPins, (&report, code), "drained", &[]);
}

/// Scans of 9 s: their last calls come when the pins have ended.
#[tokio::test]
async fn a_pin_that_does_not_end_is_found() {
    let steps = ["--step=at 1500ms flip", "--stream-time=4s", "--pin-max-age=4s"];
    let (report, code) = drill(Fault::KeepsPins, "short=19,scan=1", &steps).await;
    is_found(Fault::KeepsPins, (&report, code), "register", &["drained"]);
    let (report, code) = drill(Fault::None, "short=19,scan=1", &steps).await;
    assert_eq!(code, Some(0), "{report:#}");
}

#[tokio::test]
async fn a_websocket_that_is_closed_at_the_wrong_time_or_with_the_wrong_code_is_found() {
    for (fault, why) in [
        (Fault::ClosesWithin, "closed in the middle of a message"),
        (Fault::ClosesNormally, "cut off"),
    ] {
        let (report, code) = drill(fault, TRANSACTIONS, PINS).await;
        is_found(fault, (&report, code), "kept", &[]);
        let text = report["violations"][0]["text"].as_str().expect("a sentence");
        assert!(text.contains(why), "{text}");
    }
    let (fault, steps) = (Fault::ClosesEarly, ["--step=at 2900ms flip", "--reconnect"]);
    let (report, code) = drill(fault, "short=9,ws=1", &steps).await;
    is_found(fault, (&report, code), "kept", &[]);
    let text = report["violations"][0]["text"].as_str().expect("a sentence");
    assert!(text.contains("no flip has replaced its color"), "{text}");
}

/// Without `--reconnect`, a WebSocket has to stay.
#[tokio::test]
async fn a_websocket_that_is_closed_is_found_where_it_has_to_stay() {
    let pins = &PINS[..2];
    let (report, code) = drill(Fault::ClosesAll, TRANSACTIONS, pins).await;
    is_found(Fault::ClosesAll, (&report, code), "kept", &[]);
}

/// Two steps of a share, and the last one: 1.5 s, in which 15 clients a second come to each service that keep cookies.
const GRADUAL: &[&str] = &["--step=at 200ms gradual web 20,60,100 700ms", "--rate=300"];

const VISITORS: &str = "short=80,visitor=10,ws=5,sse=5";

#[tokio::test]
async fn a_good_gradual_promotion_breaks_no_promise() {
    let (report, code) = drill(Fault::None, VISITORS, GRADUAL).await;
    assert_eq!(code, Some(0), "{report:#}");
    for promise in ["answered", "register", "once", "kept", "drained", "sticky"] {
        assert_eq!(state(&report, promise), "held", "{promise}: {report:#}");
    }
    let promises = report["promises"].as_array().expect("promises");
    let sticky = promises.iter().find(|it| it["name"] == "sticky").expect("a promise");
    assert!(sticky["checked"].as_u64() > Some(20), "{report:#}");
    assert_eq!(report["flips"]["succeeded"], 1, "{report:#}");
    let again = ["--step=every 900ms gradual web 30,100 400ms", "--steady=0s"];
    let (report, code) = drill(Fault::None, VISITORS, &again).await;
    assert_eq!(code, Some(0), "{report:#}");
}

/// Beside pins: pages and scans keep their color while the share rises. The proxy is killed meanwhile.
#[test]
fn flipgate_promotes_gradually_and_no_client_goes_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let report = format!("--report={}", folder.path().join("report.html").display());
    let output = process::run(&[
        "drill",
        "--demo",
        "--json",
        "--services=2",
        "--rate=100",
        "--stream-time=400ms",
        "--duration=8s",
        "--mix=short=60,pair=10,visitor=10,scan=5,page=5,ws=5,sse=5,refused-preview=3,preview=3",
        "--step=at 500ms gradual web 20,50,100 1s",
        "--step=at 1500ms kill proxy",
        "--step=at 2s start proxy",
        "--step=at 5500ms gradual web 100",
        "--step=at 7s flip",
        &report,
    ]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let report: Value = serde_json::from_str(&text).expect("JSON");
    for promise in ["answered", "register", "private", "pinned", "whole_page", "sticky"] {
        assert_eq!(state(&report, promise), "held", "{promise}: {report:#}");
    }
    assert!(report["flips"]["succeeded"].as_u64() >= Some(2), "{report:#}");
}

#[tokio::test]
async fn a_client_that_loses_the_candidate_is_found() {
    for fault in [Fault::DrawsAgain, Fault::MovesOthers] {
        let (report, code) = drill(fault, VISITORS, GRADUAL).await;
        is_found(fault, (&report, code), "sticky", &[]);
        let text = report["violations"][0]["text"].as_str().expect("a sentence");
        assert!(text.contains("although its client had got green"), "{text}");
    }
}

#[tokio::test]
async fn a_share_without_clients_is_found() {
    let (report, code) = drill(Fault::MovesNone, VISITORS, GRADUAL).await;
    is_found(Fault::MovesNone, (&report, code), "sticky", &[]);
    let text = report["violations"][0]["text"].as_str().expect("a sentence");
    assert!(text.contains("new clients of web got green while its share was"), "{text}");
}

/// The drill once checked only the last flip of each service.
#[tokio::test]
async fn a_drained_event_that_never_comes_is_found() {
    let fault = Fault::NeverDrained;
    let (report, code) = drill(fault, ALL, &["--flip-every=100ms", "--duration=6s"]).await;
    is_found(fault, (&report, code), "drained", &[]);
    let text = report["violations"][0]["text"].as_str().expect("a sentence");
    assert!(text.contains("no `drained` event of "), "{report:#}");
}

#[tokio::test]
async fn a_drained_event_that_comes_late_is_found() {
    finds(Fault::DrainedLate, ALL, "drained", &[]).await;
}

#[tokio::test]
async fn a_websocket_that_is_moved_to_another_endpoint_is_found() {
    for (fault, why) in [
        (Fault::MovesSockets, "a request without a number reached"),
        (Fault::MovesSocketsByNumber, "more than once"),
    ] {
        let (report, code) = drill_of(fault, 2, "short=9,ws=1", FLIPS).await;
        is_found(fault, (&report, code), "kept", &["once"]);
        assert_eq!(state(&report, "once"), "broken", "{report:#}");
        let violations = report["violations"].as_array().expect("violations");
        let has = |why| {
            violations.iter().any(|it| it["text"].as_str().is_some_and(|it| it.contains(why)))
        };
        assert!(has("continued on another endpoint") && has(why), "{report:#}");
    }
}

#[tokio::test]
async fn a_websocket_that_is_moved_within_its_endpoint_is_found() {
    finds(Fault::MovesSockets, "short=9,ws=1", "once", &[]).await;
}

#[tokio::test]
async fn a_request_that_is_mirrored_without_its_number_is_found() {
    finds(Fault::Mirrors, ALL, "once", &[]).await;
}

#[test]
fn mistakes_on_the_command_line_are_exit_code_2_before_any_request() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = folder.path().join("script");
    std::fs::write(&script, "every 1s flip\nat 2s jump\n").expect("a file");
    let script = script.display().to_string();
    let report = format!("--report={}", folder.path().join("report.html").display());
    let nowhere = "--url=http://127.0.0.1:1";
    for (arguments, why) in [
        (&[][..], "--demo"),
        (&["--demo", nowhere], "cannot be used with"),
        (&["--demo", "--duration=0s"], "more than 0s"),
        (&["--demo", "--script", &script], "line 2: `jump`"),
        (&["--demo", "--step=at 1s kill web.green.2"], "did not start it"),
        (
            &["--demo", "--step=at 1s promote shop=green"],
            "there is no service shop; the services are web",
        ),
        (&["--demo", "--mix=long=1"], "there is no kind `long`"),
        (&["--demo", "--mix=scan=1", "--step=at 1s rollback web"], "ends transactions"),
        (&["--demo", "--mix=short=1", "--step=at 1s gradual web 100"], "add visitor=10"),
        (&[nowhere, "--flip=true {color}", "--step=at 1s gradual web 100"], "admin API"),
        (&["--demo", "--step=at 31s flip"], "never due"),
        (&["--demo", "--flip-every=30s"], "never due"),
        (&["--demo", "--step=at 1s promote web=blue web=green"], "each service once"),
        (&["--demo", "--rate=0"], "requests per second"),
        (&[nowhere, nowhere], "web is there twice"),
        (&[nowhere, "--step=at 1s kill proxy"], "--proxy COMMAND"),
        (&[nowhere, "--flip=true {color}", "--step=at 1s reload"], "admin API"),
        (&[nowhere, "--flip=true", "--flip-every=1s"], "{color}"),
        (&[nowhere, "--mix=refused-preview=1"], "--public-from"),
        (&[nowhere, "--mix=preview=1"], "--tester-from"),
        (&[nowhere, "--mix=scan=1"], "--pin-max-age"),
        (&["--demo", "--no-flips", "--flip-every=1s"], "cannot be used with"),
        (&["--demo", "--no-flips", "--step=at 1s rollback"], "a step is `at 1s rollback`"),
        (&[nowhere, "--upstream=api.blue=127.0.0.1:1"], "there is no service api"),
        (&["--url=https://127.0.0.1:1", "--ca=/nowhere"], "/nowhere"),
    ] {
        let all: Vec<&str> = ["drill", &report].iter().chain(arguments).copied().collect();
        let output = process::run(&all);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
        assert!(error.contains(why), "{arguments:?}: {error}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
    assert!(!folder.path().join("report.html").exists());
}

#[tokio::test]
async fn a_proxy_without_response_is_named_and_so_is_one_without_sample_applications() {
    let other_server = Upstream::start("other").await;
    let closed =
        { TcpListener::bind(("127.0.0.1", 0)).expect("a port").local_addr().expect("bound") };
    for (address, why) in [(closed, "refused"), (other_server.address, "flipgate sample")] {
        let url = format!("--url=http://{address}");
        let output = tokio::task::spawn_blocking(move || {
            process::run(&["drill", &url, "--duration=1s", "--report=/tmp/never-written.html"])
        });
        let output = output.await.expect("no panic inside");
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains(why) && error.contains(&address.to_string()), "{error}");
    }
}

#[tokio::test]
async fn a_drill_that_gets_sigterm_reports_and_ends_all_its_processes() {
    let folder = tempfile::tempdir().expect("a folder");
    let report = format!("--report={}", folder.path().join("report.html").display());
    // If this test fails, the drill ends by itself.
    let mut child = process::flipgate(&["drill", "--demo", "--duration=60s", "--json", &report])
        .env("TMPDIR", folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program is there");
    let pid = child.id();
    // Two applications, of which the first has written its journal, and a proxy.
    let arrived = || {
        let drills = std::fs::read_dir(folder.path()).expect("a folder").flatten();
        let journals = drills.map(|it| it.path().join("arrived-1001"));
        journals.filter_map(|it| it.metadata().ok()).map(|it| it.len()).sum::<u64>()
    };
    eventually("requests arrive", async || arrived() > 100).await;
    let children = children_of(pid);
    assert_eq!(children.len(), 3, "{children:?}");
    let signalled = Command::new("kill").args(["-s", "TERM", &pid.to_string()]).status();
    assert!(signalled.expect("kill is there").success());
    let output = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        child.stdout.take().expect("piped").read_to_string(&mut text).expect("text");
        (child.wait().expect("our own child"), text)
    });
    let (status, text) = output.await.expect("no panic inside");
    assert_eq!(status.code(), Some(1), "a drill that was stopped is incomplete: {text}");
    let report: Value = serde_json::from_str(&text).expect("JSON");
    assert!(report["requests"]["total"].as_u64() > Some(10), "{report}");
    assert!(report["incomplete"].as_str().is_some() && broken(&report).is_empty(), "{report}");
    let is_there = |it: &&u32| std::path::Path::new(&format!("/proc/{it}")).exists();
    assert_eq!(children.iter().filter(is_there).count(), 0);
    let left: Vec<_> = std::fs::read_dir(folder.path()).expect("a folder").flatten().collect();
    assert_eq!(left.len(), 1, "only the report: {left:?}");
}

/// The child processes of a process.
fn children_of(pid: u32) -> Vec<u32> {
    let all = std::fs::read_dir("/proc").expect("processes").flatten();
    let numbers = all.filter_map(|it| it.file_name().to_str()?.parse::<u32>().ok());
    let parent = |it: u32| -> Option<u32> {
        let stat = std::fs::read_to_string(format!("/proc/{it}/stat")).ok()?;
        // The name of the process is in parentheses and can have any character.
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
    };
    numbers.filter(|it| parent(*it) == Some(pid)).collect()
}
