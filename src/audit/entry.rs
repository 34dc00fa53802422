//! What one line says.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The actor of what Flipgate does by itself.
pub const FLIPGATE: &str = "flipgate";

/// The longest text of a caller in a line, in bytes.
const TEXT_BYTES_MAX: usize = 1024;

/// The longest action, in bytes: a call may name many services.
const ACTION_BYTES_MAX: usize = 4096;

/// The most verdicts of one line.
const VERDICTS_MAX: usize = 100;

/// A change, or a call that was refused.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AuditEntry {
    /// When it was decided.
    pub time: jiff::Timestamp,
    /// The name of the token; without one, `uid N` on the unix socket, else the IP address. `flipgate` for Flipgate
    /// itself.
    pub actor: String,
    /// The address with its port, or `unix`. For Flipgate itself, the part that made the change, such as `watch`.
    pub from: String,
    /// The action with its services and colors, such as `promote web=green`.
    pub action: String,
    /// The reason, in the caller's words.
    pub reason: Option<String>,
    /// The generation before.
    pub before: u64,
    /// The generation after.
    pub after: u64,
    /// The outcome.
    pub result: AuditResult,
    /// The verdicts of gates, if any gate was run.
    pub verdicts: Vec<AuditVerdict>,
}

/// The outcome of a call.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AuditResult {
    /// The change was made.
    Done,
    /// It was refused, and nothing has changed.
    Refused {
        /// The HTTP status; `None` for a change that Flipgate wanted to make by itself.
        status: Option<u16>,
        /// The kind of the problem, such as `stale-generation`.
        code: String,
    },
    /// It is not known whether it was made.
    Unknown,
    /// Calls that were refused and have no line of their own.
    LeftOut,
}

/// The verdict of one gate. Without its reasons: these can quote what an application has sent.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct AuditVerdict {
    /// The service.
    pub service: String,
    /// The gate.
    pub gate: String,
    /// The verdict.
    pub result: VerdictResult,
}

/// The result of a gate.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum VerdictResult {
    /// The condition holds.
    Passed,
    /// It does not hold.
    Refused,
    /// An earlier gate refused.
    NotRun,
}

/// A line as it is read: the names of the fields are a format.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct AuditLine {
    /// When it was decided, as RFC 3339.
    pub time: String,
    /// Who made the call.
    pub actor: String,
    /// Where the call came from.
    pub from: String,
    /// The action with its services and colors.
    pub action: String,
    /// The reason, in the caller's words.
    pub reason: Option<String>,
    /// The generation before.
    pub before: u64,
    /// The generation after.
    pub after: u64,
    /// `done`, `unknown`, or `refused` with status and kind.
    pub result: String,
    /// The verdicts of gates.
    pub verdicts: Vec<AuditVerdict>,
    /// The hash of the line before.
    pub previous: String,
    /// The hash of this line. Empty while the line is made.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hash: String,
}

// === impl AuditEntry ===

impl AuditEntry {
    /// Stands for refused calls without an entry of their own.
    #[must_use]
    pub fn left_out(count: u64, generation: u64) -> Self {
        Self {
            time: jiff::Timestamp::now(),
            actor: FLIPGATE.to_owned(),
            from: FLIPGATE.to_owned(),
            action: format!("{count} more refused calls, which have no line of their own"),
            reason: None,
            before: generation,
            after: generation,
            result: AuditResult::LeftOut,
            verdicts: Vec::new(),
        }
    }

    /// The line of this entry, still without its hash.
    pub(super) fn unsealed(&self, previous: String) -> AuditLine {
        let Self { time, actor, from, action, reason, before, after, result, verdicts } = self;
        AuditLine {
            time: time.to_string(),
            actor: cut(actor, TEXT_BYTES_MAX),
            from: cut(from, TEXT_BYTES_MAX),
            action: cut(action, ACTION_BYTES_MAX),
            reason: reason.as_ref().map(|it| cut(it, TEXT_BYTES_MAX)),
            before: *before,
            after: *after,
            result: cut(&result.to_string(), TEXT_BYTES_MAX),
            verdicts: verdicts.iter().take(VERDICTS_MAX).cloned().collect(),
            previous,
            hash: String::new(),
        }
    }
}

/// At most so many bytes of a text, with a mark if it was longer.
fn cut(text: &str, bytes_max: usize) -> String {
    match text.len() > bytes_max {
        true => format!("{}…", &text[..text.floor_char_boundary(bytes_max)]),
        false => text.to_owned(),
    }
}

// === impl AuditResult ===

impl fmt::Display for AuditResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Refused { status: Some(status), code } => write!(f, "refused {status} {code}"),
            Self::Refused { status: None, code } => write!(f, "refused {code}"),
            Self::Unknown => f.write_str("unknown"),
            Self::LeftOut => f.write_str("refused"),
        }
    }
}

// === impl AuditLine ===

impl AuditLine {
    /// Whether the action names a service.
    #[must_use]
    pub fn names(&self, service: &str) -> bool {
        // What stands in parentheses are words of a caller, such as a version.
        let action = self.action.split(" (").next().unwrap_or_default();
        // No verb has `=` or `.`; a name without a color is the last word of its action.
        let mut words = action.split(' ').peekable();
        while let Some(word) = words.next() {
            let name = word.split(['=', '.']).next().unwrap_or_default();
            let is_name = name.len() < word.len() || words.peek().is_none();
            if is_name && name == service && action != service {
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(action: &str) -> AuditLine {
        let entry = AuditEntry {
            time: jiff::Timestamp::UNIX_EPOCH,
            actor: "ada".to_owned(),
            from: "unix".to_owned(),
            action: action.to_owned(),
            reason: Some("é".repeat(1000)),
            before: 1,
            after: 2,
            result: AuditResult::Done,
            verdicts: Vec::new(),
        };
        entry.unsealed(String::new())
    }

    #[test]
    fn an_action_names_its_services_and_no_verb_is_a_service() {
        for (action, service, is_named) in [
            ("promote api=green web=green", "web", true),
            ("promote api=green web=green", "api", true),
            ("promote api=green web=green", "green", false),
            ("promote api=green", "promote", false),
            ("set pool web.green (version web2)", "web", true),
            ("set pool web.green (version web2)", "web2", false),
            ("watch stop web", "web", true),
            ("watch stop web", "stop", false),
            ("reload", "reload", false),
        ] {
            assert_eq!(line(action).names(service), is_named, "{action}: {service}");
        }
    }

    #[test]
    fn texts_of_callers_are_cut_between_characters() {
        let reason = line("reload").reason.expect("given");
        assert_eq!(reason, format!("{}…", "é".repeat(512)));
        assert_eq!(cut("short", 5), "short");
        assert_eq!(line(&"x".repeat(5000)).action.len(), ACTION_BYTES_MAX + "…".len());
    }
}
