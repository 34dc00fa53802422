use std::time::Duration;

use http::{HeaderMap, HeaderValue};

use super::*;
use crate::model::ShadowGate;

const HTML: &str = "text/html";
const JSON: &str = "application/json";

fn reply(status: u16, media_type: &str, body: &str, took: u64) -> Result<ProbeResponse, SendError> {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_str(media_type).expect("a value"));
    let (body, took) = (body.to_owned().into(), Duration::from_millis(took));
    Ok(ProbeResponse { status, headers, body, is_cut: false, took })
}

fn timeout() -> Result<ProbeResponse, SendError> {
    Err(SendError::Timeout(Duration::from_secs(5)))
}

/// Compares two responses of the active color with one of the candidate.
fn compare(replies: [Result<ProbeResponse, SendError>; 3]) -> Outcome {
    let request = b"GET /a?b=c HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer opensesame\r\n\r\n";
    let copied = CopiedRequest::parse(request).expect("it can be sent");
    let [one, two, candidate] = replies;
    let of = |address: &str, result| Reply { address: address.to_owned(), result };
    let active = [of("old", one), of("old2", two)];
    let replies = Replies { copied, candidate: of("new", candidate), active };
    let rules = Normalization::new(&ShadowGate::default()).expect("no expressions");
    replies.compare(&rules, Some(Duration::from_millis(100)))
}

fn compare_bodies(media_type: &str, bodies: [&str; 3]) -> Outcome {
    compare(bodies.map(|it| reply(200, media_type, it, 1)))
}

fn same(noise: &[Aspect]) -> Outcome {
    Outcome::Compared { noise: noise.to_vec(), difference: None }
}

fn different(noise: &[Aspect], difference: &str) -> Outcome {
    let difference = Some(format!("GET /a?…: {difference}"));
    Outcome::Compared { noise: noise.to_vec(), difference }
}

