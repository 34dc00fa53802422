//! What is done to the proxy while it is asked: flips (`flips`), changes, kills; when (`turns`); and what the
//! proxy says of itself meanwhile (`telling`).

mod drain_observer;
mod flips;
mod turns;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    time::Duration,
};

use flipgate_api::wire::{EndpointRequest, PoolRequest};
use tokio_util::sync::CancellationToken;

use self::turns::Turn;
use super::{
    error::DrillError,
    load::sleep_until,
    options::Control,
    processes::{ArrivedRequests, Processes},
    record::{Drained, EventGaps, Failure, Flip, FlipEnd, InFlightSample, Kill},
    steps::{Action, ProcessName, ScriptLine, Step},
    target::{Target, configuration},
    times::Times,
};
use crate::{color::Color, sample::now_ns};

/// Does the steps, and writes down what came of them.
pub(super) struct ScenarioRunner {
    control: Control,
    subject: Rc<Target>,
    /// How long a stream takes.
    stream_time: u64,
    stage: tokio::sync::Mutex<Processes>,
    /// What is active, as far as we know.
    active: RefCell<Vec<Color>>,
    /// Whether the configuration is the other one of the two that are read in turn.
    is_changed: Cell<bool>,
    /// When the proxy was ended last.
    last_end: Cell<u64>,
    /// Whether what the proxy tells could ever be heard, and why not.
    deaf: RefCell<Option<String>>,
    /// Ends what is done.
    halt: CancellationToken,
    pub(super) notes: RefCell<ScenarioLog>,
}

/// What was seen of the proxy itself.
#[derive(Debug, Default)]
pub(super) struct ScenarioLog {
    pub(super) flips: Vec<Flip>,
    pub(super) drained: Vec<Drained>,
    pub(super) hearing: EventGaps,
    pub(super) kills: Vec<Kill>,
    pub(super) inside: Vec<InFlightSample>,
    pub(super) troubles: Vec<Failure>,
}

/// How long a change may take that nobody answered for, until it is known whether it was made.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long the last drains may take to be told.
const AFTERWARDS: Duration = Duration::from_secs(3);

/// How often it is looked who is inside.
const LOOK: Duration = Duration::from_millis(100);

/// Looks that are remembered: three hours of one service.
const LOOKS_MAX: usize = 250_000;

