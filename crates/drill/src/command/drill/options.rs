//! From the command line to the options of a drill.

use super::{super::CommandError, DrillCommand};
use crate::{
    options::{Control, LoadMode, LoadSpec, Mix, Options, TargetOptions},
    program::Program,
    record::Kind,
    steps::{ScriptLine, Step, When},
};

/// The default rate, in requests per second.
const RATE: f64 = 500.0;

/// The command line of this process, for a shell. A token is left out.
fn command_line() -> String {
    let arguments: Vec<String> =
        std::env::args_os().map(|it| it.to_string_lossy().into_owned()).collect();
    quoted(&arguments)
}

fn quoted(arguments: &[String]) -> String {
    let mut words = Vec::new();
    let mut is_token = false;
    for (index, argument) in arguments.iter().enumerate() {
        let is_plain = |it: char| it.is_ascii_alphanumeric() || "-_=.,:/@%+[]".contains(it);
        let word = match argument {
            _ if std::mem::take(&mut is_token) => "…".to_owned(),
            it if it.starts_with("--token=") => "--token=…".to_owned(),
            it if index == 0 => it.rsplit('/').next().unwrap_or_default().to_owned(),
            it if !it.is_empty() && it.chars().all(is_plain) => it.clone(),
            it => format!("'{}'", it.replace('\'', r"'\''")),
        };
        is_token = argument == "--token";
        words.push(word);
    }
    words.join(" ")
}

impl DrillCommand {
    /// The options of the drill, if they are consistent.
    pub(super) fn options(
        self,
        sample: Program,
        flipgate: impl FnOnce() -> Result<Program, CommandError>,
    ) -> Result<Options, CommandError> {
        let Self {
            demo,
            services,
            endpoints,
            urls,
            connect_to,
            upstream,
            proxy,
            flip,
            flip_every,
            step,
            script,
            rate,
            clients,
            mix,
            pin_max_age,
            reconnect,
            protocol,
            fresh,
            ca,
            public_from,
            tester_from,
            duration,
            warm_up,
            steady,
            count,
            stream_time,
            download_bytes,
            upload_bytes,
            threads,
            seed,
            no_flips,
            report: _,
            output,
            admin,
        } = self;
        let usage = |text: String| CommandError::usage(text);
        let mut steps = step;
        if let Some(path) = script {
            let text = std::fs::read_to_string(&path)
                .map_err(|error| usage(format!("cannot read {}: {error}", path.display())))?;
            let lines = ScriptLine::parse_all(&text);
            steps.extend(lines.map_err(|error| usage(format!("{}: {error}", path.display())))?);
        }
        steps.extend(
            flip_every
                .map(|every| ScriptLine { when: When::Every(every), step: Step::Flip(Vec::new()) }),
        );
        if duration.is_zero() || flip_every.is_some_and(|it| it.is_zero()) {
            return Err(CommandError::usage("write more than 0s for --duration and --flip-every"));
        }
        for (at, one) in urls.iter().enumerate() {
            if urls[..at].iter().any(|it| it.name == one.name) {
                return Err(usage(format!(
                    "--url: the service {} is there twice; give each its name, like api=URL",
                    one.name
                )));
            }
        }
        if flip.as_ref().is_some_and(|it| !it.contains("{color}")) {
            return Err(CommandError::usage(
                "--flip: the command needs {color}, and {service} if one call flips one service",
            ));
        }
        let has = |kind| mix.as_ref().is_some_and(|it| it.has(kind));
        if !demo && has(Kind::RefusedPreview) && public_from.is_none() {
            let text = "--mix: refused-preview needs --public-from, an address of this machine that the proxy regards as \
                        public";
            return Err(CommandError::usage(text));
        }
        if !demo && has(Kind::Preview) && tester_from.is_none() {
            let text = "--mix: preview needs --tester-from, an address of this machine that the proxy regards as internal";
            return Err(CommandError::usage(text));
        }
        if !demo && mix.as_ref().is_some_and(Mix::has_transactions) && pin_max_age.is_none() {
            let text = "--mix: scan and page need --pin-max-age, the time for which the proxy keeps transactions on the \
                        color before the flip";
            return Err(CommandError::usage(text));
        }
        if let Some(line) = steps.iter().find(|it| no_flips && it.step.is_flip()) {
            return Err(usage(format!("--no-flips, but a step is `{} {}`", line.when, line.step)));
        }
        let is_flipped = steps.iter().any(|it| !matches!(it.step, Step::Process(..)));
        let control = match flip {
            Some(command) => Control::Command(command),
            None if demo || !is_flipped => Control::None,
            None => {
                let caller =
                    admin.caller().map_err(|error| CommandError::new(error.to_string()))?;
                Control::Admin(caller)
            }
        };
        Ok(Options {
            target: match demo {
                true => TargetOptions::Demo { services, endpoints, flipgate: flipgate()? },
                false => TargetOptions::Urls(urls),
            },
            control,
            sample,
            upstreams: upstream,
            proxy,
            load: match (rate, clients) {
                (Some(rate), _) => rate,
                (None, Some(clients)) => LoadSpec::Fixed(LoadMode::Clients(clients)),
                (None, None) => LoadSpec::Fixed(LoadMode::Rate(RATE)),
            },
            mix,
            pin_max_age,
            has_reconnects: reconnect,
            protocol,
            is_fresh: fresh,
            threads,
            authorities: ca,
            connect_to,
            public_from,
            tester_from,
            warm_up,
            duration,
            steady,
            count,
            stream_time,
            download_bytes,
            upload_bytes,
            steps,
            // As many bits as a number in JSON keeps.
            seed: seed.unwrap_or_else(|| fastrand::u64(..1 << 53)),
            is_without_flips: no_flips,
            command: command_line(),
            is_quiet: output.is_json_asked(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_can_be_pasted_and_has_no_token() {
        let line = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(ToString::to_string).collect();
            quoted(&words)
        };
        let program = "/usr/bin/flipgate";
        assert_eq!(line(&[program, "drill", "--rate=50%"]), "flipgate drill --rate=50%");
        assert_eq!(
            line(&[program, "--step", "at 1s flip", "it's"]),
            r"flipgate --step 'at 1s flip' 'it'\''s'"
        );
        for secret in [&["--token", "secret"][..], &["--token=secret"]] {
            let words: Vec<&str> = [program].iter().chain(secret).copied().collect();
            assert!(!line(&words).contains("secret"), "{}", line(&words));
        }
    }
}
