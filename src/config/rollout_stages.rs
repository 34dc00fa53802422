//! The stages of plans: `[[rollout.NAME.stage]]`.

use std::{collections::BTreeSet, time::Duration};

use super::{
    policy::or_none,
    reader::{Section, Value, flag, text, whole, word},
    requests::{request_header, request_method},
    settings::{duration, path},
};
use crate::{
    continuity::HoldSettings,
    model::{ServiceName, StatusSet},
    release::Expression,
    rollout::{
        Action, AfterPatience, Call, Drain, DrainGoal, Exec, Hold, IfFailed, OF_SERVICE, Promote,
        ReadyUrl, Retry, SECRET, SetPool, Side, Stage, Target, Undo, Until, Watch, placeholders,
    },
};

/// The placeholders that a stage may use.
#[derive(Debug)]
pub(super) struct Placeholders {
    pub(super) values: BTreeSet<String>,
    pub(super) secrets: BTreeSet<String>,
}

/// The longest name of a stage.
const NAME_MAX: usize = 60;

/// The most attempts.
const ATTEMPTS_MAX: usize = 100;

/// A stage. What it saves is known to the stages after it.
pub(super) fn stage(
    section: &Section<'_>,
    services: &[ServiceName],
    known: &mut Placeholders,
) -> Option<Stage> {
    let name = section.need("name", "a name, like \"pause workers\"", |it| {
        let name = text(it)?;
        let is_good = !name.trim().is_empty()
            && name.chars().count() <= NAME_MAX
            && !name.chars().any(char::is_control);
        match is_good {
            true => Ok(name.to_owned()),
            false => Err(format!("expected a name of 1 to {NAME_MAX} visible characters")),
        }
    });
    let kinds = "\"call\", \"until\", \"exec\", \"pool\", \"gate\", \"approve\", \"promote\", \"drain\", \"watch\", \"hold\" or \"release\"";
    let kind = section.need("kind", kinds, |it| kind(it, &KINDS));
    let only = section.list("services", Vec::new(), |it| {
        let name = it.parse::<ServiceName>().map_err(|error| error.to_string())?;
        match services.contains(&name) {
            true => Ok(name),
            false => Err(format!("there is no service `{name}`")),
        }
    });
    let only_if = section.read("only_if", None, |it| expression(it, &["values"]).map(Some));
    let action = kind.and_then(|it| action(section, it, known));
    let default = action.as_ref().and_then(Action::default_deadline);
    let deadline = section.read("deadline", default, or_none(duration));
    let retry = retry(&section.section("retry"));
    let is_idempotent = action.as_ref().is_some_and(Action::is_idempotent);
    let idempotent = section.read("idempotent", is_idempotent, flag);
    let undo = section.has("undo").then(|| section.section("undo"));
    let undo = undo.and_then(|it| undo_of(&it, known));
    if let Some(
        Action::Call(Call { save, .. }) | Action::Until(Until { call: Call { save, .. }, .. }),
    ) = &action
    {
        known.values.extend(save.iter().map(|it| it.0.clone()));
    }
    let is_own = |it: &Action| matches!(it, Action::Promote(_) | Action::Hold(_) | Action::Pool(_));
    if undo.as_ref().is_some_and(|it| !matches!(it.action, Action::Pool(_)))
        && action.as_ref().is_some_and(is_own)
    {
        let what = "Flipgate undoes such a stage by itself\nwrite a stage before it, like `kind = \"exec\"` with `command = [\"true\"]`, and give that one the undo";
        section.note("undo", what);
    }
    check_keys(section, kind);
    section.finish();
    Some(Stage {
        name: name?,
        action: action?,
        services: (!only.is_empty()).then_some(only),
        deadline,
        retry,
        only_if,
        idempotent,
        undo,
    })
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Call,
    Until,
    Exec,
    Pool,
    Gate,
    Approve,
    Promote,
    Drain,
    Watch,
    Hold,
    Release,
}

const KINDS: [(&str, Kind); 11] = [
    ("call", Kind::Call),
    ("until", Kind::Until),
    ("exec", Kind::Exec),
    ("pool", Kind::Pool),
    ("gate", Kind::Gate),
    ("approve", Kind::Approve),
    ("promote", Kind::Promote),
    ("drain", Kind::Drain),
    ("watch", Kind::Watch),
    ("hold", Kind::Hold),
    ("release", Kind::Release),
];

