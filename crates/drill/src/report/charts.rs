//! Charts of a history.

use hdrhistogram::Histogram;

use super::{
    super::{
        measure::Figures,
        record::{History, KilledProcess},
    },
    svg::{Band, Chart, Mark, Scale, Series, svg},
};
use crate::color::Color;

/// More flips than this are not marked one by one.
const MARKS_MAX: usize = 400;

/// Samples of requests in flight that are further apart than this, in nanoseconds, have a gap between them: 500 ms.
const SAMPLE_GAP: u64 = 500_000_000;

/// Latencies of short requests over time.
pub(super) fn latency(history: &History, figures: &Figures) -> String {
    let parts = latency_parts(figures);
    let series = |name: &str, class, quantile| {
        let line = |part: &Vec<(f64, Histogram<u64>)>| {
            part.iter().map(|(x, it)| (*x, millis(it.value_at_quantile(quantile)))).collect()
        };
        let lines = parts.iter().map(line).collect();
        Series { name: name.to_owned(), class, dashes: "", lines }
    };
    svg(&Chart {
        series: vec![
            series("maximum", "maximum", 1.0),
            series("p99", "p99", 0.99),
            series("p50", "p50", 0.5),
        ],
        scale: Scale::Logarithmic,
        unit: "ms",
        flips: flips(history),
        ..over_time(history)
    })
}

/// The percentiles of latency far from flips and near them.
pub(super) fn percentiles(figures: &Figures) -> String {
    const QUANTILES: [(f64, &str); 8] = [
        (0.0, "min"),
        (0.5, "p50"),
        (0.75, "p75"),
        (0.9, "p90"),
        (0.95, "p95"),
        (0.99, "p99"),
        (0.999, "p99.9"),
        (1.0, "max"),
    ];
    let series = |name: &str, class, of: &Histogram<u64>| {
        let points = QUANTILES.iter().enumerate();
        let points = points.map(|(x, (it, _))| (x as f64, millis(of.value_at_quantile(*it))));
        let lines = if of.is_empty() { Vec::new() } else { vec![points.collect()] };
        Series { name: name.to_owned(), class, dashes: "", lines }
    };
    svg(&Chart {
        series: vec![
            series("more than 100 ms from a flip", "p50", &figures.away_from_flips),
            series("within 100 ms of a flip", "p99", &figures.near_flips),
        ],
        scale: Scale::Logarithmic,
        unit: "ms",
        end: (QUANTILES.len() - 1) as f64,
        categories: QUANTILES.iter().map(|it| it.1).collect(),
        flips: Vec::new(),
        marks: Vec::new(),
        bands: Vec::new(),
    })
}

/// The responses of each color over time.
pub(super) fn colors(history: &History, figures: &Figures) -> String {
    let series = |color: Color| Series {
        name: color.to_string(),
        class: color.as_str(),
        dashes: "",
        // No response is a value, too.
        lines: vec![
            figures
                .slices
                .iter()
                .enumerate()
                .map(|(index, it)| {
                    let middle = (index as f64 + 0.5) * figures.slice;
                    (middle, it.count(color) as f64 / figures.slice)
                })
                .collect(),
        ],
    };
    svg(&Chart {
        series: Color::BOTH.map(series).into(),
        unit: "responses per second",
        ..over_time(history)
    })
}

/// Requests in flight on colors that are not active. `None` if the proxy does not report them.
pub(super) fn drains(history: &History) -> Option<String> {
    /// One for each service.
    const DASHES: [&str; 8] = ["", "6 3", "2 3", "10 3 2 3", "12 4", "4 4", "1 3", "8 2 2 2"];
    if history.in_flight.is_empty() {
        return None;
    }
    let mut all = Vec::new();
    for ((index, service), dashes) in history.services.iter().enumerate().zip(DASHES) {
        for color in Color::BOTH {
            let own = history.in_flight.iter().filter(|it| usize::from(it.service) == index);
            let own = own
                .filter(|it| it.color == color && (history.began..=history.ended).contains(&it.at));
            let (mut lines, mut last): (Vec<Vec<(f64, f64)>>, Option<u64>) = (Vec::new(), None);
            for sample in own {
                let count = if sample.is_inactive { sample.count as f64 } else { 0.0 };
                if last.is_none_or(|it| sample.at - it > SAMPLE_GAP) {
                    lines.push(Vec::new());
                }
                last = Some(sample.at);
                if let Some(line) = lines.last_mut() {
                    line.push((since(history, sample.at), count));
                }
            }
            let name = format!("{service} {color}");
            all.push(Series { name, class: color.as_str(), dashes, lines });
        }
    }
    Some(svg(&Chart { series: all, unit: "requests in flight", ..over_time(history) }))
}

