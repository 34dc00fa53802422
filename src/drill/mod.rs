//! A load harness that checks what a proxy promises: requests of many kinds, flips while they are under
//! way, and a judge who has seen both.
//!
//! It is a client, of Flipgate as of any other proxy: it knows the colors and the wire types of the admin
//! API, and nothing of what is behind them. What it cannot see it does not judge, and says so.
//!
//! ```text
//! options ─▶ stage     starts sample applications and the proxy, kills and restarts them
//!            subject   where the services are
//!            prepare   sets these up, and finds what does not fit together
//!            load      threads of clients that keep to a rate (door: connections; traffic: kinds)
//!            conduct   flips, changes and kills (steps), and what the proxy tells of drains
//!            record    everything with its times
//!            check     which promises held: pure
//!            report    terminal, JSON, page
//! ```

mod check;
mod conduct;
mod door;
mod load;
mod measure;
mod options;
mod prepare;
mod progress;
mod record;
mod report;
mod stage;
mod steps;
mod subject;
mod traffic;

use std::{io, rc::Rc, sync::Arc, time::Duration};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    runtime::{Builder, LocalOptions},
    signal::unix::{Signal, SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

pub use self::{
    check::{Finding, Promise, Verdict, Violation},
    options::{Control, Mix, Options, Pace, Service, Speed, Subject as SubjectOptions, Upstream},
    record::{Kind, Outcome},
    report::Report,
    steps::{Line, Step, When, parse_time},
};
pub(crate) use self::{
    check::{Read, Write, conflicts},
    progress::spinner,
};
use self::{
    conduct::{Conductor, Notes},
    load::{Live, Load, REMEMBERED_MAX, capacity},
    prepare::{active, check_command, check_steps, order, set_up},
    progress::Progress,
    record::{History, Trouble},
    stage::Stage,
};
use crate::sample::now_ns;
use flipgate_api::{CallError, Caller, Target};

/// Why there was no drill.
#[derive(Debug, thiserror::Error)]
pub enum DrillError {
    /// Sockets, threads, files.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What is to be tried does not fit together.
    #[error("{0}")]
    Usage(String),
    /// A process does not start.
    #[error("{0}")]
    Process(String),
    /// What is put to the test does not answer.
    #[error("{0}")]
    Subject(String),
    /// The admin API says no, or nothing.
    #[error(transparent)]
    Admin(#[from] CallError),
    /// The admin API says something that it should not.
    #[error("{0}")]
    Call(String),
    /// It was told to stop before there was anything to report, or twice.
    #[error("stopped")]
    Stopped,
    /// A body that cannot be written.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

/// Ctrl-C and SIGTERM, from when they are first waited for.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

/// When what happens, in [`now_ns`].
#[derive(Clone, Copy, Debug)]
struct Times {
    /// The load begins.
    from: u64,
    /// It counts.
    counts_from: u64,
    /// What is done again and again is done from here
    flips_from: u64,
    /// to here.
    flips_until: u64,
    /// The load ends.
    until: u64,
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
    let mut stage = Stage::new()?;
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
            Speed::Pace(pace) => pace,
            Speed::Share(share) => {
                progress.say("measuring what can be done at most");
                Pace::Rate(capacity(&order, || subject.entrances()).await? * share)
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
    let live = Arc::new(Live::default());
    let span = (times.from, times.until);
    let load = Load::start(&order, pace, span, || subject.entrances(), &live)?;
    let (halt, done) = (CancellationToken::new(), CancellationToken::new());
    let conductor =
        Conductor::new(control, Rc::clone(&subject), stage, active.clone(), halt.clone());
    let main = async {
        let watching = async {
            watch(&load, &live, &conductor, &progress, times, stop).await;
            halt.cancel();
        };
        tokio::join!(conductor.conduct(&options.steps, times), watching);
        conductor.hear_the_last().await;
        done.cancel();
    };
    tokio::join!(main, conductor.listen(&done), conductor.look(&done));
    let mut requests = load.finish()?;
    let arrived = conductor.end().await?;
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
    let Notes { flips, drained, kills, inside, mut troubles } = conductor.notes.take();
    if requests.len() as u64 >= REMEMBERED_MAX {
        let text =
            format!("the load ended early: {REMEMBERED_MAX} requests are all that is remembered");
        troubles.push(Trouble { from: times.until, until: times.until, text });
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
        kills,
        inside,
        instances,
        arrived,
        troubles,
    };
    progress.clear();
    Ok(Report::of(history, order, pace))
}

/// Shows what is going on until the load is over.
async fn watch(
    load: &Load,
    live: &Live,
    conductor: &Conductor,
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

// === impl Times ===

impl Times {
    fn of(options: &Options) -> Self {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX / 4);
        let duration = nanos(options.duration);
        let steady = options.steady.map_or(duration / 5, nanos).min(duration);
        let from = now_ns() + nanos(Duration::from_millis(50));
        let counts_from = from + nanos(options.warm_up);
        let until = counts_from.saturating_add(duration);
        let (flips_from, flips_until) = (counts_from + steady / 2, until - steady / 2);
        Self { from, counts_from, flips_from, flips_until, until }
    }

    /// Whether something is due at all.
    fn are_for(self, when: When) -> bool {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        match when {
            When::At(time) => self.counts_from.saturating_add(nanos(time)) < self.until,
            When::Every(time) => self.flips_from.saturating_add(nanos(time)) < self.flips_until,
        }
    }
}
