//! The steps of a drill: flips (`flips`), changes and kills, and their schedule (`schedule`). Meanwhile
//! `drain_observer` follows what the proxy reports.

mod drain_observer;
mod flips;
mod gradual;
mod schedule;
mod trials;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    time::Duration,
};

use flipgate_api::wire::{EndpointRequest, PoolRequest};
use tokio_util::sync::CancellationToken;

use self::schedule::ScheduledStep;
use super::{
    error::DrillError,
    load::sleep_until,
    options::Control,
    processes::{ArrivedRequests, Processes},
    record::{
        DrainedEvent, EventGaps, Failure, Flip, FlipOutcome, GradualPromotion, InFlightSample,
        Kill, StepRecord, Trial,
    },
    steps::{Action, ProcessName, ScriptLine, Step},
    target::{Target, configuration},
    times::Times,
};
use crate::{color::Color, sample::now_ns};

/// Runs the steps, and records their results.
pub(super) struct ScenarioRunner {
    control: Control,
    target: Rc<Target>,
    /// The duration of a stream, in nanoseconds.
    stream_time: u64,
    processes: tokio::sync::Mutex<Processes>,
    /// The active color of each service, as far as the drill knows.
    active: RefCell<Vec<Color>>,
    /// Which of two configurations the demo has now. Each reload reads the other one.
    is_changed: Cell<bool>,
    /// When the drill stopped the proxy last.
    last_proxy_end: Cell<u64>,
    /// Why events cannot be received, until the first connection for events.
    events_error: RefCell<Option<String>>,
    /// Stops the steps.
    halt: CancellationToken,
    pub(super) log: RefCell<ScenarioLog>,
}

/// The record of the steps and of what the proxy reports.
#[derive(Debug, Default)]
pub(super) struct ScenarioLog {
    pub(super) flips: Vec<Flip>,
    pub(super) drained: Vec<DrainedEvent>,
    pub(super) event_gaps: EventGaps,
    pub(super) kills: Vec<Kill>,
    pub(super) trials: Vec<Trial>,
    pub(super) gradual: Vec<GradualPromotion>,
    pub(super) in_flight: Vec<InFlightSample>,
    pub(super) failures: Vec<Failure>,
    pub(super) steps: Vec<StepRecord>,
}

/// The timeout for flip commands, for idle endpoints, and for finding out whether a change took effect.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(60);

/// The timeout for the `drained` events after the load.
const LAST_DRAINS_TIMEOUT: Duration = Duration::from_secs(3);

/// The interval of samples of the requests in flight.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);

/// Samples at most: three hours of one service.
const SAMPLES_MAX: usize = 250_000;

