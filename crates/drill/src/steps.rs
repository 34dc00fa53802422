//! Steps during the load, and the language of scripts: one line for each step.
//!
//! ```text
//! # comment
//! every 200ms flip                      every service to its other color, in one call
//! every 1s    flip web
//! at 5s       promote web=green api=green   skips services that have that color
//! at 6s       rollback
//! at 7s       replace web.green         new endpoints; the old ones are stopped when they are idle
//! at 8s       kill web.green.1          SIGKILL to the first endpoint of web green
//! at 9s       start web.green.1
//! at 10s      reload
//! at 12s      kill proxy
//! at 13s      start proxy
//! at 20s      restart proxy             SIGTERM, wait, start
//! at 30s      refuse web                the inactive color fails, and its promotion must be refused
//! at 40s      guard web 20              the inactive color is promoted and fails 20 %, and must be rolled back
//! at 50s      gradual web 10,50,100 2s  the inactive color is promoted step by step, each for at least two seconds
//! ```

use std::{collections::BTreeSet, fmt, str::FromStr, time::Duration};

use crate::color::Color;

/// A line of a script.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ScriptLine {
    /// When the step runs.
    pub when: When,
    /// The step.
    pub step: Step,
}

/// When a step runs, relative to the begin of the measured load.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum When {
    /// Once, at this time.
    At(Duration),
    /// Repeatedly, at this interval.
    Every(Duration),
}

/// A step.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// Flips these services, or all of them, to their other colors.
    Flip(Vec<String>),
    /// Makes these colors active.
    Promote(Vec<(String, Color)>),
    /// Rolls back these services, or those of the last promotion.
    Rollback(Vec<String>),
    /// Gives a color new endpoints.
    Replace(String, Color),
    /// Reloads the configuration.
    Reload,
    /// Has the inactive color of a service fail, and promotes it: that must be refused.
    Refuse(String),
    /// Promotes the inactive color of a service, and has it fail in this percentage of its requests: it must be rolled
    /// back.
    Guard(String, u8),
    /// Promotes the inactive color of a service in these steps, in percent, each for at least this time.
    Gradual(String, Vec<u8>, Duration),
    /// Starts or ends a process.
    Process(Action, ProcessName),
}

/// An action on a process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    /// SIGKILL.
    Kill,
    /// Starts it again with its old address.
    Start,
    /// SIGTERM, and a start when it has ended.
    Restart,
}

/// A process.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ProcessName {
    /// The proxy.
    Proxy,
    /// An endpoint of a color of a service. Numbers begin with 1.
    Endpoint(String, Color, usize),
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(time) => write!(f, "at {time:?}"),
            Self::Every(time) => write!(f, "every {time:?}"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = |names: &[String]| names.iter().map(|it| format!(" {it}")).collect::<String>();
        match self {
            Self::Flip(names) => write!(f, "flip{}", words(names)),
            Self::Promote(pairs) => {
                write!(f, "promote")?;
                pairs.iter().try_for_each(|(name, color)| write!(f, " {name}={color}"))
            }
            Self::Rollback(names) => write!(f, "rollback{}", words(names)),
            Self::Replace(name, color) => write!(f, "replace {name}.{color}"),
            Self::Reload => write!(f, "reload"),
            Self::Refuse(name) => write!(f, "refuse {name}"),
            Self::Guard(name, percent) => write!(f, "guard {name} {percent}"),
            Self::Gradual(name, steps, time) => {
                let steps: Vec<_> = steps.iter().map(ToString::to_string).collect();
                write!(f, "gradual {name} {} {time:?}", steps.join(","))
            }
            Self::Process(action, process) => {
                let action = match action {
                    Action::Kill => "kill",
                    Action::Start => "start",
                    Action::Restart => "restart",
                };
                match process {
                    ProcessName::Proxy => write!(f, "{action} proxy"),
                    ProcessName::Endpoint(name, color, number) => {
                        write!(f, "{action} {name}.{color}.{number}")
                    }
                }
            }
        }
    }
}

// === impl Step ===

impl Step {
    /// Whether it changes active colors, if nothing fails on purpose.
    pub(crate) fn is_flip(&self) -> bool {
        matches!(self, Self::Flip(_) | Self::Promote(_) | Self::Rollback(_) | Self::Gradual(..))
    }
}

/// The shortest interval of a repeated step.
const EVERY_MIN: Duration = Duration::from_millis(1);