/// The latencies of neighboring slices, joined to points. A slice without any ends a part: it has a reason.
fn latency_parts(figures: &Figures) -> Vec<Vec<(f64, Histogram<u64>)>> {
    let per_point = slices_of_latency(figures);
    let mut parts: Vec<Vec<(f64, Histogram<u64>)>> = vec![Vec::new()];
    let mut joined = 0;
    for (index, slice) in figures.slices.iter().enumerate() {
        let middle = (index as f64 + 0.5) * figures.slice;
        if slice.latency.is_empty() {
            parts.push(Vec::new());
            joined = 0;
            continue;
        }
        let Some(part) = parts.last_mut() else { continue };
        match part.last_mut() {
            Some((x, latency)) if joined < per_point => {
                joined += 1;
                *latency += &slice.latency;
                *x += figures.slice / 2.0;
            }
            _ => {
                joined = 1;
                part.push((middle, slice.latency.clone()));
            }
        }
    }
    parts.retain(|it| !it.is_empty());
    parts
}

/// The seconds of a point of the latency.
pub(super) fn latency_interval(figures: &Figures) -> f64 {
    figures.slice * slices_of_latency(figures) as f64
}

/// The slices of a point of the latency: as many as have at least 100 short requests, so that their p99 is not always
/// their maximum, if that leaves enough points.
fn slices_of_latency(figures: &Figures) -> usize {
    const REQUESTS: usize = 100;
    const POINTS_MIN: usize = 40;
    let short = figures.away_from_flips.len() + figures.near_flips.len();
    let count = figures.slices.len();
    let wanted = (REQUESTS * count).div_ceil(usize::try_from(short).unwrap_or(usize::MAX).max(1));
    wanted.min(count / POINTS_MIN).max(1)
}

/// What all charts over time have in common: the steps, and the times without a proxy.
fn over_time(history: &History) -> Chart {
    let end = since(history, history.ended).max(0.1);
    let marks = history.steps.iter().enumerate().map(|(index, it)| Mark {
        at: since(history, it.at),
        label: (index + 1).to_string(),
        text: it.text.clone(),
    });
    let kills = history.kills.iter().filter(|it| it.process == KilledProcess::Proxy);
    let bands = kills.map(|it| Band {
        from: since(history, it.from).min(end),
        until: since(history, it.until.min(history.ended)).min(end),
    });
    Chart {
        series: Vec::new(),
        scale: Scale::Linear,
        unit: "",
        end,
        categories: Vec::new(),
        flips: Vec::new(),
        marks: marks.filter(|it| it.at <= end).collect(),
        bands: bands.filter(|it| it.until > it.from).collect(),
    }
}

fn flips(history: &History) -> Vec<f64> {
    let step = history.flips.len().div_ceil(MARKS_MAX).max(1);
    let called = history.flips.iter().map(|it| it.called).filter(|it| *it <= history.ended);
    called.step_by(step).map(|it| since(history, it)).collect()
}

/// Seconds since the measured part of the drill began.
pub(super) fn since(history: &History, at: u64) -> f64 {
    at.saturating_sub(history.began) as f64 / 1e9
}

fn millis(micros: u64) -> f64 {
    (micros as f64 / 1000.0).max(0.01)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::tests::short;

    #[test]
    fn a_second_without_responses_is_a_gap_also_between_joined_slices() {
        const MS: u64 = 1_000_000;
        // 100 requests per second for 60 seconds, but none succeeds from 40 to 41 s.
        let times = (0..6000).map(|it| it * 10 * MS).filter(|it| it / (1000 * MS) != 40);
        let history = History {
            services: vec!["web".to_owned()],
            initial: vec![Color::Blue],
            ended: 60_000 * MS,
            requests: times.map(|it| short(it, it + MS)).collect(),
            ..History::default()
        };
        let figures = Figures::of(&history, &std::collections::HashSet::new());
        assert!(slices_of_latency(&figures) > 1);
        let parts = latency_parts(&figures);
        assert_eq!(parts.len(), 2);
        let (last, first) = (parts[0].last(), parts[1].first());
        let gap = last.zip(first).expect("points");
        assert!(gap.0.0 < 40.0 && gap.1.0 > 41.0, "{} {}", gap.0.0, gap.1.0);
    }
}