/// The interval of the timer that measures delays of the drill itself, and the shortest delay that is recorded.
const DELAY_INTERVAL: Duration = Duration::from_millis(20);
const DELAY_MIN: Duration = Duration::from_millis(20);

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl ScenarioRunner {
    pub(super) fn new(
        control: Control,
        target: Rc<Target>,
        stream_time: Duration,
        processes: Processes,
        active: Vec<Color>,
        halt: CancellationToken,
    ) -> Self {
        Self {
            control,
            target,
            stream_time: nanos(stream_time),
            processes: tokio::sync::Mutex::new(processes),
            active: RefCell::new(active),
            is_changed: Cell::new(false),
            last_proxy_end: Cell::new(0),
            events_error: RefCell::new(Some("no connection was opened".to_owned())),
            halt,
            log: RefCell::default(),
        }
    }

    /// Runs each step when it is due, until it is halted. Changes run one after the other. Steps of processes run
    /// independently of changes. Not cancel safe: the result of a running step would not be recorded.
    pub(super) async fn run(&self, lines: &[ScriptLine], times: Times) {
        let is_process = |line: &&ScriptLine| matches!(line.step, Step::Process(..));
        let (processes, changes): (Vec<_>, Vec<_>) = lines.iter().partition(is_process);
        tokio::join!(self.run_schedule(&processes, times), self.run_schedule(&changes, times));
    }

    async fn run_schedule(&self, lines: &[&ScriptLine], times: Times) {
        let mut schedule: Vec<ScheduledStep> =
            lines.iter().map(|it| ScheduledStep::new(it, times)).collect();
        loop {
            schedule.retain(ScheduledStep::is_pending);
            let next = schedule.iter().enumerate().min_by_key(|(_, it)| it.at);
            let Some((index, &ScheduledStep { at, line, .. })) = next else { return };
            tokio::select! {
                () = sleep_until(at) => {}
                index = self.wait_for_pause_end(&schedule) => {
                    schedule[index].resume();
                    continue;
                }
                () = self.halt.cancelled() => return,
            }
            if !schedule[index].is_before_end() {
                schedule.swap_remove(index);
                continue;
            }
            self.run_step(&line.step).await;
            let flip = self.last_flip(at);
            if !schedule[index].reschedule(flip, self.stream_time) {
                schedule.swap_remove(index);
            }
        }
    }

    /// The index of a successful flip since `from`, if the proxy reports drains.
    fn last_flip(&self, from: u64) -> Option<usize> {
        let log = self.log.borrow();
        let last = log.flips.len().checked_sub(1)?;
        let flip = &log.flips[last];
        let is_good = flip.outcome == FlipOutcome::Acknowledged && flip.called >= from;
        // Pins hold a color for longer than flips should pause: the last flip is waited for.
        let may_pause = self.reports_drains() && self.target.pin_age().is_none();
        (may_pause && is_good).then_some(last)
    }

    /// Waits for the first step that need not pause any longer: the `drained` events of its flip have come. Pending for
    /// ever if no step pauses.
    async fn wait_for_pause_end(&self, schedule: &[ScheduledStep<'_>]) -> usize {
        let pauses = || schedule.iter().enumerate().filter_map(|(at, it)| Some((at, it.pause?)));
        if pauses().next().is_none() {
            return std::future::pending().await;
        }
        loop {
            if let Some((index, _)) = pauses().find(|(_, flip)| self.is_flip_drained(*flip)) {
                return index;
            }
            tokio::time::sleep(DELAY_INTERVAL / 2).await;
        }
    }

    async fn run_step(&self, step: &Step) {
        let from = now_ns();
        if !matches!(step, Step::Flip(_)) {
            let record = StepRecord { at: from, text: step.to_string() };
            self.log.borrow_mut().steps.push(record);
        }
        let done = match step {
            Step::Flip(names) => {
                self.flip(self.other_colors(names)).await;
                Ok(())
            }
            Step::Promote(pairs) => {
                let named = |(name, color): &(String, Color)| (self.target.index(name), *color);
                // Flipgate refuses to promote the active color.
                let active = self.active.borrow().clone();
                let changes =
                    pairs.iter().map(named).filter(|it| active[usize::from(it.0)] != it.1);
                self.flip(changes.collect()).await;
                Ok(())
            }
            Step::Rollback(names) => {
                self.rollback(names).await;
                Ok(())
            }
            Step::Replace(name, color) => self.replace(self.target.index(name), *color).await,
            Step::Reload => self.reload().await,
            Step::Refuse(name) => self.refuse(self.target.index(name)).await,
            Step::Guard(name, percent) => self.guard(self.target.index(name), *percent).await,
            Step::Gradual(name, steps, time) => {
                self.gradual(self.target.index(name), steps, *time).await
            }
            Step::Process(action, process) => self.run_process_step(*action, process).await,
        };
        if let Err(error) = done {
            self.record_failure(from, error.to_string());
        }
    }

    fn record_failure(&self, from: u64, text: String) {
        self.log.borrow_mut().failures.push(Failure { from, until: now_ns(), text });
    }

    /// The inactive colors of these services, or of all.
    fn other_colors(&self, names: &[String]) -> Vec<(u8, Color)> {
        let active = self.active.borrow();
        let indices: Vec<u8> = match names {
            [] => self.target.indices().collect(),
            names => names.iter().map(|it| self.target.index(it)).collect(),
        };
        indices.into_iter().map(|it| (it, active[usize::from(it)].other())).collect()
    }

    /// Gives a color new endpoints, and ends the old ones when they are idle.
    async fn replace(&self, service: u8, color: Color) -> Result<(), DrillError> {
        let Control::Admin(caller) = &self.control else { return Ok(()) };
        let endpoints = self.processes.lock().await.prepare(service, color).await?;
        let endpoints = endpoints.iter().map(|it| EndpointRequest::Plain(it.to_string())).collect();
        let request = PoolRequest { version: None, endpoints, force: true };
        let name = self.target.name(service);
        let put = caller.set_pool(name, color.as_str(), &request).await;
        let ended = self.processes.lock().await.replace(service, color, put.is_ok()).await;
        self.log.borrow_mut().kills.extend(ended);
        put?;
        // If the color becomes active meanwhile, the call returns before the endpoints are idle.
        for _ in 0..100 {
            if caller.drain(name, Some(color.as_str()), CHANGE_TIMEOUT).await?.in_flight == 0 {
                self.processes.lock().await.end_replaced(service, color).await;
                return Ok(());
            }
        }
        Err(DrillError::Call(format!(
            "the replaced endpoints of {name} {color} do not become idle"
        )))
    }

    /// Reloads the configuration, which is a changed one in a demo.
    async fn reload(&self) -> Result<(), DrillError> {
        let Control::Admin(caller) = &self.control else { return Ok(()) };
        if let Some(demo) = &self.target.demo {
            self.is_changed.set(!self.is_changed.get());
            std::fs::write(&demo.file, configuration(demo, self.is_changed.get()))?;
        }
        caller.reload().await?;
        Ok(())
    }

    async fn run_process_step(
        &self,
        action: Action,
        process: &ProcessName,
    ) -> Result<(), DrillError> {
        match process {
            ProcessName::Proxy => {
                if action != Action::Start {
                    let mut processes = self.processes.lock().await;
                    self.last_proxy_end.set(now_ns());
                    processes.end_proxy(action == Action::Kill).await;
                }
                if action != Action::Kill {
                    self.processes.lock().await.start_proxy()?;
                    self.target.wait_until_serving(&self.processes).await?;
                    let ended = self.processes.lock().await.proxy_recovered();
                    self.log.borrow_mut().kills.extend(ended);
                }
            }
            ProcessName::Endpoint(name, color, number) => {
                let service = self.target.index(name);
                let mut processes = self.processes.lock().await;
                if action != Action::Start {
                    let kill = processes.kill_app(service, *color, *number).await;
                    self.log.borrow_mut().kills.extend(kill);
                }
                if action != Action::Kill {
                    let ended = processes.start_app_again(service, *color, *number).await?;
                    self.log.borrow_mut().kills.extend(ended);
                }
            }
        }
        Ok(())
    }

    /// The service and the color of each application.
    pub(super) async fn instances(&self) -> BTreeMap<u16, (u8, Color)> {
        self.processes.lock().await.instances()
    }

    /// Ends all processes. Returns the requests that the applications received, if the drill started any.
    pub(super) async fn end(&self) -> Result<Option<ArrivedRequests>, DrillError> {
        let mut processes = self.processes.lock().await;
        let has_apps = processes.has_apps();
        let (arrived, open) = processes.end().await?;
        self.log.borrow_mut().kills.extend(open);
        Ok(has_apps.then_some(arrived))
    }
}
