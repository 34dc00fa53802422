//! A load harness that checks what a proxy promises: requests of many kinds, flips while they are under
//! way, and a judge who has seen both.
//!
//! It is a client, of Flipgate as of any other proxy: it knows the colors and the wire types of the admin
//! API, and nothing of what is behind them. What it cannot see it does not judge, and says so.
//!
//! ```text
//! options ─▶ stage     starts sample applications and the proxy, kills and restarts them
//!            subject   where the services are
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

pub(crate) use self::check::{Read, Write, conflicts};
pub use self::{
    check::{Finding, Promise, Verdict, Violation},
    options::{Control, Mix, Options, Pace, Service, Speed, Subject as SubjectOptions, Upstream},
    record::{Kind, Outcome},
    report::Report,
    steps::{Line, Step, When, parse_time},
};
use self::{
    conduct::{Conductor, Notes},
    load::{Live, Load, Order, REMEMBERED_MAX, capacity},
    progress::Progress,
    record::{History, Trouble},
    stage::Stage,
    steps::Whom,
    subject::Subject,
    traffic::Sizes,
};
use crate::{
    admin::{
        client::{Call, CallError, Caller, Target},
        wire::Status,
    },
    model::Color,
    sample::now_ns,
};

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
    let history = History {
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

async fn set_up(options: &Options, stage: &mut Stage) -> Result<Subject, DrillError> {
    let subject = match &options.subject {
        SubjectOptions::Demo { services, endpoints } => {
            Subject::demo(stage, *services, *endpoints, options).await?
        }
        SubjectOptions::Given(services) => Subject::given(services, options).await?,
    };
    for Upstream { service, color, address } in &options.upstreams {
        if !subject.names().contains(service) {
            let known = subject.names().join(", ");
            return Err(DrillError::Usage(format!(
                "--upstream {service}.{color}: there is no service {service}, but {known}"
            )));
        }
        stage.add(subject.place(service), *color, *address).await?;
    }
    if let Some(command) = &options.proxy {
        // Signals are for the proxy, not for the shell.
        let arguments = vec!["-c".to_owned(), format!("exec {command}")];
        stage.set_proxy(Some("sh".into()), arguments);
    }
    Ok(subject)
}

/// Whether everything that the steps speak of is there.
fn check_steps(
    options: &Options,
    control: &Control,
    subject: &Subject,
    stage: &Stage,
) -> Result<(), DrillError> {
    let usage = |text: String| Err(DrillError::Usage(text));
    let known = |name: &String| match subject.names().contains(name) {
        true => Ok(()),
        false => usage(format!("there is no service {name}, but {}", subject.names().join(", "))),
    };
    let is_for_all = matches!(control, Control::Command(it) if !it.contains("{service}"));
    let times = Times::of(options);
    for Line { step, when } in &options.steps {
        if !times.are_for(*when) {
            return usage(format!(
                "a step of {when} is never due: the load counts for {:?}",
                options.duration
            ));
        }
        match step {
            Step::Flip(names) if !names.is_empty() && is_for_all => {
                return usage(
                    "one call of this command is a flip of all services: put {service} into it"
                        .to_owned(),
                );
            }
            Step::Promote(pairs) if pairs.len() < subject.names().len() && is_for_all => {
                return usage(
                    "one call of this command is a flip of all services: put {service} into it"
                        .to_owned(),
                );
            }
            Step::Flip(names) => {
                names.iter().try_for_each(known)?;
                if matches!(control, Control::Nobody) {
                    return usage("a flip needs --admin URL or --flip COMMAND".to_owned());
                }
            }
            Step::Promote(pairs) => pairs.iter().try_for_each(|(name, _)| known(name))?,
            Step::Rollback(names) => names.iter().try_for_each(known)?,
            Step::Replace(name, color) => {
                known(name)?;
                if stage.endpoints(subject.place(name), *color).is_empty() {
                    return usage(format!(
                        "replace {name}.{color}: the drill did not start its endpoints"
                    ));
                }
            }
            Step::Reload => {}
            Step::Process(_, Whom::Proxy) if !stage.has_proxy() => {
                return usage("the drill did not start the proxy: use --proxy COMMAND".to_owned());
            }
            Step::Process(_, Whom::Proxy) => {}
            Step::Process(_, Whom::Endpoint(name, color, number)) => {
                known(name)?;
                if !stage.has_endpoint(subject.place(name), *color, *number) {
                    return usage(format!("{name}.{color}.{number}: the drill did not start it"));
                }
            }
        }
        let is_of_admin = matches!(step, Step::Rollback(_) | Step::Replace(..) | Step::Reload);
        if is_of_admin && !matches!(control, Control::Admin(_)) {
            return usage(
                "rollback, replace and reload are calls of Flipgate's admin API: use --admin URL"
                    .to_owned(),
            );
        }
    }
    Ok(())
}

/// Whether a command can say what is to be flipped: one that is not told which service is for all of them.
fn check_command(control: &Control, subject: &Subject, active: &[Color]) -> Result<(), DrillError> {
    let Control::Command(command) = control else { return Ok(()) };
    let is_even = active.iter().all(|it| Some(it) == active.first());
    if command.contains("{service}") || is_even {
        return Ok(());
    }
    let colors: Vec<_> =
        subject.names().iter().zip(active).map(|(name, it)| format!("{name}={it}")).collect();
    Err(DrillError::Usage(format!(
        "one call of `{command}` is a flip of all services to one color, but now they are {}: put {{service}} \
         into it",
        colors.join(" ")
    )))
}

/// The active color of each service, as Flipgate says.
async fn active(caller: &Caller, subject: &Subject) -> Result<Vec<Color>, DrillError> {
    let status: Status = caller.call(Call::get("/v1/status")).await?;
    let of = |name: &String| {
        let service = status.services.get(name).ok_or_else(|| {
            let known: Vec<_> = status.services.keys().cloned().collect();
            DrillError::Usage(format!("Flipgate has no service {name}, but {}", known.join(", ")))
        })?;
        service
            .active
            .parse()
            .map_err(|_| DrillError::Call(format!("{name}: `{}` is no color", service.active)))
    };
    subject.names().iter().map(of).collect()
}

fn order(options: &Options, subject: &Subject) -> Order {
    let mix = options.mix.clone().unwrap_or_else(|| match subject.demo {
        Some(_) => Mix::of_demo(subject.names().len()),
        None => Mix::usual(),
    });
    Order {
        mix,
        sizes: Sizes {
            download_bytes: options.download_bytes,
            upload_bytes: options.upload_bytes,
            stream_time: options.stream_time,
        },
        threads: options.threads,
        seed: options.seed,
        count: options.count,
    }
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