/// How often it is looked whether the drill itself is on time, and from when on it is late.
const TICK: Duration = Duration::from_millis(20);
const LATE: Duration = Duration::from_millis(20);

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl ScenarioRunner {
    pub(super) fn new(
        control: Control,
        subject: Rc<Target>,
        stream_time: Duration,
        stage: Processes,
        active: Vec<Color>,
        halt: CancellationToken,
    ) -> Self {
        Self {
            control,
            subject,
            stream_time: nanos(stream_time),
            stage: tokio::sync::Mutex::new(stage),
            active: RefCell::new(active),
            is_changed: Cell::new(false),
            last_end: Cell::new(0),
            deaf: RefCell::new(Some("nobody has listened".to_owned())),
            halt,
            notes: RefCell::default(),
        }
    }

    /// Does each step when it is due, until it is halted: repeated ones while there are to be flips, others
    /// as long as the load counts. Changes wait for one another;
    /// processes come and go whatever is under way. Not to be dropped: what is under way would not be
    /// noted.
    pub(super) async fn conduct(&self, lines: &[ScriptLine], times: Times) {
        let is_process = |line: &&ScriptLine| matches!(line.step, Step::Process(..));
        let (processes, changes): (Vec<_>, Vec<_>) = lines.iter().partition(is_process);
        tokio::join!(self.take_turns(&processes, times), self.take_turns(&changes, times));
    }

    async fn take_turns(&self, lines: &[&ScriptLine], times: Times) {
        let mut turns: Vec<Turn> = lines.iter().map(|it| Turn::new(it, times)).collect();
        loop {
            turns.retain(Turn::is_coming);
            let next = turns.iter().enumerate().min_by_key(|(_, it)| it.at);
            let Some((place, &Turn { at, line, .. })) = next else { return };
            tokio::select! {
                () = sleep_until(at) => {}
                place = self.pause_over(&turns) => {
                    turns[place].resume();
                    continue;
                }
                () = self.halt.cancelled() => return,
            }
            if !turns[place].is_in_time() {
                turns.swap_remove(place);
                continue;
            }
            self.step(&line.step).await;
            let flip = self.last_flip(at);
            if !turns[place].next(flip, self.stream_time) {
                turns.swap_remove(place);
            }
        }
    }

    /// The place of a flip that was made since `from`, if the proxy tells when what it left behind is drained.
    fn last_flip(&self, from: u64) -> Option<usize> {
        let notes = self.notes.borrow();
        let last = notes.flips.len().checked_sub(1)?;
        let flip = &notes.flips[last];
        let is_good = flip.end == FlipEnd::Done && flip.called >= from;
        (self.tells_of_drains() && is_good).then_some(last)
    }

    /// The first turn that does not pause any more: the events have come for every color that its flip has left
    /// behind. Never ends if none pauses.
    async fn pause_over(&self, turns: &[Turn<'_>]) -> usize {
        let pauses = || turns.iter().enumerate().filter_map(|(at, it)| Some((at, it.pause?)));
        if pauses().next().is_none() {
            return std::future::pending().await;
        }
        loop {
            if let Some((place, _)) = pauses().find(|(_, flip)| self.is_told(*flip)) {
                return place;
            }
            tokio::time::sleep(TICK / 2).await;
        }
    }

    async fn step(&self, step: &Step) {
        let from = now_ns();
        let done = match step {
            Step::Flip(names) => {
                self.flip(self.toggled(names)).await;
                Ok(())
            }
            Step::Promote(pairs) => {
                let named = |(name, color): &(String, Color)| (self.subject.place(name), *color);
                // What is so already would be refused.
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
            Step::Replace(name, color) => self.replace(self.subject.place(name), *color).await,
            Step::Reload => self.reload().await,
            Step::Process(deed, whom) => self.process(*deed, whom).await,
        };
        if let Err(error) = done {
            self.trouble(from, error.to_string());
        }
    }

    fn trouble(&self, from: u64, text: String) {
        self.notes.borrow_mut().troubles.push(Failure { from, until: now_ns(), text });
    }

    /// The other colors of these services, or of all.
    fn toggled(&self, names: &[String]) -> Vec<(u8, Color)> {
        let active = self.active.borrow();
        let places: Vec<u8> = match names {
            [] => self.subject.places().collect(),
            names => names.iter().map(|it| self.subject.place(it)).collect(),
        };
        places.into_iter().map(|it| (it, active[usize::from(it)].other())).collect()
    }

    /// Gives a color fresh endpoints, and ends the old ones when nobody is with them any more.
    async fn replace(&self, service: u8, color: Color) -> Result<(), DrillError> {
        let Control::Admin(caller) = &self.control else { return Ok(()) };
        let endpoints = self.stage.lock().await.prepare(service, color).await?;
        let endpoints = endpoints.iter().map(|it| EndpointRequest::Plain(it.to_string())).collect();
        let request = PoolRequest { version: None, endpoints, force: true };
        let name = self.subject.name(service);
        let put = caller.set_pool(name, color.as_str(), &request).await;
        let over = self.stage.lock().await.replace(service, color, put.is_ok()).await;
        self.notes.borrow_mut().kills.extend(over);
        put?;
        // If it is made active meanwhile, the answer comes before everybody has left.
        for _ in 0..100 {
            if caller.drain(name, Some(color.as_str()), PATIENCE).await?.in_flight == 0 {
                self.stage.lock().await.dismiss(service, color).await;
                return Ok(());
            }
        }
        Err(DrillError::Call(format!("what was replaced in {name} {color} is never idle")))
    }

    /// Has the configuration read again, changed if it is ours.
    async fn reload(&self) -> Result<(), DrillError> {
        let Control::Admin(caller) = &self.control else { return Ok(()) };
        if let Some(demo) = &self.subject.demo {
            self.is_changed.set(!self.is_changed.get());
            std::fs::write(&demo.file, configuration(demo, self.is_changed.get()))?;
        }
        caller.reload().await?;
        Ok(())
    }

    async fn process(&self, deed: Action, whom: &ProcessName) -> Result<(), DrillError> {
        match whom {
            ProcessName::Proxy => {
                if deed != Action::Start {
                    let mut stage = self.stage.lock().await;
                    self.last_end.set(now_ns());
                    stage.end_proxy(deed == Action::Kill).await;
                }
                if deed != Action::Kill {
                    self.stage.lock().await.start_proxy()?;
                    self.subject.serves(&self.stage).await?;
                    let over = self.stage.lock().await.proxy_serves();
                    self.notes.borrow_mut().kills.extend(over);
                }
            }
            ProcessName::Endpoint(name, color, number) => {
                let service = self.subject.place(name);
                let mut stage = self.stage.lock().await;
                if deed != Action::Start {
                    let kill = stage.kill_app(service, *color, *number).await;
                    self.notes.borrow_mut().kills.extend(kill);
                }
                if deed != Action::Kill {
                    let over = stage.start_app_again(service, *color, *number).await?;
                    self.notes.borrow_mut().kills.extend(over);
                }
            }
        }
        Ok(())
    }

    /// Where each application belonged.
    pub(super) async fn instances(&self) -> BTreeMap<u16, (u8, Color)> {
        self.stage.lock().await.instances()
    }

    /// Ends all processes; returns what arrived at the applications, if the drill started any.
    pub(super) async fn end(&self) -> Result<Option<ArrivedRequests>, DrillError> {
        let mut stage = self.stage.lock().await;
        let has_apps = stage.has_apps();
        let (arrived, open) = stage.end().await?;
        self.notes.borrow_mut().kills.extend(open);
        Ok(has_apps.then_some(arrived))
    }
}
