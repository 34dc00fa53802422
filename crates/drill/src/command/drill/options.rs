//! From the command line to the options of a drill.

use super::{super::CommandError, DrillCommand};
use crate::{
    options::{Control, LoadMode, LoadSpec, Options, TargetOptions},
    program::Program,
    record::Kind,
    steps::{ScriptLine, Step, When},
};

/// The default rate, in requests a second.
const RATE: f64 = 500.0;

impl DrillCommand {
    /// What the options say, if they fit together.
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
            report: _,
            admin,
            json,
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
            return Err(CommandError::usage(
                "a duration and the time between flips are more than nothing",
            ));
        }
        for (at, one) in urls.iter().enumerate() {
            if urls[..at].iter().any(|it| it.name == one.name) {
                return Err(usage(format!(
                    "{} is there twice: name each service, like api=URL",
                    one.name
                )));
            }
        }
        if flip.as_ref().is_some_and(|it| !it.contains("{color}")) {
            return Err(CommandError::usage(
                "--flip: the command needs {color} in it, and {service} if it is of one",
            ));
        }
        let has = |kind| mix.as_ref().is_some_and(|it| it.has(kind));
        if !demo && has(Kind::RefusedPreview) && public_from.is_none() {
            let text = "a wish is one of the public: say by --public-from which address of this machine the proxy takes \
                    for that";
            return Err(CommandError::usage(text));
        }
        if !demo && has(Kind::Preview) && tester_from.is_none() {
            let text = "a preview is a tester's: say by --tester-from which address of this machine the proxy takes for \
                    internal";
            return Err(CommandError::usage(text));
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
            is_quiet: json,
        })
    }
}
