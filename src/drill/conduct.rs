//! What is done to the proxy while it is asked: flips, changes, kills; and what it says of itself
//! meanwhile.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    io::{Read, Seek, SeekFrom},
    process::Stdio,
    rc::Rc,
    time::Duration,
};

use rustix::process::Signal;
use serde_json::Value;
use tokio::{process::Command, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    DrillError, Times,
    load::sleep_until,
    options::Control,
    record::{Drained, Flip, FlipEnd, Inside, Kill, Trouble},
    stage::{Stage, signal},
    steps::{Deed, Line, Step, When, Whom},
    subject::{Subject, configuration},
};
use crate::{
    admin::{
        client::{Call, CallError, Caller},
        wire::{
            DrainStatus, EndpointRequest, PoolRequest, PromoteRequest, RollbackRequest, Status,
        },
    },
    model::Color,
    sample::now_ns,
};

/// Does the steps, and writes down what came of them.
pub(super) struct Conductor {
    control: Control,
    subject: Rc<Subject>,
    stage: tokio::sync::Mutex<Stage>,
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
    pub(super) notes: RefCell<Notes>,
}

/// What was seen of the proxy itself.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) flips: Vec<Flip>,
    pub(super) drained: Vec<Drained>,
    pub(super) kills: Vec<Kill>,
    pub(super) inside: Vec<Inside>,
    pub(super) troubles: Vec<Trouble>,
}

/// How long a change may take that nobody answered for, until it is known whether it was made.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long the last drains may take to be told.
const AFTERWARDS: Duration = Duration::from_secs(3);

/// How often it is looked who is inside.
const LOOK: Duration = Duration::from_millis(100);

/// Looks that are remembered: three hours of one service.
const LOOKS_MAX: usize = 250_000;

