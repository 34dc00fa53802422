//! Pictures of a history, as SVG.

use std::fmt::Display;

use plotters::{
    chart::ChartContext,
    coord::{Shift, ranged1d::Ranged},
    prelude::{
        Cartesian2d, ChartBuilder, Color as _, DrawingArea, IntoDrawingArea, IntoLogRange,
        LineSeries, PathElement, RGBColor, SVGBackend, SeriesLabelPosition, TRANSPARENT,
    },
};

use super::super::{measure::Figures, record::History};
use crate::color::Color;

const BLUE: RGBColor = RGBColor(0x1f, 0x6f, 0xd6);
const GREEN: RGBColor = RGBColor(0x14, 0x91, 0x5b);
const DARK: RGBColor = RGBColor(0x33, 0x3b, 0x45);
const AMBER: RGBColor = RGBColor(0xd0, 0x7a, 0x0a);
const FAINT: RGBColor = RGBColor(0xb4, 0x3a, 0x8c);

const SIZE: (u32, u32) = (960, 300);

/// Flips that are marked one by one; more than these would be a wall.
const MARKS: usize = 400;

/// A line with its name.
struct Series {
    name: String,
    color: RGBColor,
    points: Vec<(f64, f64)>,
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a, X, Y> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<X, Y>>;

/// Latencies of short requests over time, with the flips marked.
pub(super) fn latency(history: &History, figures: &Figures) -> String {
    let slices = || figures.slices.iter().enumerate().filter(|(_, it)| !it.latency.is_empty());
    let line = |name: &str, color, quantile| Series {
        name: name.to_owned(),
        color,
        points: slices()
            .map(|(index, it)| {
                (seconds(figures, index), millis(it.latency.value_at_quantile(quantile)))
            })
            .collect(),
    };
    let lines = [line("at most", FAINT, 1.0), line("p99", AMBER, 0.99), line("p50", DARK, 0.5)];
    let step = history.flips.len().div_ceil(MARKS).max(1);
    let flips: Vec<f64> =
        history.flips.iter().step_by(step).map(|it| since(history, it.called)).collect();
    drawn(|area| logarithmic(area, "seconds", "milliseconds", &lines, length(history), &flips))
}

/// The percentiles of latency away from flips and near them.
pub(super) fn percentiles(figures: &Figures) -> String {
    const QUANTILES: [f64; 8] = [0.0, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0];
    let line = |name: &str, color, of: &hdrhistogram::Histogram<u64>| Series {
        name: name.to_owned(),
        color,
        points: match of.is_empty() {
            true => Vec::new(),
            false => QUANTILES
                .iter()
                .enumerate()
                .map(|(index, it)| (index as f64, millis(of.value_at_quantile(*it))))
                .collect(),
        },
    };
    let lines = [
        line("away from flips", DARK, &figures.away_from_flips),
        line("within 100 ms of a flip", AMBER, &figures.near_flips),
    ];
    let names = ["least", "p50", "p75", "p90", "p95", "p99", "p99.9", "at most"];
    drawn(|area| {
        let top = top(&lines);
        let mut chart = ChartBuilder::on(area)
            .margin(12)
            .x_label_area_size(36)
            .y_label_area_size(64)
            .build_cartesian_2d(0.0..7.4, (bottom(&lines)..top).log_scale())
            .map_err(text)?;
        let label =
            |it: &f64| names.get(it.round() as usize).map_or(String::new(), ToString::to_string);
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .x_labels(8)
            .x_label_formatter(&label)
            .y_desc("milliseconds")
            .draw()
            .map_err(text)?;
        with_lines(&mut chart, &lines, SeriesLabelPosition::UpperLeft)
    })
}

/// How many answers came from each color over time.
pub(super) fn colors(history: &History, figures: &Figures) -> String {
    let line = |name: &str, color, of| Series {
        name: name.to_owned(),
        color,
        points: figures
            .slices
            .iter()
            .enumerate()
            .map(|(index, it)| (seconds(figures, index), it.count(of) as f64 / figures.slice))
            .collect(),
    };
    let lines = [line("blue", BLUE, Color::Blue), line("green", GREEN, Color::Green)];
    drawn(|area| linear(area, "seconds", "answers a second", &lines, length(history)))
}

/// Who was still inside of the colors that were not active. `None` if the proxy does not tell.
pub(super) fn drains(history: &History) -> Option<String> {
    if history.in_flight.is_empty() {
        return None;
    }
    let mut lines = Vec::new();
    for (index, service) in history.services.iter().enumerate() {
        for color in Color::BOTH {
            let own = history.in_flight.iter().filter(|it| usize::from(it.service) == index);
            let points = own.filter(|it| it.color == color && it.at >= history.began).map(|it| {
                let count = if it.is_inactive { it.count as f64 } else { 0.0 };
                (since(history, it.at), count)
            });
            // Each service has a shade of its own.
            let shade =
                |it: u8| it + (255 - it) / 8 * u8::try_from(index.min(5)).unwrap_or_default();
            let RGBColor(red, green, blue) = if color == Color::Blue { BLUE } else { GREEN };
            let paint = RGBColor(shade(red), shade(green), shade(blue));
            let name = format!("{service} {color}");
            lines.push(Series { name, color: paint, points: points.collect() });
        }
    }
    Some(drawn(|area| linear(area, "seconds", "still inside", &lines, length(history))))
}

fn drawn(draw: impl FnOnce(&Area<'_>) -> Result<(), String>) -> String {
    let mut svg = String::new();
    let done = {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        draw(&area).and_then(|()| area.present().map_err(text))
    };
    match done {
        Ok(()) => svg,
        // A string can always be written to; a range that cannot be drawn says so where it would be.
        Err(error) => format!("<p class=\"missing\">this picture cannot be drawn: {error}</p>"),
    }
}

fn linear(area: &Area<'_>, x: &str, y: &str, lines: &[Series], end: f64) -> Result<(), String> {
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..end, 0.0..top(lines))
        .map_err(text)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc(x)
        .y_desc(y)
        .draw()
        .map_err(text)?;
    with_lines(&mut chart, lines, SeriesLabelPosition::UpperRight)
}

fn logarithmic(
    area: &Area<'_>,
    x: &str,
    y: &str,
    lines: &[Series],
    end: f64,
    marks: &[f64],
) -> Result<(), String> {
    let (bottom, top) = (bottom(lines), top(lines));
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..end, (bottom..top).log_scale())
        .map_err(text)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc(x)
        .y_desc(y)
        .draw()
        .map_err(text)?;
    let flips = marks.iter().map(|at| {
        PathElement::new(vec![(*at, bottom), (*at, top)], DARK.mix(0.12).stroke_width(1))
    });
    chart.draw_series(flips).map_err(text)?.label("flip").legend(legend(RGBColor(200, 203, 208)));
    with_lines(&mut chart, lines, SeriesLabelPosition::UpperRight)
}

