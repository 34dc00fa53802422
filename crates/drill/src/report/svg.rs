//! Line charts as SVG, each in a wide and a narrow form of which the style of the page shows one.
//!
//! Colors are attributes, so that a picture can be copied out of the page, and classes, so that the style of the page
//! can change them in dark mode.

use maud::{Markup, PreEscaped, html};

/// A line chart.
#[derive(Debug)]
pub(super) struct Chart {
    pub(super) series: Vec<Series>,
    pub(super) scale: Scale,
    /// What the vertical axis shows.
    pub(super) unit: &'static str,
    /// The largest value of the horizontal axis, which begins at 0.
    pub(super) end: f64,
    /// Names of 0, 1, 2, … on the horizontal axis. Without them it shows seconds.
    pub(super) categories: Vec<&'static str>,
    /// Thin vertical lines.
    pub(super) flips: Vec<f64>,
    /// Numbered vertical lines.
    pub(super) marks: Vec<Mark>,
    /// Shaded times.
    pub(super) bands: Vec<Band>,
}

/// Values over the horizontal axis. Between two lines of a series there is a gap.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) name: String,
    /// Its class in the style of the page.
    pub(super) class: &'static str,
    /// `stroke-dasharray`, or nothing for a solid line.
    pub(super) dashes: &'static str,
    pub(super) lines: Vec<Vec<(f64, f64)>>,
}

/// The scale of the vertical axis.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Scale {
    Linear,
    Logarithmic,
}

/// A numbered time.
#[derive(Clone, Debug)]
pub(super) struct Mark {
    pub(super) at: f64,
    pub(super) label: String,
    pub(super) text: String,
}

/// A shaded time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Band {
    pub(super) from: f64,
    pub(super) until: f64,
}

/// The form of a chart: its size in pixels, and how many labels its horizontal axis has at most.
struct Form {
    class: &'static str,
    width: f64,
    height: f64,
    labels_max: f64,
}

const FORMS: [Form; 2] = [
    Form { class: "wide", width: 996.0, height: 290.0, labels_max: 12.0 },
    Form { class: "narrow", width: 342.0, height: 270.0, labels_max: 6.0 },
];

/// Pixels around the plot, and the height of a row of mark labels above it.
const LEFT: f64 = 46.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 24.0;
const ROW: f64 = 14.0;

/// The width of a digit, in pixels.
const DIGIT: f64 = 7.0;

const AXIS: &str = "#5d6875";
const GRID: &str = "#dfe3e8";

/// The place of values in a form.
struct Plot<'a> {
    chart: &'a Chart,
    form: &'a Form,
    top: f64,
    low: f64,
    high: f64,
}

/// The chart with its legend, as HTML.
pub(super) fn svg(chart: &Chart) -> String {
    let page = html! {
        p.legend {
            span.unit { (chart.unit) }
            @for it in &chart.series { span { (sample(it.class, it.dashes)) (it.name) } }
            @if !chart.flips.is_empty() { span { (sample("flip", "")) "flip" } }
            @if !chart.marks.is_empty() { span { (sample("mark", "3 2")) "step" } }
            @if !chart.bands.is_empty() { span { (shade()) "proxy stopped" } }
        }
        @for form in &FORMS { (Plot::new(chart, form).draw()) }
    };
    page.into_string()
}

/// A short line of the legend.
fn sample(class: &str, dashes: &str) -> Markup {
    html! {
        svg.key viewBox="0 0 22 10" width="22" height="10" aria-hidden="true" {
            path class=(class) d="M1 5H21" stroke=(stroke(class)) stroke-width="3" stroke-dasharray=(dashes) fill="none" {}
        }
    }
}

fn shade() -> Markup {
    html! {
        svg.key viewBox="0 0 22 10" width="22" height="10" aria-hidden="true" {
            rect.band x="1" y="0" width="20" height="10" fill="#c22f2f" fill-opacity="0.18" {}
        }
    }
}

fn stroke(class: &str) -> &'static str {
    match class {
        "blue" => "#1f6fd6",
        "green" => "#14915b",
        "p50" => "#333b45",
        "p99" => "#d07a0a",
        "maximum" => "#b43a8c",
        "mark" => "#c22f2f",
        _ => "#c9ced5",
    }
}

// === impl Plot ===

