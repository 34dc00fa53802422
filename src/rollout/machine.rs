//! The state machine of a rollout: events in, the next action out. Pure: the executor does what it says, and writes what
//! happened.
//!
//! # Rules
//!
//! - Stages are done in order. After a failure, all that may have been done is undone in the reverse order.
//! - A stage of uncertain outcome may have been done, so it is undone too.
//! - An undo that fails stops everything, unless its plan says that the order does not matter. A person decides then.
//! - After the promotion, a failure leads to its rollback, or everything stays as it is: by the word of the plan.
//! - If someone else takes the promotion back, there is nothing to keep: everything is undone.

use super::{
    event::{ChildId, Direction, Entry, Event, Failure, Step},
    plan::{Action, AfterPromotion, IfFailed, IfInterrupted, Plan, Stage},
};

/// Where a rollout is.
#[derive(Clone, Debug)]
pub struct Machine<'p> {
    plan: &'p Plan,
    stages: Vec<StageState>,
    mode: Mode,
    /// Why everything is undone.
    cause: Option<Cause>,
    /// A person has ended it.
    is_cancelled: bool,
    /// Someone else has taken the promotion back.
    is_taken_back: bool,
}

/// Where a stage is.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct StageState {
    /// Doing it.
    pub forward: Progress,
    /// Undoing it.
    pub back: Progress,
    /// Whether its change of Flipgate's own state was made and not taken back.
    pub is_made: bool,
    /// Whether a person has approved it.
    pub is_approved: bool,
    /// Whether an earlier attempt may have done something, whatever the last one did.
    pub may_have_run: bool,
}

/// Where the doing or the undoing of a stage is.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Progress {
    /// It has not begun.
    #[default]
    Pending,
    /// It may run.
    Running {
        /// When it began, in milliseconds of Unix time.
        since: u64,
        /// The helper of its command.
        child: Option<ChildId>,
    },
    /// It has succeeded.
    Done {
        /// When it began and ended, in milliseconds of Unix time.
        time: (u64, u64),
        /// What was found.
        note: Option<String>,
    },
    /// It has failed.
    Failed {
        /// When it began and ended, in milliseconds of Unix time.
        time: (u64, u64),
        /// Why.
        failure: Failure,
    },
    /// It is not needed.
    Skipped,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Mode {
    Forward,
    Back,
    /// A person decides.
    Stuck(Stuck),
    Over(Outcome),
}

/// What a person decides about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stuck {
    /// A stage was interrupted and cannot be repeated.
    Interrupted,
    /// A stage after the promotion has failed, and everything stays.
    Kept,
    /// An undo has failed.
    Undo,
}

/// How a rollout has ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// All stages are done.
    Done,
    /// All stages are undone.
    Undone,
    /// A person has ended it. Not everything need be undone.
    Cancelled,
}

/// Why everything is undone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cause {
    /// A gate has refused the promotion.
    Gate,
    /// A stage has failed.
    Failure,
    /// A person has ended the rollout.
    Cancelled,
    /// The promotion was taken back by someone else.
    TakenBack,
}

/// What comes next.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Next {
    /// A stage, or its undo, begins.
    Begin(Step),
    /// It goes on: it has begun already.
    Continue(Step),
    /// It has to end, since everything is to be undone: the executor writes that it has failed.
    Stop(Step),
    /// A person decides.
    Person(Stuck),
    /// Nothing.
    Over(Outcome),
}

/// Why an event is not possible now.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Impossible {
    /// The rollout is over.
    #[error("the rollout is over")]
    Over,
    /// No stage waits for an approval.
    #[error("no stage waits for an approval")]
    NothingToApprove,
    /// Another stage waits for an approval.
    #[error("another stage waits for an approval; look at the rollout again")]
    OtherApproval,
    /// It was tried too often.
    #[error("it was tried too often; cancel it")]
    TooOften,
    /// Nothing has failed that could be tried again.
    #[error("nothing waits to be tried again")]
    NothingToRetry,
    /// The rollout is undone already.
    #[error("the rollout is being undone already")]
    Undoing,
    /// The stage is not at that point.
    #[error("stage {} is at another point", .0.stage)]
    OtherPoint(Step),
}

// === impl Machine ===

impl<'p> Machine<'p> {
    /// The machine of a rollout that has just begun.
    #[must_use]
    pub fn new(plan: &'p Plan) -> Self {
        let stages = vec![StageState::default(); plan.stages.len()];
        Self {
            plan,
            stages,
            mode: Mode::Forward,
            cause: None,
            is_cancelled: false,
            is_taken_back: false,
        }
    }

