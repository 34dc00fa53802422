//! The texts of a report, and where they fit.

use super::*;
use crate::{
    check::Promise,
    options::Mix,
    record::{Failure, Flip, FlipOutcome, Kill, KilledProcess, StepRecord},
    traffic::Sizes,
};

fn report(history: History) -> Report {
    let sizes = Sizes {
        has_reconnects: false,
        download_bytes: 1,
        upload_bytes: 1,
        stream_time: std::time::Duration::from_secs(1),
    };
    let plan =
        LoadPlan { mix: Mix::demo_default(2), sizes, threads: 1, seed: 1 << 52, count: None };
    let about = RunInfo {
        started: jiff::Timestamp::UNIX_EPOCH,
        command: "flipgate drill --demo".to_owned(),
        version: "flipgate 1.2.3".to_owned(),
    };
    Report::new(history, plan, LoadMode::Rate(500.0), about)
}

fn flip(called: u64, outcome: FlipOutcome) -> Flip {
    Flip {
        changes: vec![(0, crate::Color::Green)],
        called,
        acknowledged: called + 10,
        outcome,
        generation: None,
        error: None,
        lost_response: false,
        is_automatic: false,
    }
}

fn killed() -> History {
    let kill = Kill { process: KilledProcess::Proxy, from: 300, until: 400 };
    History {
        services: vec!["web".to_owned()],
        initial: vec![crate::Color::Blue],
        ended: 1_000_000_000,
        flips: vec![flip(100, FlipOutcome::Acknowledged), flip(300, FlipOutcome::Refused)],
        kills: vec![kill],
        steps: vec![StepRecord { at: 300, text: "kill proxy".to_owned() }],
        requests: vec![crate::measure::tests::short(100, 2000)],
        ..History::default()
    }
}

#[test]
fn the_figure_of_flips_agrees_with_the_promise() {
    let good = report(killed());
    let promise = good.verdict.of(Promise::Acknowledged).expect("a finding");
    assert_eq!((result(promise).0, promise.checked, promise.excused), ("held", 1, 1));
    assert_eq!(good.verdict.flips, FlipCounts { succeeded: 1, failed: 0, excused: 1 });
    let (text, page) = (terminal::text(&good, 80), good.page());
    assert!(text.contains("1 of 1 flips succeeded; 1 more were called"), "{text}");
    assert!(page.contains("<b>1 of 1</b>"), "{page}");
    let bad = report(History { kills: Vec::new(), ..killed() });
    assert_eq!(bad.verdict.flips, FlipCounts { succeeded: 1, failed: 1, excused: 0 });
    assert!(bad.verdict.of(Promise::Acknowledged).is_some_and(|it| it.broken == 1));
    assert!(bad.page().contains("<b>1 of 2</b>"));
}

#[test]
fn the_text_fits_terminals_of_60_80_and_120_columns() {
    let text =
        "a call of the admin API failed with a long error that has many words and says what to do";
    let mut history = killed();
    history.failures = vec![Failure { from: 1, until: 2, text: text.to_owned() }];
    history.incomplete = Some("it was stopped before its end".to_owned());
    let report = report(history);
    for width in [60, 80, 120] {
        let text = terminal::text(&report, width);
        let plain = anstream::adapter::strip_str(&text).to_string();
        // The mix is one word.
        let lines = plain.lines().filter(|it| !it.contains("short="));
        for line in lines {
            assert!(line.chars().count() <= width, "{width}: {line}");
        }
        assert!(plain.contains("broken") && plain.contains("incomplete"), "{plain}");
    }
}

#[test]
fn the_headline_counts_tested_promises() {
    let finding = |broken, unchecked_reason| Finding {
        promise: Promise::Answered,
        checked: 1,
        broken,
        excused: 0,
        unchecked_reason,
        max_delay: 0,
        cost: 0,
    };
    let (held, broken, untested) = (finding(0, None), finding(1, None), finding(0, Some("x")));
    let line =
        |of: &[&Finding]| headline(&of.iter().map(|it| (*it).clone()).collect::<Vec<_>>(), false);
    assert_eq!(line(&[&held, &held]), "2 of 2 promises held.");
    let text = line(&[&held, &held, &untested]);
    assert_eq!(text, "2 of 2 tested promises held; 1 was not tested.");
    let text = line(&[&held, &broken, &untested, &untested]);
    assert_eq!(text, "1 of 2 tested promises held; 1 is broken; 2 were not tested.");
    assert_eq!(line(&[&untested]), "No promise was tested.");
    assert_eq!(headline(&[], true), "No request was sent.");
}

#[test]
fn the_page_has_date_version_and_command() {
    let page = report(killed()).page();
    for needed in [
        "1970-01-01 00:00 UTC",
        "flipgate 1.2.3",
        "flipgate drill --demo",
        "kill proxy",
        "proxy stopped",
        "width=device-width",
        "prefers-color-scheme: dark",
    ] {
        assert!(page.contains(needed), "{needed}: {page}");
    }
}