#[test]
fn equal_responses_do_not_differ() {
    assert_eq!(compare_bodies(HTML, ["a\nb"; 3]), same(&[]));
    assert_eq!(
        compare_bodies(JSON, [r#"{"a":1,"b":2}"#, r#"{"b":2,"a":1}"#, r#"{"b": 2, "a": 1}"#]),
        same(&[])
    );
}

#[test]
fn a_status_a_header_and_a_missing_response_differ() {
    let ok = || reply(200, HTML, "", 1);
    let of = |candidate| compare([ok(), ok(), candidate]);
    assert_eq!(of(reply(500, HTML, "", 1)), different(&[], "status 200 at old, 500 at new"));
    assert_eq!(of(timeout()), different(&[], "status 200 at old, no response within 5 s at new"));
    assert_eq!(
        of(reply(200, JSON, "", 1)),
        different(&[], "header content-type \"text/html\" at old, \"application/json\" at new")
    );
}

#[test]
fn json_differs_at_its_places_except_where_the_active_color_differs() {
    let bodies = [
        r#"{"at": 1, "total": 3, "list": [1, 2], "token": "abc"}"#,
        r#"{"at": 2, "total": 3, "list": [1, 2], "token": "abc"}"#,
        r#"{"at": 3, "total": 4, "list": [1], "token": "xyz"}"#,
    ];
    let Outcome::Compared { noise, difference } = compare_bodies(JSON, bodies) else {
        panic!("compared");
    };
    let difference = difference.expect("a difference");
    assert_eq!(noise, [Aspect::Body]);
    for part in [
        "JSON value \"/total\" 3 at old, 4 at new",
        "JSON value \"/list\" [1,2] at old, [1] at new",
        "JSON value \"/token\" *** at old, *** at new",
    ] {
        assert!(difference.contains(part), "{difference}");
    }
    assert!(!difference.contains("/at"), "{difference}");
    let [one, two, _] = bodies;
    let only_noise = compare_bodies(
        JSON,
        [one, two, r#"{"at": {"x": 1}, "total": 3, "list": [1, 2], "token": "abc"}"#],
    );
    assert_eq!(only_noise, same(&[Aspect::Body]));
}

#[test]
fn a_place_around_noise_is_compared() {
    let bodies = [r#"{"meta": {"at": 1}}"#, r#"{"meta": {"at": 2}}"#, "{}"];
    let difference = "JSON value \"/meta\" {\"at\":1} at old, none at new";
    assert_eq!(compare_bodies(JSON, bodies), different(&[Aspect::Body], difference));
}

#[test]
fn text_differs_by_line_except_where_the_active_color_differs() {
    let bodies = ["<p>7:01\n<b>one", "<p>7:02\n<b>one", "<p>7:03\n<b>two"];
    let difference = "line 2 \"<b>one\" at old, \"<b>two\" at new";
    assert_eq!(compare_bodies(HTML, bodies), different(&[Aspect::Body], difference));
    assert_eq!(compare_bodies(HTML, [bodies[0], bodies[1], "x\n<b>one"]), same(&[Aspect::Body]));
    let shorter = different(&[Aspect::Body], "a body of 2 lines at old, a body of 1 lines at new");
    assert_eq!(compare_bodies(HTML, [bodies[0], bodies[1], "x"]), shorter);
    assert_eq!(
        compare_bodies(HTML, ["a", "a\nb", "c"]),
        same(&[Aspect::Body]),
        "all of it is noise"
    );
}

#[test]
fn headers_that_differ_in_the_active_color_are_not_judged() {
    let replies = [reply(200, "a", "", 1), reply(200, "b", "", 1), reply(200, "c", "", 1)];
    assert_eq!(compare(replies), same(&[Aspect::Headers]));
}

#[test]
fn latency_is_judged_against_the_slower_response_of_the_active_color() {
    let of = |times: [u64; 3]| compare(times.map(|it| reply(200, HTML, "", it)));
    assert_eq!(of([10, 50, 150]), same(&[]));
    let difference = "a response after 50 ms at old, a response after 151 ms at new";
    assert_eq!(of([10, 50, 151]), different(&[], difference));
    assert_eq!(of([10, 120, 900]), same(&[Aspect::Latency]));
}

#[test]
fn responses_of_the_active_color_that_say_nothing_are_not_compared() {
    let ok = || reply(200, HTML, "", 1);
    let cut = |mut it: Result<ProbeResponse, SendError>| {
        it.as_mut().expect("a response").is_cut = true;
        it
    };
    let coded = |mut it: Result<ProbeResponse, SendError>, coding| {
        let headers = &mut it.as_mut().expect("a response").headers;
        headers.insert("content-encoding", HeaderValue::from_static(coding));
        it
    };
    for (replies, obstacle) in [
        ([ok(), timeout(), ok()], Obstacle::NoResponse),
        ([ok(), reply(500, HTML, "", 1), ok()], Obstacle::Unstable),
        ([reply(304, HTML, "", 1), reply(304, HTML, "", 1), ok()], Obstacle::NotModified),
        ([cut(ok()), ok(), ok()], Obstacle::TooLong),
        ([coded(ok(), "br"), ok(), ok()], Obstacle::Coding),
        ([ok(), ok(), coded(ok(), "br")], Obstacle::Coding),
    ] {
        assert_eq!(compare(replies), Outcome::NotCompared(obstacle));
    }
    let long = compare([ok(), ok(), cut(ok())]);
    assert_eq!(
        long,
        different(&[], "a shorter body at old, one of more than 1048576 bytes at new")
    );
    let broken = compare([ok(), ok(), coded(reply(200, HTML, "no gzip", 1), "gzip")]);
    assert!(matches!(broken, Outcome::Compared { difference: Some(_), .. }), "{broken:?}");
}

#[test]
fn a_difference_is_cut_and_has_no_secret_of_the_request() {
    let long = "x".repeat(1000);
    let bodies =
        ["your token is opensesame!", "your token is opensesame!", &format!("your token {long}")];
    let Outcome::Compared { difference, .. } = compare_bodies(HTML, bodies) else {
        panic!("compared");
    };
    let difference = difference.expect("a difference");
    assert!(!difference.contains("opensesame") && difference.contains("***"), "{difference}");
    assert!(difference.chars().count() < 300, "{difference}");
}
