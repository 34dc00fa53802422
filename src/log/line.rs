//! The format of a line, and the lines that this room writes itself.

use std::borrow::Cow;

use serde_json::json;

/// The format of lines.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogFormat {
    /// A JSON object for each line.
    Json,
    /// Text for people.
    Text,
}

/// A longer line is cut.
pub(super) const LINE_BYTES_MAX: usize = 16 << 10;

/// How much of a cut line is kept. JSON inside a JSON string needs an escape for each quote, so this is
/// less than [`LINE_BYTES_MAX`].
const KEPT_BYTES: usize = 6 << 10;

const TARGET: &str = "flipgate::log";

/// Returns the line as it goes into the queue: it has one line feed, at its end, and at most
/// [`LINE_BYTES_MAX`] bytes.
///
/// A longer line is cut. In text, the line ends with a mark. In JSON, a part of an object is not valid,
/// so the line is replaced by an object: its string `beginning` has the beginning of the line.
pub(super) fn fit(format: LogFormat, line: &[u8]) -> Cow<'_, [u8]> {
    let content = line.strip_suffix(b"\n").unwrap_or(line);
    if content.len() >= LINE_BYTES_MAX {
        return Cow::Owned(cut(format, content).into_bytes());
    }
    // JSON escapes line feeds itself. In text, one event must not look like two.
    if memchr::memchr(b'\n', content).is_some() || content.len() == line.len() {
        return Cow::Owned(one_line(&String::from_utf8_lossy(content)).into_bytes());
    }
    Cow::Borrowed(line)
}

/// Returns the line that reports how many lines are missing.
pub(super) fn dropped(format: LogFormat, dropped: u64) -> String {
    let timestamp = now();
    let message = "log lines were dropped: standard error was not read fast enough";
    match format {
        LogFormat::Json => {
            let level = "WARN";
            format!(
                "{}\n",
                json!({"timestamp": timestamp, "level": level, "message": message, "dropped": dropped, "target": TARGET})
            )
        }
        LogFormat::Text => format!("{timestamp}  WARN {TARGET}: {message} dropped={dropped}\n"),
    }
}

fn cut(format: LogFormat, content: &[u8]) -> String {
    let bytes = content.len();
    let text = String::from_utf8_lossy(content);
    let beginning = &text[..text.floor_char_boundary(KEPT_BYTES)];
    match format {
        LogFormat::Json => {
            let message = "a log line was cut";
            let (timestamp, level) = (now(), "WARN");
            format!(
                "{}\n",
                json!({"timestamp": timestamp, "level": level, "message": message, "bytes": bytes, "beginning": beginning, "target": TARGET})
            )
        }
        LogFormat::Text => {
            let mut line = one_line(beginning);
            line.truncate(line.len() - 1);
            format!("{line}… (cut: the line has {bytes} bytes)\n")
        }
    }
}

/// The text with its line feeds escaped, and one at its end.
fn one_line(text: &str) -> String {
    let mut line = text.replace('\n', "\\n");
    line.push('\n');
    line
}

/// The time, in the format of `tracing_subscriber`.
fn now() -> String {
    format!("{:.6}", jiff::Timestamp::now())
}
