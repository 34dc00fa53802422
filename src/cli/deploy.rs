//! `deploy`: begins a rollout and follows it to its end.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{IsTerminal, Write},
    time::{Duration, Instant},
};

use clap::Args;
use flipgate_api::{
    Call, CallError, Caller, CallerArguments, OutputArguments, escape,
    terminal::{print_error, print_line},
    wire::{
        DeploymentRequest, EndpointRequest, RolloutActionRequest, RolloutRequest, RolloutStatus,
    },
};
use indicatif::ProgressBar;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{
    exit::{self, CommandError},
    output::{ended, print_or_ignore, spinner},
    rollout_text::{conclusion, details, exit_code, headline, stage_line},
};

#[derive(Args, Debug)]
pub(super) struct DeployArguments {
    /// The service, or each service with its version and endpoints
    #[arg(value_name = "SERVICE[=VERSION@ENDPOINT,…]", required_unless_present = "resume")]
    services: Vec<String>,
    /// The version, of one service
    #[arg(long, value_name = "TEXT")]
    version: Option<String>,
    /// An endpoint of the new version, of one service; repeat it for several [default: those that the color has]
    #[arg(long = "endpoint", value_name = "ADDRESS")]
    endpoints: Vec<String>,
    /// The color that becomes active, of one service [default: the one that is not active]
    #[arg(long, value_name = "COLOR", value_parser = ["blue", "green"])]
    color: Option<String>,
    /// The plan, of the configuration [default: default]
    #[arg(long, value_name = "NAME")]
    plan: Option<String>,
    /// Take the promotion back unless `flipgate rollout confirm` comes within this time
    #[arg(long, value_name = "TIME", value_parser = flipgate_drill::parse_time)]
    confirm_within: Option<Duration>,
    /// Return when the rollout has begun
    #[arg(long)]
    detach: bool,
    /// Show the stages, and begin nothing
    #[arg(long, conflicts_with = "detach")]
    dry_run: bool,
    /// Follow a rollout that has begun already
    #[arg(long, value_name = "ID", conflicts_with_all = [
        "services", "version", "endpoints", "color", "plan", "confirm_within", "detach", "dry_run", "reason", "idempotency_key"
    ])]
    resume: Option<String>,
    /// The reason, for the log and the events
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Make it safe to repeat the call: a second call with this key follows the same rollout
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    #[command(flatten)]
    admin: CallerArguments,
    #[command(flatten)]
    output: OutputArguments,
}

/// One wait for news.
const WAIT: Duration = Duration::from_secs(20);

/// How long the admin API may be away, as while Flipgate is started again.
const AWAY_MAX: Duration = Duration::from_secs(120);

/// Between two calls while the admin API is away.
const RETRY: Duration = Duration::from_secs(1);

pub(super) async fn deploy(arguments: DeployArguments) -> Result<u8, CommandError> {
    // First of all: a signal that comes before its handler ends the process without a word about the rollout.
    let mut signals = Signals::register()?;
    let output = arguments.output;
    let caller = arguments.admin.caller()?;
    let (detach, dry_run) = (arguments.detach, arguments.dry_run);
    let first = match &arguments.resume {
        Some(id) => caller.rollout(id, Duration::ZERO, None).await?,
        None => begin(&caller, arguments).await?,
    };
    if dry_run || detach {
        let text = match (output.is_json(), dry_run) {
            (true, _) => serde_json::to_string(&first).expect("texts and numbers only"),
            (false, true) => format!("{}\n{}", headline(&first), dry_report(&first)),
            (false, false) => {
                let id = escape(&first.id);
                format!("{}\nfollow it with: flipgate deploy --resume {id}", headline(&first))
            }
        };
        return ended(print_line(text), 0);
    }
    let mut progress = Progress::new(output, &first)?;
    let last = follow(&caller, first, &mut progress, &mut signals).await?;
    progress.finish(&last)?;
    Ok(exit_code(&last))
}

async fn begin(caller: &Caller, arguments: DeployArguments) -> Result<RolloutStatus, CommandError> {
    let services = services(&arguments)?;
    let DeployArguments { plan, confirm_within, dry_run, reason, idempotency_key, .. } = arguments;
    let confirm_within = confirm_within.map(|it| format!("{} ms", it.as_millis()));
    let request = RolloutRequest { plan, services, reason, confirm_within, dry_run };
    let mut call = Call::begin_rollout(&request);
    if let Some(key) = idempotency_key {
        call = call.idempotency_key(key);
    }
    Ok(caller.call(call).await?)
}