/// The keys that only some kinds have.
const KEYS: [(&str, &[Kind]); 22] = [
    ("url", &REQUESTS),
    ("at", &REQUESTS),
    ("path", &REQUESTS),
    ("method", &REQUESTS),
    ("headers", &REQUESTS),
    ("body", &REQUESTS),
    ("status", &REQUESTS),
    ("condition", &REQUESTS),
    ("save", &REQUESTS),
    ("timeout", &REQUESTS),
    ("interval", &[Kind::Until]),
    ("command", &[Kind::Exec]),
    ("env", &[Kind::Exec]),
    ("dir", &[Kind::Exec]),
    ("healthy_within", &[Kind::Pool]),
    ("confirm_within", &[Kind::Promote]),
    ("steps", &[Kind::Promote]),
    ("step_for", &[Kind::Promote]),
    ("until", &[Kind::Drain]),
    ("patience", &[Kind::Drain]),
    ("then", &[Kind::Drain]),
    ("inconclusive", &[Kind::Watch]),
];

const REQUESTS: [Kind; 2] = [Kind::Call, Kind::Until];

/// Notes the keys that another kind of stage has.
fn check_keys(section: &Section<'_>, kind: Option<Kind>) {
    for (key, kinds) in KEYS.iter().copied().chain([("for", &[Kind::Hold][..])]) {
        // So they are known, too.
        let is_set = section.has(key);
        let Some(kind) = kind.filter(|it| is_set && !kinds.contains(it)) else { continue };
        let word = |kind: Kind| {
            let found = KINDS.iter().find(|it| it.1 == kind);
            format!("`{}`", found.map_or("?", |it| it.0))
        };
        let words: Vec<_> = kinds.iter().map(|it| word(*it)).collect();
        let (kind, kinds) = (word(kind), words.join(" and "));
        section.note(key, format_args!("has no effect on a stage of the kind {kind}\nit is for {kinds}: remove it, or set another kind"));
    }
}

/// What an undo may be.
const UNDO_KINDS: [(&str, Kind); 4] =
    [("call", Kind::Call), ("until", Kind::Until), ("exec", Kind::Exec), ("pool", Kind::Pool)];

fn kind(value: Value<'_>, kinds: &[(&str, Kind)]) -> Result<Kind, String> {
    word(value, kinds)
}

fn undo_of(section: &Section<'_>, known: &Placeholders) -> Option<Undo> {
    let example = "`kind`: \"call\", \"until\", \"exec\" or \"pool\"";
    let kind = section.need("kind", example, |it| kind(it, &UNDO_KINDS));
    let action = kind.and_then(|it| match it {
        Kind::Pool => Some(Action::Pool(SetPool::default())),
        it => action(section, it, known),
    });
    let default = action.as_ref().and_then(Action::default_deadline);
    // Nothing stops an undo but its deadline.
    let deadline = section.read("deadline", default, |it| duration(it).map(Some));
    let retry = retry(&section.section("retry"));
    // An undo runs also if it is not certain that its stage has run, so it has to be harmless then.
    let idempotent = section.read("idempotent", true, flag);
    let if_failed = section.read("if_failed", IfFailed::default(), |it| {
        word(it, &[("stop", IfFailed::Stop), ("continue", IfFailed::Continue)])
    });
    check_keys(section, kind);
    section.finish();
    Some(Undo { action: action?, deadline, retry, idempotent, if_failed })
}

fn retry(section: &Section<'_>) -> Retry {
    let known = Retry::default();
    let attempts =
        section.read("attempts", known.attempts as usize, |it| whole(it, 1..=ATTEMPTS_MAX));
    let delay = section.read("delay", known.delay, duration);
    section.finish();
    Retry { attempts: u32::try_from(attempts).unwrap_or(1), delay }
}

