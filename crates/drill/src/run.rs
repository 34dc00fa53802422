//! A drill from its options to its report: preparation, load, steps, checks.

use std::{io, rc::Rc, sync::Arc, time::Duration};

use flipgate_api::{Caller, Target};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    runtime::{Builder, LocalOptions},
    signal::unix::{Signal, SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

use super::{
    error::DrillError,
    live::LiveCounters,
    load::{Load, REQUESTS_MAX, measure_capacity},
    options::{Control, LoadMode, LoadSpec, Options, TargetOptions},
    prepare::{active_colors, check_flip_command, check_steps, load_plan, set_up},
    processes::{ArrivedRequests, Processes},
    progress::Progress,
    record::{Failure, History, Kind},
    report::{Report, RunInfo},
    scenario::{ScenarioLog, ScenarioRunner},
    times::Times,
};

/// Handlers of SIGINT and SIGTERM.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

/// Runs a drill. SIGINT and SIGTERM end it early, with a report of the time until then. Blocks the thread, and starts
/// others.
///
/// # Errors
///
/// [`DrillError`] if there is nothing to report. All processes of the drill have ended then.
pub fn run(options: &Options) -> Result<Report, DrillError> {
    let files = getrlimit(Resource::Nofile);
    // Each connection needs a file. If the limit cannot be raised, the drill reports requests that it cannot send.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files });
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(async {
        let stop = CancellationToken::new();
        let mut signals = Signals::new()?;
        let mut drill = std::pin::pin!(drill(options, &stop));
        loop {
            tokio::select! {
                report = &mut drill => return report,
                () = signals.next() => match stop.is_cancelled() {
                    false => stop.cancel(),
                    // A second signal does not wait for the requests in flight.
                    true => return Err(DrillError::Stopped),
                },
            }
        }
    })
}

/// If `stop` is cancelled, the report covers the time until then. If dropped, all processes end.
async fn drill(options: &Options, stop: &CancellationToken) -> Result<Report, DrillError> {
    let about = RunInfo {
        started: jiff::Timestamp::now(),
        command: options.command.clone(),
        version: version(options).await,
    };
    let mut processes = Processes::new(options.sample.clone())?;
    let progress = Progress::new(options.is_quiet);
    let preparation = async {
        let target = Rc::new(set_up(options, &mut processes).await?);
        let control = match &target.demo {
            Some(demo) => {
                Control::Admin(Caller { target: Target::Unix(demo.socket.clone()), token: None })
            }
            None => options.control.clone(),
        };
        check_steps(options, &control, &target, &processes)?;
        processes.start_proxy()?;
        let processes = tokio::sync::Mutex::new(processes);
        let seen = target.wait_until_serving(&processes).await?;
        let active = match &control {
            Control::Admin(caller) => active_colors(caller, &target).await?,
            Control::Command(_) | Control::None => seen,
        };
        check_flip_command(&control, &target, &active)?;
        let mut processes = processes.into_inner();
        let plan = load_plan(options, &target);
        let mode = match options.load {
            LoadSpec::Fixed(mode) => mode,
            LoadSpec::Share(share) => {
                progress.set_message("measuring the highest possible rate");
                LoadMode::Rate(measure_capacity(&plan, || target.addresses()).await? * share)
            }
        };
        if let Some(ended) = processes.take_proxy_exit() {
            return Err(DrillError::Process(ended));
        }
        Ok((processes, target, control, active, plan, mode))
    };
    let prepared = tokio::select! {
        prepared = preparation => prepared?,
        () = stop.cancelled() => return Err(DrillError::Stopped),
    };
    let (processes, target, control, active, plan, mode) = prepared;
    let times = Times::of(options);
    let live = Arc::new(LiveCounters::default());
    let span = (times.load_from, times.until);
    let load = Load::start(&plan, mode, span, || target.addresses(), &live)?;
    let (halt, done) = (CancellationToken::new(), CancellationToken::new());
    let (shared_target, stream_time) = (Rc::clone(&target), options.stream_time);
    let runner = ScenarioRunner::new(
        control,
        shared_target,
        stream_time,
        processes,
        active.clone(),
        halt.clone(),
    );
    let main = async {
        let watching = async {
            watch(&load, &live, &runner, &progress, times, stop).await;
            halt.cancel();
        };
        tokio::join!(runner.run(&options.steps, times), watching);
        runner.wait_for_last_drains().await;
        done.cancel();
    };
    tokio::join!(
        main,
        runner.follow_events(&done),
        runner.sample_in_flight(&done),
        runner.measure_delays(&done)
    );
    let mut requests = load.finish()?;
    let (arrived, unnumbered) = match runner.end().await? {
        Some(ArrivedRequests { numbers, unnumbered }) => (Some(numbers), unnumbered),
        None => (None, Vec::new()),
    };
    let instances = runner.instances().await;
    for request in &mut requests {
        // An application that the drill did not start may be on another machine, which has another clock.
        if !instances.contains_key(&request.instance) {
            request.received = 0;
            if request.kind != Kind::Ws {
                request.active_at = 0;
            }
        }
    }
    let reports_drains = runner.reports_drains();
    let ScenarioLog {
        flips,
        drained,
        event_gaps,
        kills,
        trials,
        gradual,
        in_flight,
        steps,
        mut failures,
    } = runner.log.take();
    if requests.len() as u64 >= REQUESTS_MAX {
        let text = format!(
            "the load ended early, after {REQUESTS_MAX} requests, which are all that the drill can record"
        );
        failures.push(Failure { from: times.until, until: times.until, text });
    }
    let has_flips = options.steps.iter().any(|it| it.step.is_flip());
    let incomplete = match has_flips {
        _ if stop.is_cancelled() => Some("it was stopped before its end"),
        true if flips.is_empty() => Some("it made no flip, although its steps have flips"),
        false if !options.is_without_flips => Some(
            "it made no flip, so it did not check any; use --flip-every, or --no-flips if that is what you want",
        ),
        _ => None,
    };
    let history = History {
        incomplete: incomplete.map(str::to_owned),
        steps,
        services: target.names().to_vec(),
        initial: active,
        began: times.measured_from,
        ended: times.until.min(requests.iter().map(|it| it.due).max().unwrap_or(times.until)),
        requests,
        flips,
        drained: reports_drains.then_some(drained),
        event_gaps,
        kills,
        trials,
        gradual,
        pin_age: target.pin_age(),
        forgetful: target.forgetful(),
        in_flight,
        instances,
        arrived,
        unnumbered,
        // Health checks of a demo open connections and send no requests. Gates do.
        is_exclusive: target.demo.as_ref().is_some_and(|it| !it.has_gates),
        failures,
    };
    progress.clear();
    Ok(Report::new(history, plan, mode, about))
}

/// The name and the version of the tested Flipgate, or of the drill if it tests something else.
async fn version(options: &Options) -> String {
    let tested = match &options.target {
        TargetOptions::Demo { flipgate, .. } => flipgate.version().await,
        TargetOptions::Urls(_) => None,
    };
    tested.unwrap_or_else(|| concat!("flipgate-drill ", env!("CARGO_PKG_VERSION")).to_owned())
}

/// Shows the progress until the load has ended.
async fn watch(
    load: &Load,
    live: &LiveCounters,
    runner: &ScenarioRunner,
    progress: &Progress,
    times: Times,
    stop: &CancellationToken,
) {
    while !load.is_over() {
        tokio::time::sleep(Duration::from_millis(100)).await;
        if stop.is_cancelled() {
            load.stop();
        }
        runner.check_proxy_exit().await;
        progress.show(live, runner.flip_count(), times.load_from, times.until);
    }
}

// === impl Signals ===

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for a signal. Cancel safe.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