impl<'a> Plot<'a> {
    fn new(chart: &'a Chart, form: &'a Form) -> Self {
        let values = || chart.series.iter().flat_map(|it| it.lines.iter().flatten().map(|it| it.1));
        let largest = values().fold(f64::MIN, f64::max);
        let (low, high) = match chart.scale {
            // Without any value.
            _ if largest < 0.0 => (0.1, 10.0),
            Scale::Linear => (0.0, (largest * 1.08).max(1.0)),
            // At least one labeled line: a whole decade.
            Scale::Logarithmic => {
                let smallest = values().fold(f64::MAX, f64::min);
                (smallest * 0.8, (largest * 1.25).max(smallest * 12.0))
            }
        };
        let mut plot = Self { chart, form, top: TOP, low, high };
        let rows = plot.rows().into_iter().max().map_or(0, |it| it + 1);
        plot.top += rows as f64 * ROW;
        plot
    }

    fn x(&self, value: f64) -> f64 {
        LEFT + value / self.chart.end * (self.form.width - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        let share = match self.chart.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Logarithmic => (value / self.low).ln() / (self.high / self.low).ln(),
        };
        let height = self.form.height - self.top - BOTTOM;
        self.top + height * (1.0 - share.clamp(0.0, 1.0))
    }

    /// For each mark the row of its label, so that labels do not overlap.
    fn rows(&self) -> Vec<usize> {
        let mut ends: Vec<f64> = Vec::new();
        let mut rows = Vec::new();
        for mark in &self.chart.marks {
            let half = mark.label.len() as f64 * DIGIT / 2.0 + 1.0;
            let x = self.x(mark.at);
            let row = ends.iter().position(|end| *end < x - half).unwrap_or(ends.len());
            if row == ends.len() {
                ends.push(0.0);
            }
            ends[row] = x + half;
            rows.push(row);
        }
        rows
    }

    fn draw(&self) -> Markup {
        let Form { class, width, height, .. } = *self.form;
        let bottom = height - BOTTOM;
        html! {
            svg class=(class) viewBox=(format!("0 0 {width} {height}")) width=(width) height=(height)
                xmlns="http://www.w3.org/2000/svg" font-family="system-ui, sans-serif" font-size="12" role="img"
                aria-label=(self.chart.unit) {
                @for band in &self.chart.bands {
                    rect.band x=(px(self.x(band.from))) y=(px(self.top)) fill="#c22f2f" fill-opacity="0.18"
                        width=(px((self.x(band.until) - self.x(band.from)).max(1.0))) height=(px(bottom - self.top)) {}
                }
                @for (value, label) in self.vertical_labels() {
                    path.grid stroke=(GRID) d=(format!("M{LEFT} {}H{}", px(self.y(value)), width - RIGHT)) {}
                    text.axis fill=(AXIS) x=(LEFT - 6.0) y=(px(self.y(value) + 4.0)) text-anchor="end" { (label) }
                }
                @for (value, label) in self.horizontal_labels() {
                    text.axis fill=(AXIS) x=(px(self.x(value))) y=(height - 6.0) text-anchor=(self.anchor(value, &label)) { (label) }
                }
                @if !self.chart.flips.is_empty() {
                    path.flip stroke=(stroke("flip")) stroke-opacity="0.7" fill="none"
                        d=(self.chart.flips.iter().map(|it| format!("M{} {}V{bottom}", px(self.x(*it)), px(self.top))).collect::<String>()) {}
                }
                @for (mark, row) in self.chart.marks.iter().zip(self.rows()) {
                    path.mark stroke=(stroke("mark")) stroke-dasharray="3 2"
                        d=(format!("M{} {}V{bottom}", px(self.x(mark.at)), label_y(row) + 2.0)) {}
                }
                // After the lines, so that none crosses a label.
                @for (mark, row) in self.chart.marks.iter().zip(self.rows()) {
                    text.mark-label fill=(stroke("mark")) x=(px(self.x(mark.at))) y=(label_y(row)) text-anchor="middle" {
                        title { (format!("{:.1} s: {}", mark.at, mark.text)) }
                        (mark.label)
                    }
                }
                @for series in &self.chart.series {
                    path class=(series.class) stroke=(stroke(series.class)) stroke-width="1.8" fill="none"
                        stroke-linecap="round" stroke-linejoin="round" stroke-dasharray=(series.dashes)
                        d=(self.path(series)) {}
                }
            }
        }
    }

    fn path(&self, series: &Series) -> PreEscaped<String> {
        let mut path = String::new();
        for line in &series.lines {
            for (index, (x, y)) in line.iter().enumerate() {
                let letter = if index == 0 { 'M' } else { 'L' };
                path.push_str(&format!("{letter}{} {}", px(self.x(*x)), px(self.y(*y))));
            }
            if line.len() == 1 {
                // A point.
                path.push_str("h0.01");
            }
        }
        PreEscaped(path)
    }