fn action(section: &Section<'_>, kind: Kind, known: &Placeholders) -> Option<Action> {
    Some(match kind {
        Kind::Call => Action::Call(call(section, known)?),
        Kind::Until => {
            let call = call(section, known)?;
            if call.condition.is_none() && !section.has("condition") {
                let what = "missing\nwrite a CEL expression, like `condition = \"body.status == 'paused'\"`";
                section.note("condition", what);
            }
            let interval = section.read("interval", Duration::from_secs(1), duration);
            Action::Until(Until { call, interval })
        }
        Kind::Exec => Action::Exec(exec(section, known)?),
        Kind::Pool => {
            let healthy_within =
                section.read("healthy_within", Some(Duration::from_secs(120)), or_none(duration));
            Action::Pool(SetPool { healthy_within })
        }
        Kind::Gate => Action::Gate,
        Kind::Approve => Action::Approve,
        Kind::Promote => Action::Promote(promote(section)),
        Kind::Drain => Action::Drain(drain(section)),
        Kind::Watch => {
            let words = [("pass", true), ("fail", false)];
            let accept_inconclusive = section.read("inconclusive", true, |it| word(it, &words));
            Action::Watch(Watch { accept_inconclusive })
        }
        Kind::Hold => {
            let length = section.read("for", None, |it| match duration(it)? {
                length if length <= HoldSettings::LENGTH_MAX => Ok(Some(length)),
                _ => Err("a hold lasts at most \"5m\": clients give up long before".to_owned()),
            });
            Action::Hold(Hold { length })
        }
        Kind::Release => Action::Release,
    })
}

fn promote(section: &Section<'_>) -> Promote {
    let confirm_within = section.read("confirm_within", None, |it| duration(it).map(Some));
    let steps: Vec<u8> = section
        .numbers("steps", 1..=100)
        .into_iter()
        .map(|it| u8::try_from(it).unwrap_or(100))
        .collect();
    let is_rising = steps.is_sorted_by(|one, next| one < next) && steps.last() == Some(&100);
    if !steps.is_empty() && !is_rising {
        let what = "each share has to be larger than the one before, and the last one 100\nwrite steps = [1, 10, 50, 100]";
        section.note("steps", what);
    }
    let step_for = section.read("step_for", None, |it| duration(it).map(Some));
    if !steps.is_empty() && confirm_within.is_some() {
        section.note(
            "confirm_within",
            "`steps` is set, too: a gradual promotion is judged by its watch\nremove one of them",
        );
    }
    if steps.is_empty() && step_for.is_some() && !section.has("steps") {
        section.note("step_for", "only has an effect with `steps`");
    }
    Promote { confirm_within, steps, step_for }
}

fn drain(section: &Section<'_>) -> Drain {
    let until = section.read("until", DrainGoal::default(), |it| {
        word(it, &[("safe_to_stop", DrainGoal::SafeToStop), ("drained", DrainGoal::Drained)])
    });
    let patience = section.read("patience", None, or_none(duration));
    let then = section.read("then", AfterPatience::default(), |it| {
        word(
            it,
            &[
                ("fail", AfterPatience::Fail),
                ("go_on", AfterPatience::GoOn),
                ("end_streams", AfterPatience::EndStreams),
                ("wait", AfterPatience::Wait),
            ],
        )
    });
    if patience.is_none() && section.has("then") && !section.has("patience") {
        section.note("then", "only has an effect with `patience`\nset that too, or remove the key");
    }
    Drain { until, patience, then }
}

fn call(section: &Section<'_>, known: &Placeholders) -> Option<Call> {
    let url = section.read("url", None, |it| {
        let url = known.check(text(it)?)?;
        // A value may be a number of a port, or a name of a host.
        let parses = |value| ReadyUrl::parse(&without_placeholders(url, value));
        parses("1")
            .or_else(|_| parses("h"))
            .map_err(|_| format!("`{url}` is not a URL, like \"http://127.0.0.1:7000/pause\""))?;
        Ok(Some(url.to_owned()))
    });
    let at = section.read("at", None, |it| {
        word(it, &[("candidate", Side::Candidate), ("active", Side::Active)]).map(Some)
    });
    let path = section.read("path", None, |it| {
        let path = known.check(text(it)?)?;
        let is_path = path.starts_with('/')
            && without_placeholders(path, "1")
                .bytes()
                .all(|it| it.is_ascii_graphic() && it != b'#');
        if is_path {
            Ok(Some(path.to_owned()))
        } else {
            Err("expected a path, like \"/api/pause\"".to_owned())
        }
    });
    let target = match (url, at, path) {
        (Some(url), None, None) => Some(Target::Url(url)),
        (None, Some(at), Some(path)) => Some(Target::Pool { at, path }),
        _ => {
            let has_all = section.has("at") && section.has("path") && !section.has("url");
            let has_url = section.has("url") && !section.has("at") && !section.has("path");
            if !has_all && !has_url {
                section.note("url", "write either `url`, or `at` and `path`:\n`at = \"active\"` is each endpoint of the color that was active at the start");
            }
            None
        }
    };
    let method = section.read("method", "GET".to_owned(), |it| Ok(request_method(it)?.to_owned()));
    let headers = section.string_table("headers", |name, value| {
        let name = request_header(name)?;
        let value = known.check(value)?;
        match value.chars().any(char::is_control) {
            true => Err("a header has no control characters".to_owned()),
            false => Ok((name.as_str().to_owned(), value.to_owned())),
        }
    });
    let body = section.read("body", None, |it| Ok(Some(known.check(text(it)?)?.to_owned())));
    let status = section.list("status", Vec::new(), |it| {
        it.parse::<StatusSet>().map_err(|error| error.to_string())?;
        Ok(it.to_owned())
    });
    let about = ["status", "headers", "body", "values"];
    let condition = section.read("condition", None, |it| expression(it, &about).map(Some));
    let save = section.string_table("save", |name, source| {
        let is_name = name.starts_with(|it: char| it.is_ascii_lowercase())
            && name.bytes().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'_');
        if !is_name || known.values.contains(name) {
            let why = if is_name {
                "is a value already"
            } else {
                "is not a name: write lower-case letters, digits and `_`"
            };
            return Err(format!("`{name}` {why}"));
        }
        checked(source, &about).map(|source| (name.to_owned(), source))
    });
    let timeout = section.read("timeout", Duration::from_secs(10), duration);
    Some(Call { target: target?, method, headers, body, status, condition, save, timeout })
}