    /// The machine after these events.
    ///
    /// # Errors
    ///
    /// The first event that is not possible, and why.
    pub fn replay(plan: &'p Plan, entries: &[Entry]) -> Result<Self, (usize, Impossible)> {
        let mut machine = Self::new(plan);
        for (place, Entry { at, event }) in entries.iter().enumerate() {
            machine.apply(event, *at).map_err(|why| (place, why))?;
        }
        Ok(machine)
    }

    /// The stages.
    #[must_use]
    pub fn stages(&self) -> &[StageState] {
        &self.stages
    }

    /// Where the rollout is, in a word: `running`, `waiting` (for an approval), `undoing`, `stuck`, `done`, `undone` or
    /// `cancelled`.
    #[must_use]
    pub fn state(&self) -> &'static str {
        match self.next() {
            Next::Over(outcome) => outcome.word(),
            Next::Person(_) => "stuck",
            Next::Stop(_) => "undoing",
            Next::Begin(_) | Next::Continue(_) if self.is_undoing() => "undoing",
            Next::Begin(_) | Next::Continue(_) => match self.waits_for_approval() {
                Some(_) => "waiting",
                None => "running",
            },
        }
    }

    /// Why everything is undone, if it is.
    #[must_use]
    pub fn cause(&self) -> Option<Cause> {
        self.cause
    }

    /// Whether stages are undone.
    #[must_use]
    pub fn is_undoing(&self) -> bool {
        self.mode == Mode::Back || self.mode == Mode::Stuck(Stuck::Undo)
    }

    /// Whether the candidates are active by this rollout. During a gradual promotion they are not.
    #[must_use]
    pub fn is_promoted(&self) -> bool {
        let is_active = |(stage, state): (&Stage, &StageState)| match &stage.action {
            Action::Promote(it) if it.steps.is_empty() => state.is_made,
            Action::Promote(_) => state.is_made && matches!(state.forward, Progress::Done { .. }),
            _ => false,
        };
        !self.is_taken_back && self.plan.stages.iter().zip(&self.stages).any(is_active)
    }

    /// Whether a promotion has ended well and stands, as far as the rollout knows.
    #[must_use]
    pub fn stands_promoted(&self) -> bool {
        let is_done = |it: &StageState| matches!(it.forward, Progress::Done { .. });
        let is_over = matches!(self.mode, Mode::Over(_));
        let is_open = |it: &StageState| it.is_made && it.back == Progress::Pending;
        !is_over && !self.is_taken_back && self.promotions().any(|it| is_done(it) && is_open(it))
    }

    fn promotions(&self) -> impl Iterator<Item = &StageState> {
        let stages = self.stages.iter().zip(&self.plan.stages);
        stages.filter(|(_, it)| matches!(it.action, Action::Promote(_))).map(|it| it.0)
    }

    /// Whether the stage that runs waits for a person.
    #[must_use]
    pub fn waits_for_approval(&self) -> Option<usize> {
        let is_waiting = |(stage, state): &(usize, &StageState)| {
            let is_approve = matches!(self.plan.stages[*stage].action, Action::Approve);
            is_approve && state.forward.is_running() && !state.is_approved
        };
        let found = self.stages.iter().enumerate().find(is_waiting).map(|it| it.0);
        found.filter(|_| self.mode == Mode::Forward && !self.is_cancelled)
    }

    /// Whether something that may have been done is not undone.
    #[must_use]
    pub fn has_something_left(&self) -> bool {
        let is_left = |stage: usize| match &self.stages[stage].back {
            Progress::Failed { .. } => true,
            Progress::Pending => self.needs_undo(stage),
            _ => false,
        };
        self.cause.is_some() && (0..self.stages.len()).any(is_left)
    }

    /// What comes next.
    #[must_use]
    pub fn next(&self) -> Next {
        match self.mode {
            Mode::Over(outcome) => Next::Over(outcome),
            Mode::Stuck(stuck) => Next::Person(stuck),
            Mode::Forward => self.next_forward(),
            Mode::Back => self.next_back(),
        }
    }

    fn next_forward(&self) -> Next {
        for (stage, state) in self.stages.iter().enumerate() {
            match state.forward {
                Progress::Pending => return Next::Begin(Step::forward(stage)),
                Progress::Running { .. } if self.cause.is_some() => {
                    return Next::Stop(Step::forward(stage));
                }
                Progress::Running { .. } => return Next::Continue(Step::forward(stage)),
                Progress::Done { .. } | Progress::Skipped | Progress::Failed { .. } => {}
            }
        }
        Next::Over(Outcome::Done)
    }

    fn next_back(&self) -> Next {
        for stage in (0..self.stages.len()).rev() {
            let state = &self.stages[stage];
            match &state.back {
                Progress::Running { .. } => return Next::Continue(Step::back(stage)),
                Progress::Pending if self.needs_undo(stage) => {
                    return Next::Begin(Step::back(stage));
                }
                _ => {}
            }
        }
        // `settle` has turned this into an end already.
        Next::Over(Outcome::Undone)
    }

    /// Whether a stage may have done something that can be undone.
    #[must_use]
    pub fn needs_undo(&self, stage: usize) -> bool {
        let state = &self.stages[stage];
        let may_have_run = match &state.forward {
            Progress::Done { .. } | Progress::Running { .. } => true,
            Progress::Failed { failure, .. } => !failure.nothing_done || state.is_made,
            Progress::Pending | Progress::Skipped => state.may_have_run,
        };
        let stage = &self.plan.stages[stage];
        match &stage.undo {
            Some(_) => may_have_run,
            // What Flipgate has done to its own state is known.
            None => state.is_made && stage.action.is_undone_by_itself(),
        }
    }

    /// Applies an event.
    ///
    /// # Errors
    ///
    /// [`Impossible`], and nothing has changed.
    pub fn apply(&mut self, event: &Event, at: u64) -> Result<(), Impossible> {
        if let Mode::Over(_) = self.mode {
            return Err(Impossible::Over);
        }
        match event {
            Event::Began(step) => {
                let is_next = self.next() == Next::Begin(*step);
                let progress = self.progress(*step)?;
                if !is_next {
                    return Err(Impossible::OtherPoint(*step));
                }
                *progress = Progress::Running { since: at, child: None };
            }
            Event::Repeated(step) => {
                self.progress(*step)?.running(*step)?;
                self.stages[step.stage].may_have_run |= step.direction == Direction::Do;
            }
            Event::Child { step, child } => match self.progress(*step)? {
                Progress::Running { child: known, .. } => *known = Some(child.clone()),
                _ => return Err(Impossible::OtherPoint(*step)),
            },
            Event::Made(step) => {
                self.progress(*step)?.running(*step)?;
                let is_made = step.direction == Direction::Do;
                self.stages[step.stage].is_made = is_made;
            }
            Event::Done { step, saved: _, note } => {
                let since = self.progress(*step)?.running(*step)?;
                let note = note.clone();
                *self.progress(*step)? = Progress::Done { time: (since, at), note };
                if self.cause.is_some() && self.mode == Mode::Forward {
                    self.turn_back();
                }
            }
            Event::Failed { step, failure } => self.fail(*step, failure, at)?,
            Event::Skipped { stage } => {
                let step = Step::forward(*stage);
                if self.next() != Next::Begin(step) {
                    return Err(Impossible::OtherPoint(step));
                }
                self.stages[*stage].forward = Progress::Skipped;
            }
            Event::Approved { by: _, stage: named } => {
                let waiting = self.waits_for_approval();
                let meant = waiting.filter(|it| named.is_none_or(|named| named == *it));
                let stage = meant.ok_or(match waiting {
                    Some(_) => Impossible::OtherApproval,
                    None => Impossible::NothingToApprove,
                })?;
                self.stages[stage].is_approved = true;
            }
            Event::Cancelled { .. } => self.cancel()?,
            Event::Retried { .. } => self.retry()?,
            Event::TakenBack { .. } => self.take_back(),
        }
        self.settle();
        Ok(())
    }

    fn fail(&mut self, step: Step, failure: &Failure, at: u64) -> Result<(), Impossible> {
        let since = self.progress(step)?.running(step)?;
        let mut failure = failure.clone();
        failure.nothing_done &= !self.stages[step.stage].may_have_run;
        let (by_gate, interrupted) = (failure.by_gate, failure.interrupted);
        *self.progress(step)? = Progress::Failed { time: (since, at), failure };
        if step.direction == Direction::Undo {
            let undo = self.plan.stages[step.stage].undo.as_ref();
            let if_failed = undo.map(|it| it.if_failed).unwrap_or_default();
            if if_failed == IfFailed::Stop {
                self.mode = Mode::Stuck(Stuck::Undo);
            }
            return Ok(());
        }
        let waits =
            interrupted && self.cause.is_none() && self.plan.if_interrupted == IfInterrupted::Wait;
        if waits {
            self.mode = Mode::Stuck(Stuck::Interrupted);
            return Ok(());
        }
        self.cause.get_or_insert(if by_gate { Cause::Gate } else { Cause::Failure });
        self.turn_back();
        Ok(())
    }

    /// Begins the undoing, or keeps everything as it is.
    fn turn_back(&mut self) {
        let keeps = self.plan.after_promotion == AfterPromotion::Keep && self.is_promoted();
        self.mode = match (keeps, self.is_cancelled) {
            (false, _) => Mode::Back,
            (true, false) => Mode::Stuck(Stuck::Kept),
            (true, true) => Mode::Over(Outcome::Cancelled),
        };
    }

    fn cancel(&mut self) -> Result<(), Impossible> {
        match self.mode {
            Mode::Back => return Err(Impossible::Undoing),
            // What is left is the business of the person.
            Mode::Stuck(Stuck::Undo | Stuck::Kept) => self.mode = Mode::Over(Outcome::Cancelled),
            Mode::Forward | Mode::Stuck(Stuck::Interrupted) => {
                if self.is_cancelled {
                    return Err(Impossible::Undoing);
                }
                self.is_cancelled = true;
                self.cause.get_or_insert(Cause::Cancelled);
                let is_running = self.stages.iter().any(|it| it.forward.is_running());
                if !is_running {
                    self.turn_back();
                }
            }
            Mode::Over(_) => return Err(Impossible::Over),
        }
        Ok(())
    }

    fn retry(&mut self) -> Result<(), Impossible> {
        match self.mode {
            Mode::Stuck(Stuck::Undo) => {
                for state in &mut self.stages {
                    if state.back.has_failed() {
                        state.back = Progress::Pending;
                    }
                }
                self.mode = Mode::Back;
            }
            Mode::Stuck(Stuck::Interrupted | Stuck::Kept) => {
                for state in &mut self.stages {
                    if let Progress::Failed { failure, .. } = &state.forward {
                        state.may_have_run |= !failure.nothing_done;
                        state.forward = Progress::Pending;
                    }
                }
                self.cause = None;
                self.mode = Mode::Forward;
            }
            Mode::Forward | Mode::Back => return Err(Impossible::NothingToRetry),
            Mode::Over(_) => return Err(Impossible::Over),
        }
        Ok(())
    }

    /// The promotion does not stand any more, so that there is nothing to keep.
    fn take_back(&mut self) {
        // Its undo rolls back those of its services that are still at it.
        self.is_taken_back = true;
        match self.mode {
            Mode::Forward => {
                self.cause.get_or_insert(Cause::TakenBack);
                if !self.stages.iter().any(|it| it.forward.is_running()) {
                    self.turn_back();
                }
            }
            Mode::Stuck(Stuck::Kept | Stuck::Interrupted) => {
                self.cause.get_or_insert(Cause::TakenBack);
                self.mode = Mode::Back;
            }
            Mode::Back | Mode::Stuck(Stuck::Undo) | Mode::Over(_) => {}
        }
    }

    /// Finds the end.
    fn settle(&mut self) {
        match self.mode {
            Mode::Forward if self.next_forward() == Next::Over(Outcome::Done) => {
                self.mode = Mode::Over(Outcome::Done);
            }
            Mode::Back if matches!(self.next_back(), Next::Over(_)) => {
                let is_left = self.stages.iter().any(|it| it.back.has_failed());
                self.mode = match (is_left, self.cause) {
                    (true, _) => Mode::Stuck(Stuck::Undo),
                    (false, Some(Cause::Cancelled)) => Mode::Over(Outcome::Cancelled),
                    (false, _) => Mode::Over(Outcome::Undone),
                };
            }
            _ => {}
        }
    }

    fn progress(&mut self, step: Step) -> Result<&mut Progress, Impossible> {
        let state = self.stages.get_mut(step.stage).ok_or(Impossible::OtherPoint(step))?;
        Ok(match step.direction {
            Direction::Do => &mut state.forward,
            Direction::Undo => &mut state.back,
        })
    }
}

// === impl Outcome ===

impl Outcome {
    /// The outcome in a word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Undone => "undone",
            Self::Cancelled => "cancelled",
        }
    }
}

// === impl Progress ===

impl Progress {
    fn running(&self, step: Step) -> Result<u64, Impossible> {
        match self {
            Self::Running { since, .. } => Ok(*since),
            _ => Err(Impossible::OtherPoint(step)),
        }
    }

    /// Whether it may run.
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(self, Self::Running { .. })
    }

    /// Whether it has failed.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        matches!(self, Self::Failed { .. })
    }
}

#[cfg(test)]
mod tests;