/// What is deployed, by service.
fn services(
    arguments: &DeployArguments,
) -> Result<BTreeMap<String, DeploymentRequest>, CommandError> {
    let DeployArguments { services, version, endpoints, color, .. } = arguments;
    let plain = |it: &String| EndpointRequest::Plain(it.clone());
    let has_options = version.is_some() || !endpoints.is_empty() || color.is_some();
    let mut all = BTreeMap::new();
    for text in services {
        let (name, request) = match text.split_once('=') {
            None => {
                let request = DeploymentRequest {
                    color: color.clone(),
                    version: version.clone(),
                    endpoints: endpoints.iter().map(plain).collect(),
                };
                (text.as_str(), request)
            }
            Some((name, of)) => (name, parse_deployment(text, of)?),
        };
        if all.insert(name.to_owned(), request).is_some() {
            return Err(CommandError::usage(format!("{} is named twice", escape(name))));
        }
    }
    if has_options && (services.len() != 1 || services[0].contains('=')) {
        let text = "--version, --endpoint and --color are for one service; for several write \
                    web=8.0@10.0.0.8:9000 api=8.0@10.0.0.9:9000,10.0.0.10:9000";
        return Err(CommandError::usage(text));
    }
    Ok(all)
}

/// `8.0@10.0.0.8:9000,10.0.0.9:9000`, or `8.0`.
fn parse_deployment(text: &str, of: &str) -> Result<DeploymentRequest, CommandError> {
    let (version, endpoints) = of.split_once('@').unwrap_or((of, ""));
    let endpoints: Vec<&str> = endpoints.split(',').filter(|it| !it.is_empty()).collect();
    if version.is_empty() || (of.contains('@') && endpoints.is_empty()) {
        return Err(CommandError::usage(format!(
            "`{}`: write SERVICE=VERSION@ENDPOINT,ENDPOINT, like web=8.0@10.0.0.8:9000",
            escape(text)
        )));
    }
    let endpoints = endpoints.into_iter().map(|it| EndpointRequest::Plain(it.to_owned()));
    Ok(DeploymentRequest {
        color: None,
        version: Some(version.to_owned()),
        endpoints: endpoints.collect(),
    })
}

/// The stages that a rollout would have.
fn dry_report(status: &RolloutStatus) -> String {
    let lines = status.stages.iter().enumerate().map(|(place, stage)| {
        format!("  {:>2}. {} ({})", place + 1, escape(&stage.name), escape(&stage.kind))
    });
    format!("{}\nnothing was begun", lines.collect::<Vec<_>>().join("\n"))
}

