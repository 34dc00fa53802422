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
    load::{Load, REMEMBERED_MAX, capacity},
    options::{Control, LoadMode, LoadSpec, Options},
    prepare::{active, check_command, check_steps, order, set_up},
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
    let mut stage = Processes::new(options.sample.clone())?;
    let progress = Progress::new(options.is_quiet);
    let preparing = async {
        let subject = Rc::new(set_up(options, &mut stage).await?);
        let control = match &subject.demo {
            Some(demo) => {
                Control::Admin(Caller { target: Target::Unix(demo.socket.clone()), token: None })
            }
            None => options.control.clone(),
        };
        check_steps(options, &control, &subject, &stage)?;
        stage.start_proxy()?;
        let stage = tokio::sync::Mutex::new(stage);
        let seen = subject.serves(&stage).await?;
        let active = match &control {
            Control::Admin(caller) => active(caller, &subject).await?,
            Control::Command(_) | Control::Nobody => seen,
        };
        check_command(&control, &subject, &active)?;
        let mut stage = stage.into_inner();
        let order = order(options, &subject);
        let pace = match options.pace {
            LoadSpec::LoadMode(pace) => pace,
            LoadSpec::Share(share) => {
                progress.say("measuring what can be done at most");
                LoadMode::Rate(capacity(&order, || subject.entrances()).await? * share)
            }
        };
        if let Some(ended) = stage.proxy_ended() {
            return Err(DrillError::Process(ended));
        }
        Ok((stage, subject, control, active, order, pace))
    };
    let prepared = tokio::select! {
        prepared = preparing => prepared?,
        () = stop.cancelled() => return Err(DrillError::Stopped),
    };
    let (stage, subject, control, active, order, pace) = prepared;
    let times = Times::of(options);
    let live = Arc::new(LiveCounters::default());
    let span = (times.from, times.until);
    let load = Load::start(&order, pace, span, || subject.entrances(), &live)?;
    let (halt, done) = (CancellationToken::new(), CancellationToken::new());
    let (subject_of, stream_time) = (Rc::clone(&subject), options.stream_time);
    let conductor =
        ScenarioRunner::new(control, subject_of, stream_time, stage, active.clone(), halt.clone());
    let main = async {
        let watching = async {
            watch(&load, &live, &conductor, &progress, times, stop).await;
            halt.cancel();
        };
        tokio::join!(conductor.conduct(&options.steps, times), watching);
        conductor.hear_the_last().await;
        done.cancel();
    };
    tokio::join!(main, conductor.listen(&done), conductor.look(&done), conductor.tick(&done));
    let mut requests = load.finish()?;
    let (arrived, unnumbered) = match conductor.end().await? {
        Some(ArrivedRequests { numbers, unnumbered }) => (Some(numbers), unnumbered),
        None => (None, Vec::new()),
    };
    let instances = conductor.instances().await;
    for request in &mut requests {
        // Somebody else's application may be on another machine, with a clock of its own.
        if !instances.contains_key(&request.instance) {
            request.met = 0;
            if request.kind != Kind::Ws {
                request.alive = 0;
            }
        }
    }
    let tells = conductor.tells_of_drains();
    let ScenarioLog { flips, drained, hearing, kills, inside, mut troubles } =
        conductor.notes.take();
    if requests.len() as u64 >= REMEMBERED_MAX {
        let text =
            format!("the load ended early: {REMEMBERED_MAX} requests are all that is remembered");
        troubles.push(Failure { from: times.until, until: times.until, text });
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
        services: subject.names().to_vec(),
        initial: active,
        began: times.counts_from,
        ended: times.until.min(requests.iter().map(|it| it.due).max().unwrap_or(times.until)),
        requests,
        flips,
        drained: tells.then_some(drained),
        hearing,
        kills,
        inside,
        instances,
        arrived,
        unnumbered,
        // The configuration of a demo has health checks that only open a connection.
        is_alone: subject.demo.is_some(),
        troubles,
    };
    progress.clear();
    Ok(Report::of(history, order, pace))
}

/// Shows what is going on until the load is over.
async fn watch(
    load: &Load,
    live: &LiveCounters,
    conductor: &ScenarioRunner,
    progress: &Progress,
    times: Times,
    stop: &CancellationToken,
) {
    while !load.is_over() {
        tokio::time::sleep(Duration::from_millis(100)).await;
        if stop.is_cancelled() {
            load.stop();
        }
        conductor.attend().await;
        progress.show(live, conductor.flips(), times.from, times.until);
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