    fn vertical_labels(&self) -> Vec<(f64, String)> {
        match self.chart.scale {
            Scale::Linear => {
                // All values are counts or rates, so fractions of one are of no use.
                let step = nice_step(self.high / 5.0).max(1.0);
                multiples(step, self.high).map(|it| (it, number(it))).collect()
            }
            Scale::Logarithmic => {
                let decades = (self.high / self.low).log10();
                let leading: &[f64] = if decades > 2.5 { &[1.0] } else { &[1.0, 2.0, 5.0] };
                let values =
                    (-3..7).flat_map(|it| leading.iter().map(move |of| of * 10_f64.powi(it)));
                let values = values.filter(|it| (self.low..=self.high).contains(it));
                values.map(|it| (it, number(it))).collect()
            }
        }
    }

    fn horizontal_labels(&self) -> Vec<(f64, String)> {
        if !self.chart.categories.is_empty() {
            let names = self.chart.categories.iter().enumerate();
            return names.map(|(x, it)| (x as f64, (*it).to_owned())).collect();
        }
        let step = nice_step(self.chart.end / self.form.labels_max);
        multiples(step, self.chart.end).map(|it| (it, format!("{} s", number(it)))).collect()
    }

    /// Labels at the ends of the axis stay within the picture.
    fn anchor(&self, value: f64, label: &str) -> &'static str {
        let half = label.chars().count() as f64 * DIGIT / 2.0;
        if self.x(value) + half > self.form.width { "end" } else { "middle" }
    }
}

/// The base line of the label of a mark.
fn label_y(row: usize) -> f64 {
    ROW * (row as f64 + 1.0)
}

/// A tenth of a pixel is enough.
fn px(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// 1, 2 or 5 times a power of ten, at least `least`.
fn nice_step(least: f64) -> f64 {
    let power = 10_f64.powf(least.max(1e-6).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|it| it * power).into_iter().find(|it| *it >= least);
    step.unwrap_or(least)
}

fn multiples(step: f64, until: f64) -> impl Iterator<Item = f64> {
    (0..100).map(move |it| f64::from(it) * step).take_while(move |it| *it <= until * 1.0001)
}

fn number(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(lines: Vec<Vec<(f64, f64)>>) -> Chart {
        Chart {
            series: vec![Series { name: "p99".to_owned(), class: "p99", dashes: "", lines }],
            scale: Scale::Logarithmic,
            unit: "ms",
            end: 10.0,
            categories: Vec::new(),
            flips: vec![1.0, 2.0],
            marks: Vec::new(),
            bands: Vec::new(),
        }
    }

    #[test]
    fn a_gap_is_not_drawn() {
        let chart = chart(vec![vec![(0.0, 1.0), (1.0, 2.0)], vec![(5.0, 1.0)]]);
        let plot = Plot::new(&chart, &FORMS[0]);
        let path = plot.path(&chart.series[0]).0;
        assert_eq!((path.matches('M').count(), path.matches('L').count()), (2, 1), "{path}");
        let whole = self::chart(vec![vec![(0.0, 1.0), (1.0, 2.0), (5.0, 1.0)]]);
        let path = Plot::new(&whole, &FORMS[0]).path(&whole.series[0]).0;
        assert_eq!((path.matches('M').count(), path.matches('L').count()), (1, 2), "{path}");
    }

    #[test]
    fn labels_of_marks_do_not_overlap() {
        let mark = |at: f64| Mark { at, label: "10".to_owned(), text: "reload".to_owned() };
        let mut chart = chart(vec![vec![(0.0, 1.0)]]);
        chart.marks = vec![mark(1.0), mark(1.01), mark(1.02), mark(9.0)];
        assert_eq!(Plot::new(&chart, &FORMS[0]).rows(), [0, 1, 2, 0]);
        chart.marks = vec![mark(1.0), mark(3.0)];
        assert_eq!(Plot::new(&chart, &FORMS[1]).rows(), [0, 0]);
    }

    #[test]
    fn charts_without_values_can_be_drawn() {
        for scale in [Scale::Linear, Scale::Logarithmic] {
            let text = svg(&Chart { scale, ..chart(Vec::new()) });
            assert!(
                text.contains("<svg") && !text.contains("NaN") && !text.contains("inf"),
                "{text}"
            );
        }
    }

    #[test]
    fn labels_are_round_numbers() {
        assert_eq!([0.3, 1.0, 2.1, 7.0].map(nice_step), [0.5, 1.0, 5.0, 10.0]);
        assert_eq!([0.05, 5.0, 1200.0].map(number), ["0.05", "5", "1200"]);
    }
}
