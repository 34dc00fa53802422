//! What is done while the load goes on, as it is written: one line for each step.
//!
//! ```text
//! # comment
//! every 200ms flip                      every service to its other color, in one call
//! every 1s    flip web
//! at 5s       promote web=green api=green   those of them that are not so already
//! at 6s       rollback
//! at 7s       replace web.green         fresh endpoints; the old ones are stopped when they are idle
//! at 8s       kill web.green.1          the first endpoint of web's green, with SIGKILL
//! at 9s       start web.green.1
//! at 10s      reload
//! at 12s      kill proxy
//! at 13s      start proxy
//! at 20s      restart proxy             SIGTERM, wait, start
//! ```

use std::{collections::BTreeSet, fmt, str::FromStr, time::Duration};

use crate::color::Color;

/// A line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ScriptLine {
    /// When.
    pub when: When,
    /// What.
    pub step: Step,
}

/// When something is done, from when the load begins to count.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum When {
    /// Once.
    At(Duration),
    /// Again and again.
    Every(Duration),
}

/// Something that is done.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// These services, or all of them, to their other colors.
    Flip(Vec<String>),
    /// These services to these colors.
    Promote(Vec<(String, Color)>),
    /// These services, or those of the last promotion, back.
    Rollback(Vec<String>),
    /// Fresh endpoints for a color.
    Replace(String, Color),
    /// The configuration is read again.
    Reload,
    /// A process ends or begins.
    Process(Action, ProcessName),
}

/// What is done to a process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    /// SIGKILL.
    Kill,
    /// It begins again, where it was.
    Start,
    /// SIGTERM, and again when it has ended.
    Restart,
}

/// A process.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ProcessName {
    /// The proxy.
    Proxy,
    /// An endpoint of a color of a service; the first one is 1.
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

/// The shortest time between two turns of a step.
const EVERY_MIN: Duration = Duration::from_millis(1);

impl ScriptLine {
    /// The steps of a file.
    ///
    /// # Errors
    ///
    /// Each line that is not one, with its number.
    pub fn parse_all(text: &str) -> Result<Vec<Self>, String> {
        let (mut lines, mut wrong) = (Vec::new(), Vec::new());
        // Some editors write this mark in front, and nobody sees it.
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
            "every" => return Err(format!("`{text}`: at most once a millisecond")),
            _ => return Err(format!("`{how}`: a step begins with `at` or `every`")),
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
                return Err(format!("`{}`: each service once", words.join(" ")));
            }
            Step::Promote(pairs)
        }
        ["rollback", services @ ..] => Step::Rollback(named(services)),
        ["replace", pool] => {
            let (service, color) = pool
                .rsplit_once('.')
                .ok_or_else(|| format!("`{pool}`: write SERVICE.COLOR, like web.green"))?;
            Step::Replace(service.to_owned(), parse_color(color)?)
        }
        ["reload"] => Step::Reload,
        ["kill", process] => Step::Process(Action::Kill, parse_process(process)?),
        ["start", process] => Step::Process(Action::Start, parse_process(process)?),
        ["restart", process] => Step::Process(Action::Restart, parse_process(process)?),
        _ => {
            return Err(format!(
                "`{}`: a step is flip, promote, rollback, replace, reload, kill, start or restart",
                words.join(" ")
            ));
        }
    };
    Ok(step)
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
    let wrong = || format!("`{text}`: write proxy, or SERVICE.COLOR.NUMBER, like web.green.1");
    let (pool, number) = text.rsplit_once('.').ok_or_else(wrong)?;
    let (service, color) = pool.rsplit_once('.').ok_or_else(wrong)?;
    let number = number.parse().ok().filter(|it| *it > 0).ok_or_else(wrong)?;
    Ok(ProcessName::Endpoint(service.to_owned(), parse_color(color)?, number))
}

/// A time as people write it.
///
/// # Errors
///
/// What to write instead.
pub fn parse_time(text: &str) -> Result<Duration, String> {
    text.parse::<jiff::SignedDuration>()
        .ok()
        .and_then(|it| Duration::try_from(it).ok())
        .ok_or_else(|| "write a time in units up to hours, like 30s, 5m or 24h".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_read_line_by_line() {
        let text = "# a comment\n\nevery 200ms flip  # and another\nat 5s promote web=green api=blue\n\
                    at 1s kill web.green.2\nat 2s start proxy\nat 3s replace web.blue\nat 4s rollback\n";
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
        ];
        assert_eq!(lines, expected.map(|(when, step)| ScriptLine { when, step }));
    }

    #[test]
    fn the_error_of_a_wrong_line_has_its_number_and_the_remedy() {
        for (bad, why) in [
            ("flip", "write `at TIME STEP`"),
            ("at 5 flip", "write a time"),
            ("at -5s flip", "write a time"),
            ("every 0s flip", "at most once"),
            ("in 5s flip", "begins with"),
            ("at 5s jump", "a step is"),
            ("at 5s promote", "a step is"),
            ("at 5s promote web", "SERVICE=COLOR"),
            ("at 5s promote web=red", "`red` is not a color"),
            ("at 5s kill web", "SERVICE.COLOR.NUMBER"),
            ("at 5s kill web.green.0", "SERVICE.COLOR.NUMBER"),
            ("at 5s replace web", "SERVICE.COLOR"),
        ] {
            let error = ScriptLine::parse_all(&format!("# first\n{bad}")).expect_err(bad);
            assert!(error.starts_with("line 2: ") && error.contains(why), "{bad}: {error}");
        }
    }
}