impl ScriptLine {
    /// Parses a script.
    ///
    /// # Errors
    ///
    /// The error of each wrong line, with its number.
    pub fn parse_all(text: &str) -> Result<Vec<Self>, String> {
        let (mut lines, mut wrong) = (Vec::new(), Vec::new());
        // Some editors write a byte order mark.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            match line.parse() {
                Ok(line) => lines.push(line),
                Err(error) => wrong.push(format!("line {}: {error}", number + 1)),
            }
        }
        if wrong.is_empty() { Ok(lines) } else { Err(wrong.join("\n")) }
    }
}

impl FromStr for ScriptLine {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split_whitespace();
        let (Some(how), Some(time)) = (words.next(), words.next()) else {
            return Err(format!("`{text}`: write `at TIME STEP` or `every TIME STEP`"));
        };
        let time = parse_time(time).map_err(|error| format!("`{time}`: {error}"))?;
        let when = match how {
            "at" => When::At(time),
            "every" if time >= EVERY_MIN => When::Every(time),
            "every" => return Err(format!("`{text}`: the shortest interval is 1ms")),
            _ => return Err(format!("`{how}`: a line begins with `at` or `every`")),
        };
        let words: Vec<&str> = words.collect();
        Ok(Self { when, step: parse_step(&words)? })
    }
}

fn parse_step(words: &[&str]) -> Result<Step, String> {
    let named = |words: &[&str]| words.iter().map(ToString::to_string).collect();
    let step = match words {
        ["flip", services @ ..] => Step::Flip(named(services)),
        ["promote", first, rest @ ..] => {
            let pairs = std::iter::once(first).chain(rest).map(|it| parse_pair(it));
            let pairs: Vec<_> = pairs.collect::<Result<_, _>>()?;
            let names: BTreeSet<&String> = pairs.iter().map(|(name, _)| name).collect();
            if names.len() < pairs.len() {
                return Err(format!("`{}`: write each service once", words.join(" ")));
            }
            Step::Promote(pairs)
        }
        ["rollback", services @ ..] => Step::Rollback(named(services)),
        ["replace", pool] => {
            let (service, color) = pool
                .rsplit_once('.')
                .ok_or_else(|| format!("`{pool}`: write SERVICE.COLOR, such as web.green"))?;
            Step::Replace(service.to_owned(), parse_color(color)?)
        }
        ["reload"] => Step::Reload,
        ["refuse", service] => Step::Refuse((*service).to_owned()),
        ["guard", service, percent @ ..] => {
            let percent = match percent {
                [] => Some(100),
                [it] => it.parse().ok().filter(|it| (1..=100).contains(it)),
                _ => None,
            };
            let percent = percent.ok_or("write guard SERVICE PERCENT, with 1 to 100 percent")?;
            Step::Guard((*service).to_owned(), percent)
        }
        ["gradual", service, steps, time @ ..] => parse_gradual(service, steps, time)?,
        ["kill", process] => Step::Process(Action::Kill, parse_process(process)?),
        ["start", process] => Step::Process(Action::Start, parse_process(process)?),
        ["restart", process] => Step::Process(Action::Restart, parse_process(process)?),
        _ => {
            return Err(format!(
                "`{}`: a step is flip, promote, rollback, replace, reload, kill, start, restart, refuse, guard or gradual",
                words.join(" ")
            ));
        }
    };
    Ok(step)
}

/// How long a step of a gradual promotion takes at least, if the script does not say so.
const STEP_FOR: Duration = Duration::from_secs(1);

fn parse_gradual(service: &str, steps: &str, time: &[&str]) -> Result<Step, String> {
    let wrong = || {
        format!("`{steps}`: write rising shares in percent that end with 100, such as 10,50,100")
    };
    let steps: Option<Vec<u8>> = steps.split(',').map(|it| it.parse().ok()).collect();
    let is_right = |it: &Vec<u8>| it.is_sorted_by(|a, b| a < b) && it.last() == Some(&100);
    let steps = steps.filter(|it| is_right(it) && it.first() > Some(&0)).ok_or_else(wrong)?;
    let time = match time {
        [] => STEP_FOR,
        [time] => parse_time(time).map_err(|error| format!("`{time}`: {error}"))?,
        _ => return Err("write gradual SERVICE STEPS TIME".to_owned()),
    };
    Ok(Step::Gradual(service.to_owned(), steps, time))
}

fn parse_pair(text: &str) -> Result<(String, Color), String> {
    let (service, color) =
        text.split_once('=').ok_or_else(|| format!("`{text}`: write SERVICE=COLOR"))?;
    Ok((service.to_owned(), parse_color(color)?))
}

fn parse_color(text: &str) -> Result<Color, String> {
    text.parse().map_err(|error: crate::color::ParseColorError| error.to_string())
}