fn exec(section: &Section<'_>, known: &Placeholders) -> Option<Exec> {
    let command = section.list("command", Vec::new(), |it| {
        let argument = known.check(it)?;
        match placeholders(argument).find(|it| it.starts_with(SECRET)) {
            Some(secret) => Err(format!(
                "{{{secret}}} would be an argument, which every user of this machine can read\nuse it in `env`"
            )),
            None if argument.contains('\0') => Err("an argument has no byte 0".to_owned()),
            None => Ok(argument.to_owned()),
        }
    });
    match command.first() {
        None if section.is_empty_list("command") || !section.has("command") => {
            section.note("command", "missing\nwrite the program and its arguments, like [\"systemctl\", \"start\", \"app@{candidate}\"]");
        }
        Some(program) if program.is_empty() || placeholders(program).next().is_some() => {
            section.note("command", "the program is no value: write its name or path");
        }
        _ => {}
    }
    let env = section.string_table("env", |name, value| {
        let is_name =
            !name.is_empty() && name.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'_');
        match is_name {
            true => Ok((name.to_owned(), known.check(value)?.to_owned())),
            false => Err(format!("`{name}` is not the name of a variable")),
        }
    });
    let dir = section.read("dir", None, |it| path(it).map(Some));
    (!command.is_empty()).then_some(Exec { command, env, dir })
}

/// A text with this in place of its placeholders.
fn without_placeholders(text: &str, value: &str) -> String {
    let mut replaced = text.to_owned();
    for name in placeholders(text) {
        replaced = replaced.replace(&format!("{{{name}}}"), value);
    }
    replaced
}

fn expression(value: Value<'_>, names: &[&str]) -> Result<String, String> {
    checked(text(value)?, names)
}

/// An expression about these, and about values of one service.
fn checked(source: &str, names: &[&str]) -> Result<String, String> {
    let names: Vec<&str> = names.iter().copied().chain(OF_SERVICE).collect();
    Expression::parse(source, &names).map(|_| source.to_owned()).map_err(|error| error.to_string())
}

// === impl Placeholders ===

impl Placeholders {
    /// The text, if all of its placeholders have a value.
    fn check<'t>(&self, text: &'t str) -> Result<&'t str, String> {
        let is_unknown = |it: &&str| match it.starts_with(SECRET) {
            true => !self.secrets.contains(*it),
            false => !self.values.contains(*it),
        };
        match placeholders(text).find(is_unknown) {
            None => Ok(text),
            Some(unknown) => {
                let all: Vec<&str> =
                    self.values.iter().chain(&self.secrets).map(String::as_str).collect();
                let near = crate::model::nearest(unknown, &all);
                let help = near.map_or_else(
                    || format!("the values here are {}", all.join(", ")),
                    |it| format!("did you mean {{{it}}}?"),
                );
                Err(format!("there is no value {{{unknown}}}\n{help}"))
            }
        }
    }
}
