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

use tokio::runtime::{Builder, LocalOptions};
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
    load::{Live, Load, Order, capacity},
    progress::Progress,
    record::History,
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
    /// A body that cannot be written.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

/// How long the last drains may take to be told.
const AFTERWARDS: Duration = Duration::from_millis(500);

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
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(drill(options))
}

async fn drill(options: &Options) -> Result<Report, DrillError> {
    let mut stage = Stage::new()?;
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
    let stage = stage.into_inner();
    let order = order(options, &subject, stage.has_apps());
    let progress = Progress::new(options.is_quiet);
    let pace = match options.pace {
        Speed::Pace(pace) => pace,
        Speed::Share(share) => {
            progress.say("measuring what can be done at most");
            Pace::Rate(capacity(&order, || subject.entrances())? * share)
        }
    };
    let times = Times::of(options);
    let live = Arc::new(Live::default());
    let span = (times.from, times.until);
    let load = Load::start(&order, pace, span, || subject.entrances(), &live)?;
    let conductor = Conductor::new(control, Rc::clone(&subject), stage, active.clone());
    let (halt, done) = (CancellationToken::new(), CancellationToken::new());
    let steps = &options.steps;
    let main = async {
        let watching = async {
            watch(&load, &live, &conductor, &progress, times).await;
            halt.cancel();
        };
        tokio::join!(conductor.conduct(steps, times, &halt), watching);
        tokio::time::sleep(AFTERWARDS).await;
        done.cancel();
    };
    tokio::join!(main, conductor.listen(&done), conductor.look(&done));
    let requests = load.finish()?;
    let arrived = conductor.end().await?;
    let tells = conductor.tells_of_drains();
    let Notes { flips, drained, kills, inside, troubles } = conductor.notes.take();
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
        stage.set_proxy("sh".into(), arguments);
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
    for Line { step, .. } in &options.steps {
        match step {
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

fn order(options: &Options, subject: &Subject, has_stamps: bool) -> Order {
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
        has_stamps,
        count: options.count,
    }
}

/// Shows what is going on until the load is over.
async fn watch(load: &Load, live: &Live, conductor: &Conductor, progress: &Progress, times: Times) {
    let mut stop = std::pin::pin!(told_to_stop());
    let mut is_stopped = false;
    while !load.is_over() {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(100)) => {}
            () = &mut stop, if !is_stopped => {
                is_stopped = true;
                load.stop();
            }
        }
        progress.show(live, conductor.flips(), times.from, times.until);
    }
}

async fn told_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut term) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = term.recv() => {}
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
}