fn parse_process(text: &str) -> Result<ProcessName, String> {
    if text == "proxy" {
        return Ok(ProcessName::Proxy);
    }
    let wrong = || format!("`{text}`: write proxy, or SERVICE.COLOR.NUMBER, such as web.green.1");
    let (pool, number) = text.rsplit_once('.').ok_or_else(wrong)?;
    let (service, color) = pool.rsplit_once('.').ok_or_else(wrong)?;
    let number = number.parse().ok().filter(|it| *it > 0).ok_or_else(wrong)?;
    Ok(ProcessName::Endpoint(service.to_owned(), parse_color(color)?, number))
}

/// The longest time of an option or a step: a year.
const TIME_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// Parses a duration, such as 30s.
///
/// # Errors
///
/// What to write instead.
pub fn parse_time(text: &str) -> Result<Duration, String> {
    text.parse::<jiff::SignedDuration>()
        .ok()
        .and_then(|it| Duration::try_from(it).ok())
        .filter(|it| *it <= TIME_MAX)
        .ok_or_else(|| {
            "write a time with units up to hours, such as 30s, 5m or 24h; at most 8760h".to_owned()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_read_line_by_line() {
        let text = "# a comment\n\nevery 200ms flip  # and another\nat 5s promote web=green api=blue\n\
                    at 1s kill web.green.2\nat 2s start proxy\nat 3s replace web.blue\nat 4s rollback\n\
                    at 5s refuse web\nat 6s guard web\nat 7s guard web 20\n\
                    at 8s gradual web 1,50,100\nat 9s gradual web 100 2s\n";
        let lines = ScriptLine::parse_all(text).expect("a script");
        let (at, every) = (|it| When::At(Duration::from_secs(it)), When::Every);
        let web = || "web".to_owned();
        let expected = [
            (every(Duration::from_millis(200)), Step::Flip(Vec::new())),
            (at(5), Step::Promote(vec![(web(), Color::Green), ("api".to_owned(), Color::Blue)])),
            (at(1), Step::Process(Action::Kill, ProcessName::Endpoint(web(), Color::Green, 2))),
            (at(2), Step::Process(Action::Start, ProcessName::Proxy)),
            (at(3), Step::Replace(web(), Color::Blue)),
            (at(4), Step::Rollback(Vec::new())),
            (at(5), Step::Refuse(web())),
            (at(6), Step::Guard(web(), 100)),
            (at(7), Step::Guard(web(), 20)),
            (at(8), Step::Gradual(web(), vec![1, 50, 100], Duration::from_secs(1))),
            (at(9), Step::Gradual(web(), vec![100], Duration::from_secs(2))),
        ];
        assert_eq!(lines, expected.map(|(when, step)| ScriptLine { when, step }));
        let texts: Vec<_> = lines.iter().map(|it| it.step.to_string()).collect();
        let expected = [
            "flip",
            "promote web=green api=blue",
            "kill web.green.2",
            "start proxy",
            "replace web.blue",
            "rollback",
            "refuse web",
            "guard web 100",
            "guard web 20",
            "gradual web 1,50,100 1s",
            "gradual web 100 2s",
        ];
        assert_eq!(texts, expected);
    }

    #[test]
    fn the_error_of_a_wrong_line_has_its_number_and_the_remedy() {
        for (bad, why) in [
            ("flip", "write `at TIME STEP`"),
            ("at 5 flip", "write a time"),
            ("at -5s flip", "write a time"),
            ("every 0s flip", "the shortest interval"),
            ("in 5s flip", "begins with"),
            ("at 5s jump", "a step is"),
            ("at 5s promote", "a step is"),
            ("at 5s promote web", "SERVICE=COLOR"),
            ("at 5s promote web=red", "`red` is not a color"),
            ("at 5s kill web", "SERVICE.COLOR.NUMBER"),
            ("at 5s kill web.green.0", "SERVICE.COLOR.NUMBER"),
            ("at 5s replace web", "SERVICE.COLOR"),
            ("at 5s refuse", "a step is"),
            ("at 5s guard web 0", "1 to 100 percent"),
            ("at 5s guard web 5 5", "1 to 100 percent"),
            ("at 5s gradual web", "a step is"),
            ("at 5s gradual web 10,50", "end with 100"),
            ("at 5s gradual web 50,10,100", "rising shares"),
            ("at 5s gradual web 10,10,100", "rising shares"),
            ("at 5s gradual web 0,100", "rising shares"),
            ("at 5s gradual web 1000", "rising shares"),
            ("at 5s gradual web 100 5", "write a time"),
            ("at 5s gradual web 100 5s 5s", "gradual SERVICE STEPS TIME"),
        ] {
            let error = ScriptLine::parse_all(&format!("# first\n{bad}")).expect_err(bad);
            assert!(error.starts_with("line 2: ") && error.contains(why), "{bad}: {error}");
        }
    }
}
