//! A drill from its options to its report: sets up, starts the load, conducts the steps, collects.

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
    options::{Control, LoadMode, LoadSpec, Options},
    prepare::{active_colors, check_flip_command, check_steps, load_plan, set_up},
    processes::{ArrivedRequests, Processes},
    progress::Progress,
    record::{Failure, History, Kind},
    report::Report,
    scenario::{ScenarioLog, ScenarioRunner},
    steps::Step,
    times::Times,
};

/// Ctrl-C and SIGTERM, from when they are first waited for.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

/// Does what `options` say, and reports. Ctrl-C and SIGTERM end it early, with a report of what was seen until
/// then. Blocks the thread, and starts others.
///
/// # Errors
///
/// [`DrillError`] if there was nothing to report. All processes that were started have ended.
pub fn run(options: &Options) -> Result<Report, DrillError> {
    let files = getrlimit(Resource::Nofile);
    // Each client needs a file. Whoever may not have more has what there is.
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
                    // Whoever asks twice does not wait for what is under way.
                    true => return Err(DrillError::Stopped),
                },
            }
        }
    })
}

/// Cancelled by `stop`, it reports what was seen until then. Dropped, it ends what it has started.
async fn drill(options: &Options, stop: &CancellationToken) -> Result<Report, DrillError> {
    let mut processes = Processes::new(options.sample.clone())?;
    let progress = Progress::new(options.is_quiet);
    let preparing = async {
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
                progress.say("measuring what can be done at most");
                LoadMode::Rate(measure_capacity(&plan, || target.addresses()).await? * share)
            }
        };
        if let Some(ended) = processes.take_proxy_exit() {
            return Err(DrillError::Process(ended));
        }
        Ok((processes, target, control, active, plan, mode))
    };
    let prepared = tokio::select! {
        prepared = preparing => prepared?,
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
        // Somebody else's application may be on another machine, with a clock of its own.
        if !instances.contains_key(&request.instance) {
            request.received = 0;
            if request.kind != Kind::Ws {
                request.active_at = 0;
            }
        }
    }
    let tells = runner.reports_drains();
    let ScenarioLog { flips, drained, event_gaps, kills, in_flight, mut failures } =
        runner.log.take();
    if requests.len() as u64 >= REQUESTS_MAX {
        let text =
            format!("the load ended early: {REQUESTS_MAX} requests are all that is remembered");
        failures.push(Failure { from: times.until, until: times.until, text });
    }
    let is_to_flip =
        options.steps.iter().any(|it| matches!(it.step, Step::Flip(_) | Step::Promote(_)));
    let cut_short = if stop.is_cancelled() {
        Some("it was told to stop before its time".to_owned())
    } else if flips.is_empty() && is_to_flip {
        Some("no flip was made, though there were to be some".to_owned())
    } else {
        None
    };
    let history = History {
        cut_short,
        services: target.names().to_vec(),
        initial: active,
        began: times.measured_from,
        ended: times.until.min(requests.iter().map(|it| it.due).max().unwrap_or(times.until)),
        requests,
        flips,
        drained: tells.then_some(drained),
        event_gaps,
        kills,
        in_flight,
        instances,
        arrived,
        unnumbered,
        // The configuration of a demo has health checks that only open a connection.
        is_exclusive: target.demo.is_some(),
        failures,
    };
    progress.clear();
    Ok(Report::new(history, plan, mode))
}

/// Shows what is going on until the load is over.
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

    /// The next of either. A dropped future loses none.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
