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