/// Follows a rollout until it is over or stuck. A lost connection is opened again.
async fn follow(
    caller: &Caller,
    first: RolloutStatus,
    progress: &mut Progress,
    signals: &mut Signals,
) -> Result<RolloutStatus, CommandError> {
    let mut last = first;
    let mut away_since: Option<Instant> = None;
    loop {
        progress.show(&last)?;
        if last.over || last.state == "stuck" {
            return Ok(last);
        }
        let next = tokio::select! {
            next = caller.rollout(&last.id, WAIT, Some(last.version)) => next,
            () = signals.received() => {
                progress.interrupt(caller, &last, signals).await?;
                continue;
            }
            () = progress.tick() => {
                continue;
            }
        };
        match next {
            Ok(status) => {
                away_since = None;
                last = status;
            }
            Err(error @ CallError::Refused { .. }) => return Err(error.into()),
            Err(error) => {
                let since = *away_since.get_or_insert_with(Instant::now);
                if since.elapsed() > AWAY_MAX {
                    let id = escape(&last.id);
                    let text = format!(
                        "{error}\n  The rollout goes on without this command. Look on with: flipgate deploy --resume {id}"
                    );
                    return Err(CommandError::new(text));
                }
                progress.away(&error.to_string());
                tokio::select! {
                    () = tokio::time::sleep(RETRY) => {}
                    () = signals.received() => progress.interrupt(caller, &last, signals).await?,
                }
            }
        }
    }
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn register() -> Result<Self, CommandError> {
        let register = |kind| signal(kind).map_err(|error| CommandError::new(error.to_string()));
        Ok(Self {
            interrupt: register(SignalKind::interrupt())?,
            terminate: register(SignalKind::terminate())?,
        })
    }

    /// Waits for a signal. Cancel-safe.
    async fn received(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// What a rollout does, line by line.
struct Progress {
    output: OutputArguments,
    spinner: Option<ProgressBar>,
    /// The stages and their undos that were printed, with their states.
    printed: BTreeSet<(usize, String)>,
    version: Option<u64>,
}

impl Progress {
    fn new(output: OutputArguments, first: &RolloutStatus) -> Result<Self, CommandError> {
        if !output.is_json() {
            print_or_ignore(&headline(first))?;
        }
        let spinner = (!output.is_json()).then(spinner);
        Ok(Self { output, spinner, printed: BTreeSet::new(), version: None })
    }

    /// Prints what is new.
    fn show(&mut self, status: &RolloutStatus) -> Result<(), CommandError> {
        if self.output.is_json() {
            if self.version != Some(status.version) {
                self.version = Some(status.version);
                let line = serde_json::to_string(status).expect("texts and numbers only");
                print_or_ignore(&line)?;
            }
            return Ok(());
        }
        // Forward stages in order; undos in the reverse one.
        let is_undoing = status.cause.is_some();
        let places: Vec<usize> = match is_undoing {
            true => (0..status.stages.len()).rev().collect(),
            false => (0..status.stages.len()).collect(),
        };
        for place in places {
            let stage = &status.stages[place];
            let is_settled =
                !matches!(&*stage.state, "pending" | "running" | "waiting" | "undoing");
            if !is_settled || !self.printed.insert((place, stage.state.clone())) {
                continue;
            }
            self.print(&stage_line(stage, status))?;
            // It may be undone already when it is seen for the first time after its failure.
            let is_news =
                stage.error.is_some() && !self.printed.contains(&(place, "failed".to_owned()));
            if is_news || matches!(&*stage.state, "failed" | "undo_failed") {
                for line in details(stage) {
                    self.print(&line)?;
                }
            }
        }
        let running =
            status.stages.iter().find(|it| matches!(&*it.state, "running" | "waiting" | "undoing"));
        if let (Some(spinner), Some(stage)) = (&self.spinner, running) {
            let waits = status.waiting_for.as_ref();
            let waits = waits.map(|it| format!("  {}", escape(it))).unwrap_or_default();
            spinner.set_message(format!("{}{waits}", stage_line(stage, status).trim_start()));
        }
        Ok(())
    }

    fn print(&self, line: &str) -> Result<(), CommandError> {
        match &self.spinner {
            Some(spinner) => spinner.suspend(|| print_or_ignore(line)),
            None => print_or_ignore(line),
        }
    }

    /// Waits until the elapsed time is worth showing again. For ever without a terminal.
    async fn tick(&self) {
        match &self.spinner {
            Some(spinner) if !spinner.is_hidden() => {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            _ => std::future::pending().await,
        }
    }

    fn away(&self, error: &str) {
        if let Some(spinner) = &self.spinner {
            spinner.set_message(format!(
                "the admin API is away, the rollout goes on: {}",
                escape(error)
            ));
        }
    }

    /// Asks a person what Ctrl-C means. In a pipe it means to detach.
    async fn interrupt(
        &self,
        caller: &Caller,
        status: &RolloutStatus,
        signals: &mut Signals,
    ) -> Result<(), CommandError> {
        let id = escape(&status.id).into_owned();
        let detached = || CommandError {
            code: exit::INTERRUPTED,
            text: format!(
                "detached; rollout {id} goes on. Look on with: flipgate deploy --resume {id}"
            ),
        };
        if self.output.is_json() || !std::io::stdin().is_terminal() {
            return Err(detached());
        }
        if let Some(spinner) = &self.spinner {
            spinner.disable_steady_tick();
        }
        let mut error = std::io::stderr();
        let question = "\ncancel the rollout and undo everything (c), detach and leave it running (d), or go on (Enter)? ";
        let _ = error.write_all(question.as_bytes());
        let _ = error.flush();
        // On a thread of its own, which ends with the process: a read from a terminal cannot be given up.
        let (send, receive) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            let read = std::io::stdin().read_line(&mut line);
            // The command may have ended.
            let _ = send.send(read.map_or_else(|_| String::new(), |_| line));
        });
        let answer = tokio::select! {
            answer = receive => answer.unwrap_or_default(),
            // A second Ctrl-C is an answer.
            () = signals.received() => return Err(detached()),
        };
        if let Some(spinner) = &self.spinner {
            spinner.enable_steady_tick(Duration::from_millis(120));
        }
        match answer.chars().next() {
            Some('c' | 'C') => {
                let request =
                    RolloutActionRequest { reason: Some("Ctrl-C".to_owned()), stage: None };
                if let Err(error) = caller.change_rollout(&status.id, "cancel", &request).await {
                    print_error(format_args!("not cancelled: {error}"));
                }
                Ok(())
            }
            Some('d' | 'D') | None => Err(detached()),
            Some(_) => Ok(()),
        }
    }

    fn finish(&mut self, last: &RolloutStatus) -> Result<(), CommandError> {
        self.show(last)?;
        if let Some(spinner) = self.spinner.take() {
            spinner.finish_and_clear();
        }
        match self.output.is_json() {
            true => Ok(()),
            false => print_or_ignore(&conclusion(last)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::rollout_text::report;

    fn arguments(words: &[&str]) -> DeployArguments {
        #[derive(Debug, clap::Parser)]
        struct Line {
            #[command(flatten)]
            arguments: DeployArguments,
        }
        let words = std::iter::once("deploy").chain(words.iter().copied());
        <Line as clap::Parser>::try_parse_from(words).expect("valid").arguments
    }

    #[test]
    fn one_service_has_options_and_several_have_it_in_their_words() {
        let one = services(&arguments(&[
            "web",
            "--version",
            "8.0",
            "--endpoint",
            "a:1",
            "--endpoint",
            "b:2",
        ]));
        let one = one.map_err(|it| it.text).expect("valid");
        assert_eq!(one["web"].version.as_deref(), Some("8.0"));
        assert_eq!(one["web"].endpoints.len(), 2);
        let several = services(&arguments(&["web=8.0@a:1,b:2", "api=9.1", "jobs"]));
        let several = several.map_err(|it| it.text).expect("valid");
        assert_eq!((several["web"].endpoints.len(), several["api"].endpoints.len()), (2, 0));
        assert_eq!(several["api"].version.as_deref(), Some("9.1"));
        assert_eq!(several["jobs"].version, None);
        for wrong in [
            &["web=@a:1"][..],
            &["web=8.0@"],
            &["web="],
            &["web", "web"],
            &["web", "api", "--version", "8.0"],
            &["web=8.0", "--endpoint", "a:1"],
        ] {
            assert!(services(&arguments(wrong)).is_err(), "{wrong:?}");
        }
        assert!(report(&status("done")).contains("done"));
    }

    fn status(state: &str) -> RolloutStatus {
        let json = serde_json::json!({
            "id": "x", "state": state, "over": true, "version": 3, "plan": "default", "owner": "local",
            "started": "2026-11-29T08:00:00Z", "services": {}, "stages": [],
        });
        serde_json::from_value(json).expect("a rollout")
    }

    #[test]
    fn exit_codes_say_whether_everything_is_as_it_was() {
        let code = |state: &str, cause: Option<&str>, left: &[&str]| {
            exit_code(&RolloutStatus {
                cause: cause.map(str::to_owned),
                left_to_do: left.iter().map(ToString::to_string).collect(),
                ..status(state)
            })
        };
        assert_eq!(code("done", None, &[]), 0);
        assert_eq!(code("undone", Some("gate"), &[]), 3);
        assert_eq!(code("undone", Some("failure"), &[]), 6);
        assert_eq!(code("undone", Some("taken_back"), &[]), 6);
        assert_eq!(code("cancelled", Some("cancelled"), &[]), 6);
        assert_eq!(code("cancelled", Some("failure"), &["x"]), 7);
        assert_eq!(code("stuck", Some("gate"), &["x"]), 7);
    }
}
