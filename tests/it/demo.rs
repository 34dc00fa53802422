//! The demo loses no request.

use serde_json::Value;

use crate::support::process;

#[test]
fn the_demo_loses_nothing_and_reports_it_as_json() {
    let output = process::run(&["demo", "--json"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{text}");
    let report: Value = serde_json::from_str(&text).expect("JSON and nothing else");
    assert_eq!(report["clean"], true);
    assert!(report["flips"]["count"].as_u64() >= Some(100), "{report}");
    let rows = report["traffic"].as_array().expect("rows");
    let row = |what: &str| rows.iter().find(|it| it["what"] == what).expect("a row");
    assert!(rows.iter().all(|it| it["failed"] == 0), "{report}");
    assert!(row("public requests")["blue"].as_u64() > Some(0));
    assert!(row("public requests")["green"].as_u64() > Some(0));
    assert_eq!(row("downloads across the flip")["blue"], 8);
    assert_eq!(row("previews by a tester")["green"], 3);
    assert_eq!(row("previews by the public")["green"], 0);
    assert_eq!(row("previews by the public")["refused"], 1);
}

#[test]
fn the_demo_of_gates_refuses_a_bad_version_and_rolls_back_one_that_turns_bad() {
    let output = process::run(&["demo", "--gates", "--json"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{text}");
    let report: Value = serde_json::from_str(&text).expect("JSON and nothing else");
    assert_eq!(report["refused_by"], serde_json::json!(["compatible"]));
    assert_eq!(report["passed"], true);
    let (all, failed) = (report["public_requests"].as_u64(), report["failed"].as_u64());
    assert!(failed > Some(0) && failed < all, "{report}");
}