/// Draws lines, and says in a corner which is which.
fn with_lines<'a, X, Y>(
    chart: &mut Chart<'a, X, Y>,
    lines: &[Series],
    corner: SeriesLabelPosition,
) -> Result<(), String>
where
    X: Ranged<ValueType = f64>,
    Y: Ranged<ValueType = f64>,
{
    for line in lines {
        let points = line.points.iter().copied();
        chart
            .draw_series(LineSeries::new(points, line.color.stroke_width(2)))
            .map_err(text)?
            .label(&line.name)
            .legend(legend(line.color));
    }
    chart
        .configure_series_labels()
        .position(corner)
        .background_style(RGBColor(255, 255, 255).mix(0.8))
        .draw()
        .map_err(text)
}

fn legend<'a>(color: RGBColor) -> impl Fn((i32, i32)) -> PathElement<(i32, i32)> + 'a {
    move |(x, y)| PathElement::new(vec![(x, y), (x + 16, y)], color.stroke_width(3))
}

/// A little above the highest point.
fn top(lines: &[Series]) -> f64 {
    let points = lines.iter().flat_map(|it| it.points.iter().map(|it| it.1));
    points.fold(1.0, f64::max) * 1.1
}

/// A little below the lowest point, and above zero.
fn bottom(lines: &[Series]) -> f64 {
    let points = lines.iter().flat_map(|it| it.points.iter().map(|it| it.1));
    (points.fold(1.0, f64::min) * 0.8).max(0.01)
}

fn length(history: &History) -> f64 {
    since(history, history.ended).max(0.1)
}

fn since(history: &History, at: u64) -> f64 {
    at.saturating_sub(history.began) as f64 / 1e9
}

fn seconds(figures: &Figures, index: usize) -> f64 {
    (index as f64 + 0.5) * figures.slice
}

fn millis(micros: u64) -> f64 {
    (micros as f64 / 1000.0).max(0.01)
}

fn text(error: impl Display) -> String {
    error.to_string()
}