impl Conductor {
    pub(super) fn new(
        control: Control,
        subject: Rc<Subject>,
        stage: Stage,
        active: Vec<Color>,
        halt: CancellationToken,
    ) -> Self {
        Self {
            control,
            subject,
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
    pub(super) async fn conduct(&self, lines: &[Line], times: Times) {
        let is_process = |line: &&Line| matches!(line.step, Step::Process(..));
        let (processes, changes): (Vec<_>, Vec<_>) = lines.iter().partition(is_process);
        tokio::join!(self.take_turns(&processes, times), self.take_turns(&changes, times));
    }

    async fn take_turns(&self, lines: &[&Line], times: Times) {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let first = |line: &Line| match line.when {
            When::At(time) => times.counts_from.saturating_add(nanos(time)),
            When::Every(time) => times.flips_from.saturating_add(nanos(time)),
        };
        let until = |line: &Line| match line.when {
            When::At(_) => times.until,
            When::Every(_) => times.flips_until,
        };
        let mut due: Vec<(u64, &Line)> = lines.iter().map(|it| (first(it), *it)).collect();
        loop {
            due.retain(|(at, line)| *at < until(line));
            let next = due.iter().enumerate().min_by_key(|(_, (at, _))| *at);
            let Some((place, &(at, line))) = next else { return };
            tokio::select! {
                () = sleep_until(at) => {}
                () = self.halt.cancelled() => return,
            }
            self.step(&line.step).await;
            match line.when {
                When::At(_) => {
                    due.swap_remove(place);
                }
                When::Every(time) => {
                    // What took longer than its interval is not made up for.
                    let (every, now) = (nanos(time), now_ns());
                    let turns = now.saturating_sub(at) / every + 1;
                    due[place].0 = at.saturating_add(every.saturating_mul(turns));
                }
            }
        }
    }

    async fn step(&self, step: &Step) {
        let from = now_ns();
        let done = match step {
            Step::Flip(names) => self.flip(self.toggled(names)).await,
            Step::Promote(pairs) => {
                let named = |(name, color): &(String, Color)| (self.subject.place(name), *color);
                // What is so already would be refused.
                let active = self.active.borrow().clone();
                let changes =
                    pairs.iter().map(named).filter(|it| active[usize::from(it.0)] != it.1);
                self.flip(changes.collect()).await
            }
            Step::Rollback(names) => self.rollback(names).await,
            Step::Replace(name, color) => self.replace(self.subject.place(name), *color).await,
            Step::Reload => self.reload().await,
            Step::Process(deed, whom) => self.process(*deed, whom).await,
        };
        if let Err(error) = done {
            self.trouble(from, error.to_string());
        }
    }

    fn trouble(&self, from: u64, text: String) {
        self.notes.borrow_mut().troubles.push(Trouble { from, until: now_ns(), text });
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

    async fn flip(&self, changes: Vec<(u8, Color)>) -> Result<(), DrillError> {
        if changes.is_empty() {
            return Ok(());
        }
        match &self.control {
            Control::Nobody => {}
            Control::Command(command) => self.flip_by(command, changes).await,
            Control::Admin(caller) => {
                let named =
                    |it: &(u8, Color)| (self.subject.name(it.0).to_owned(), it.1.to_string());
                let services = changes.iter().map(named).collect();
                let request = PromoteRequest { services, force: false, reason: None };
                let body = serde_json::to_string(&request)?;
                self.change(caller, Call::post("/v1/promote", body), changes).await;
            }
        }
        Ok(())
    }

    async fn rollback(&self, names: &[String]) -> Result<(), DrillError> {
        let Control::Admin(caller) = &self.control else { return Ok(()) };
        let request = RollbackRequest { services: names.to_vec(), force: true, reason: None };
        let body = serde_json::to_string(&request)?;
        // Which services a rollback of the last promotion is of, its answer tells.
        let changes = if names.is_empty() { Vec::new() } else { self.toggled(names) };
        self.change(caller, Call::post("/v1/rollback", body), changes).await;
        Ok(())
    }

    /// Makes a change of the active colors, and notes what came of it.
    async fn change(&self, caller: &Caller, call: Call<'_>, wanted: Vec<(u8, Color)>) {
        let called = now_ns();
        let answer = caller.call::<Status>(call).await;
        let mut flip = Flip {
            changes: wanted.clone(),
            called,
            acknowledged: now_ns(),
            end: FlipEnd::Done,
            generation: None,
            trouble: answer.as_ref().err().map(ToString::to_string),
            was_lost: false,
        };
        match answer {
            Ok(status) => self.take_over(&mut flip, &status),
            Err(
                CallError::Refused { .. } | CallError::Unreachable { .. } | CallError::Malformed(_),
            ) => {
                flip.end = FlipEnd::Refused;
            }
            Err(CallError::Lost { .. } | CallError::Silent { .. } | CallError::Foreign { .. }) => {
                self.find_out(caller, &mut flip).await;
            }
        }
        let is_known = flip.end == FlipEnd::Done && !wanted.is_empty();
        if is_known && !is_same(&flip.changes, &wanted) {
            let text = format!(
                "the flip of {} was acknowledged, and made of {}",
                self.in_words(&wanted),
                self.in_words(&flip.changes)
            );
            self.trouble(called, text);
        }
        self.notes.borrow_mut().flips.push(flip);
    }

    fn in_words(&self, changes: &[(u8, Color)]) -> String {
        if changes.is_empty() {
            return "nothing".to_owned();
        }
        let words = changes.iter().map(|(it, color)| format!("{}={color}", self.subject.name(*it)));
        words.collect::<Vec<_>>().join(" ")
    }

    /// Notes what a picture after a change says of the active colors.
    fn take_over(&self, flip: &mut Flip, status: &Status) {
        flip.generation = Some(status.generation);
        flip.changes = self.changed_by(status);
    }

    /// The services that are not any more what they were, as far as we knew; now we know.
    fn changed_by(&self, status: &Status) -> Vec<(u8, Color)> {
        let mut active = self.active.borrow_mut();
        let mut changed = Vec::new();
        for place in self.subject.places() {
            let shown = status.services.get(self.subject.name(place)).map(|it| it.active.parse());
            if let Some(Ok(color)) = shown
                && active[usize::from(place)] != color
            {
                active[usize::from(place)] = color;
                changed.push((place, color));
            }
        }
        changed
    }

    /// Whether a change was made whose answer was lost: asks until somebody knows. That it was not made is
    /// known only if the process that was asked is gone.
    async fn find_out(&self, caller: &Caller, flip: &mut Flip) {
        let wanted = match flip.changes.is_empty() {
            true => self.toggled(&[]),
            false => flip.changes.clone(),
        };
        let found = timeout(PATIENCE, async {
            loop {
                if let Ok(status) = caller.call::<Status>(Call::get("/v1/status")).await {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        flip.was_lost = true;
        match found.await {
            Ok(status) => self.take_over(flip, &status),
            Err(_) => flip.changes.clear(),
        }
        flip.acknowledged = now_ns();
        if flip.changes.is_empty() {
            flip.end = match self.last_end.get() >= flip.called {
                true => FlipEnd::Refused,
                false => FlipEnd::Unknown,
            };
            flip.changes = wanted;
        }
    }

    /// Flips by a command: one call for all services, or one for each if it wants to know which.
    async fn flip_by(&self, command: &str, changes: Vec<(u8, Color)>) {
        let calls: Vec<Vec<(u8, Color)>> = match command.contains("{service}") {
            true => changes.into_iter().map(|it| vec![it]).collect(),
            false => vec![changes],
        };
        for changes in calls {
            let Some((service, color)) = changes.first().copied() else { continue };
            let text = command
                .replace("{service}", self.subject.name(service))
                .replace("{color}", color.as_str());
            let called = now_ns();
            let trouble = self.run(&text).await.err();
            let flip = Flip {
                changes,
                called,
                acknowledged: now_ns(),
                end: if trouble.is_none() { FlipEnd::Done } else { FlipEnd::Unknown },
                generation: None,
                trouble,
                was_lost: false,
            };
            if flip.end == FlipEnd::Done {
                let mut active = self.active.borrow_mut();
                flip.changes.iter().for_each(|(it, color)| active[usize::from(*it)] = *color);
            }
            self.notes.borrow_mut().flips.push(flip);
        }
    }

    /// Runs a command until it has ended itself, whoever it leaves behind. One that is still there when the
    /// time is up, or when the drill is told to stop, ends with all that it has started.
    async fn run(&self, command: &str) -> Result<(), String> {
        let cannot = |error: std::io::Error| format!("`{command}` cannot be run: {error}");
        let said = tempfile::tempfile().map_err(cannot)?;
        let mut process = Command::new("sh");
        process.args(["-c", command]).stdin(Stdio::null()).stdout(Stdio::null());
        process.stderr(said.try_clone().map_err(cannot)?).kill_on_drop(true).process_group(0);
        let mut child = process.spawn().map_err(cannot)?;
        let status = tokio::select! {
            status = child.wait() => status.map_err(cannot)?,
            why = self.enough() => {
                signal(&child, Signal::KILL);
                return Err(format!("`{command}` did not end {why}"));
            }
        };
        if status.success() {
            return Ok(());
        }
        let mut text = Vec::new();
        let read =
            (&said).seek(SeekFrom::Start(0)).and_then(|_| (&said).take(500).read_to_end(&mut text));
        read.map_err(cannot)?;
        // Whatever it says, it is not to write on our terminal as it likes.
        let text = String::from_utf8_lossy(&text).replace(char::is_control, " ");
        Err(format!("`{command}` ended with {status}: {}", text.trim()))
    }

    /// Why there is no more time for a command, as soon as there is none.
    async fn enough(&self) -> String {
        tokio::select! {
            () = tokio::time::sleep(PATIENCE) => format!("within {PATIENCE:?}"),
            () = self.halt.cancelled() => "before the drill did".to_owned(),
        }
    }

    /// Gives a color fresh endpoints, and ends the old ones when nobody is with them any more.
    async fn replace(&self, service: u8, color: Color) -> Result<(), DrillError> {
        let Control::Admin(caller) = &self.control else { return Ok(()) };
        let endpoints = self.stage.lock().await.prepare(service, color).await?;
        let endpoints = endpoints.iter().map(|it| EndpointRequest::Plain(it.to_string())).collect();
        let request = PoolRequest { version: None, endpoints, force: true };
        let name = self.subject.name(service);
        let path = format!("/v1/services/{name}/pools/{color}");
        let body = serde_json::to_string(&request)?;
        let call = Call { method: http::Method::PUT, ..Call::post(&path, body) };
        let put = caller.call::<Value>(call).await;
        let over = self.stage.lock().await.replace(service, color, put.is_ok()).await;
        self.notes.borrow_mut().kills.extend(over);
        put?;
        let path = format!("/v1/services/{name}/drain?color={color}&wait=60s");
        // If it is made active meanwhile, the answer comes before everybody has left.
        for _ in 0..100 {
            let call = Call { wait: PATIENCE, ..Call::get(&path) };
            if caller.call::<DrainStatus>(call).await?.in_flight == 0 {
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
        caller.call::<Value>(Call::post("/v1/reload", String::new())).await?;
        Ok(())
    }

    async fn process(&self, deed: Deed, whom: &Whom) -> Result<(), DrillError> {
        match whom {
            Whom::Proxy => {
                if deed != Deed::Start {
                    let mut stage = self.stage.lock().await;
                    self.last_end.set(now_ns());
                    stage.end_proxy(deed == Deed::Kill).await;
                }
                if deed != Deed::Kill {
                    self.stage.lock().await.start_proxy()?;
                    self.subject.serves(&self.stage).await?;
                    let over = self.stage.lock().await.proxy_serves();
                    self.notes.borrow_mut().kills.extend(over);
                }
            }
            Whom::Endpoint(name, color, number) => {
                let service = self.subject.place(name);
                let mut stage = self.stage.lock().await;
                if deed != Deed::Start {
                    let kill = stage.kill_app(service, *color, *number).await;
                    self.notes.borrow_mut().kills.extend(kill);
                }
                if deed != Deed::Kill {
                    let over = stage.start_app_again(service, *color, *number).await?;
                    self.notes.borrow_mut().kills.extend(over);
                }
            }
        }
        Ok(())
    }

    /// How many flips there were.
    pub(super) fn flips(&self) -> usize {
        self.notes.borrow().flips.len()
    }

    /// Whether the proxy tells when a color is drained.
    pub(super) fn tells_of_drains(&self) -> bool {
        matches!(self.control, Control::Admin(_))
    }

    /// Follows what the proxy tells of drains until it is stopped.
    pub(super) async fn listen(&self, stop: &CancellationToken) {
        let Control::Admin(caller) = &self.control else { return };
        let mut last = None;
        let listening = async {
            loop {
                match caller.events(last).await {
                    Err(error) => {
                        let mut deaf = self.deaf.borrow_mut();
                        if deaf.is_some() {
                            *deaf = Some(error.to_string());
                        }
                    }
                    Ok(mut events) => {
                        self.deaf.replace(None);
                        while let Ok(Some(event)) = events.next().await {
                            let heard = now_ns();
                            let Ok(event) = serde_json::from_str::<Value>(&event) else { continue };
                            last = event["seq"].as_u64().or(last);
                            self.notes.borrow_mut().drained.extend(self.drained(&event, heard));
                        }
                    }
                }
                // It was killed, or does not run yet.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::select! { () = listening => {}, () = stop.cancelled() => {} }
    }

    fn drained(&self, event: &Value, heard: u64) -> Option<Drained> {
        if event["event"] != "drained" {
            return None;
        }
        let name = event["service"].as_str()?;
        let service = self.subject.places().find(|it| self.subject.name(*it) == name)?;
        let color = event["color"].as_str()?.parse().ok()?;
        Some(Drained { service, color, generation: event["generation"].as_u64()?, heard })
    }

    /// Notes what ends without being told to: the proxy.
    pub(super) async fn attend(&self) {
        // Whoever holds the stage is ending or starting something.
        if let Ok(mut stage) = self.stage.try_lock()
            && let Some(ended) = stage.proxy_ended()
        {
            self.trouble(now_ns(), ended);
        }
    }

    /// Waits until it was told that everything is drained that flips have left behind, but not for long.
    pub(super) async fn hear_the_last(&self) {
        let is_told = || {
            let notes = self.notes.borrow();
            let last = notes.flips.iter().rev().find(|it| it.end == FlipEnd::Done);
            last.is_none_or(|flip| {
                flip.changes.iter().all(|(service, color)| {
                    let is_it = |it: &Drained| (it.service, it.color) == (*service, color.other());
                    notes.drained.iter().any(|it| is_it(it) && it.heard >= flip.called)
                })
            })
        };
        let looking = async {
            while self.tells_of_drains() && !is_told() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        // What was not told by then is judged as it is.
        let _ = timeout(AFTERWARDS, looking).await;
        let why = self.deaf.borrow().clone().filter(|_| self.tells_of_drains());
        if let Some(why) = why {
            self.trouble(now_ns(), format!("the events of the proxy cannot be followed: {why}"));
        }
    }

    /// Where each application belonged.
    pub(super) async fn instances(&self) -> BTreeMap<u16, (u8, Color)> {
        self.stage.lock().await.instances()
    }

    /// Looks who is inside, again and again until it is stopped.
    pub(super) async fn look(&self, stop: &CancellationToken) {
        let Control::Admin(caller) = &self.control else { return };
        let looking = async {
            let mut turn = tokio::time::interval(LOOK);
            turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
            loop {
                turn.tick().await;
                let Ok(status) = caller.call::<Status>(Call::get("/v1/status")).await else {
                    continue;
                };
                let at = now_ns();
                let mut notes = self.notes.borrow_mut();
                if notes.inside.len() < LOOKS_MAX {
                    notes.inside.extend(self.inside(&status, at));
                }
            }
        };
        tokio::select! { () = looking => {}, () = stop.cancelled() => {} }
    }

    fn inside(&self, status: &Status, at: u64) -> Vec<Inside> {
        let mut all = Vec::new();
        for place in self.subject.places() {
            let Some(service) = status.services.get(self.subject.name(place)) else { continue };
            for (color, pool) in &service.pools {
                let is_leaving = *color != service.active;
                let Ok(color) = color.parse() else { continue };
                all.push(Inside { at, service: place, color, count: pool.in_flight, is_leaving });
            }
        }
        all
    }

    /// Ends all processes; returns each number that arrived at an application, if anybody counted.
    pub(super) async fn end(&self) -> Result<Option<Vec<u64>>, DrillError> {
        let mut stage = self.stage.lock().await;
        let has_apps = stage.has_apps();
        let (arrived, open) = stage.end().await?;
        self.notes.borrow_mut().kills.extend(open);
        Ok(has_apps.then_some(arrived))
    }
}

/// Whether two changes are of the same services to the same colors.
fn is_same(one: &[(u8, Color)], other: &[(u8, Color)]) -> bool {
    one.len() == other.len() && one.iter().all(|it| other.contains(it))
}
