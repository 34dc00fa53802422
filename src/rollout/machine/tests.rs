//! Rules one by one, and a random walk over plans, faults and crashes against a model of the world.

use std::time::Duration;

use super::*;
use crate::rollout::plan::{Call, Promote, Retry, SetPool, Stage, Target, Undo};

fn call() -> Action {
    Action::Call(Call {
        target: Target::Url("http://127.0.0.1:1/".to_owned()),
        method: "POST".to_owned(),
        headers: Vec::new(),
        body: None,
        status: Vec::new(),
        condition: None,
        save: Vec::new(),
        timeout: Duration::from_secs(1),
    })
}

fn undo(if_failed: IfFailed) -> Undo {
    Undo { action: call(), deadline: None, retry: Retry::default(), idempotent: true, if_failed }
}

fn with_undo(name: &str, if_failed: IfFailed) -> Stage {
    Stage { undo: Some(undo(if_failed)), ..Stage::new(name, call()) }
}

fn plan(stages: Vec<Stage>) -> Plan {
    Plan { name: "test".to_owned(), stages, ..Plan::built_in() }
}

/// Two stages that can be undone, the promotion, and one more.
fn story() -> Plan {
    plan(vec![
        with_undo("pause", IfFailed::Stop),
        with_undo("start", IfFailed::Stop),
        Stage::new("promote", Action::Promote(Promote::default())),
        with_undo("stop", IfFailed::Stop),
    ])
}

struct Run<'p> {
    machine: Machine<'p>,
}

impl Run<'_> {
    fn tell(&mut self, event: &Event) {
        let shown = format!("{event:?}");
        self.machine.apply(event, 1).unwrap_or_else(|why| panic!("{shown}: {why}"));
    }

    fn done(&mut self, step: Step) {
        self.tell(&Event::Began(step));
        self.end(step);
    }

    fn end(&mut self, step: Step) {
        self.tell(&Event::Done { step, saved: std::collections::BTreeMap::new(), note: None });
    }

    fn fails(&mut self, step: Step, failure: Failure) {
        self.tell(&Event::Began(step));
        self.tell(&Event::Failed { step, failure });
    }

    fn promoted(&mut self, stage: usize) {
        let step = Step::forward(stage);
        self.tell(&Event::Began(step));
        self.tell(&Event::Made(step));
        self.end(step);
    }
}

fn run(plan: &Plan) -> Run<'_> {
    Run { machine: Machine::new(plan) }
}

fn maybe() -> Failure {
    Failure::maybe_done("it broke")
}

fn nothing() -> Failure {
    Failure::before_anything("it broke")
}

fn cancelled() -> Event {
    Event::Cancelled { by: "me".to_owned(), reason: None }
}

#[test]
fn what_was_done_is_undone_in_the_reverse_order() {
    let plan = story();
    let mut run = run(&plan);
    run.done(Step::forward(0));
    // It may have run, so it is undone too.
    run.fails(Step::forward(1), maybe());
    assert_eq!(run.machine.next(), Next::Begin(Step::back(1)));
    run.done(Step::back(1));
    assert_eq!(run.machine.next(), Next::Begin(Step::back(0)));
    run.done(Step::back(0));
    assert_eq!(run.machine.next(), Next::Over(Outcome::Undone));
    assert_eq!(run.machine.cause(), Some(Cause::Failure));
}

#[test]
fn a_stage_that_has_certainly_done_nothing_is_not_undone() {
    let plan = story();
    let mut run = run(&plan);
    run.done(Step::forward(0));
    run.fails(Step::forward(1), Failure { by_gate: true, ..nothing() });
    assert_eq!(run.machine.next(), Next::Begin(Step::back(0)));
    run.done(Step::back(0));
    assert_eq!(run.machine.cause(), Some(Cause::Gate));
}

#[test]
fn an_undo_that_fails_stops_everything_until_it_is_tried_again() {
    let plan = story();
    let mut run = run(&plan);
    run.done(Step::forward(0));
    run.done(Step::forward(1));
    run.fails(Step::forward(2), nothing());
    run.fails(Step::back(1), maybe());
    assert_eq!(run.machine.next(), Next::Person(Stuck::Undo));
    assert!(run.machine.has_something_left());
    let begun = run.machine.apply(&Event::Began(Step::back(0)), 1);
    assert_eq!(begun, Err(Impossible::OtherPoint(Step::back(0))), "workers must not be resumed");
    run.tell(&Event::Retried { by: "me".to_owned() });
    assert_eq!(run.machine.next(), Next::Begin(Step::back(1)));
    run.done(Step::back(1));
    run.done(Step::back(0));
    assert_eq!(run.machine.next(), Next::Over(Outcome::Undone));
}

#[test]
fn where_the_order_does_not_matter_the_others_are_undone_before_a_person_is_needed() {
    let plan = plan(vec![with_undo("a", IfFailed::Stop), with_undo("b", IfFailed::Continue)]);
    let mut run = run(&plan);
    run.done(Step::forward(0));
    run.fails(Step::forward(1), maybe());
    run.fails(Step::back(1), maybe());
    assert_eq!(run.machine.next(), Next::Begin(Step::back(0)));
    run.done(Step::back(0));
    assert_eq!(run.machine.next(), Next::Person(Stuck::Undo));
    run.tell(&cancelled());
    assert_eq!(run.machine.next(), Next::Over(Outcome::Cancelled));
    assert!(run.machine.has_something_left(), "the person has said that it is their business");
}

#[test]
fn after_the_promotion_the_plan_decides() {
    for (after_promotion, expected) in [
        (AfterPromotion::Rollback, Next::Begin(Step::back(3))),
        (AfterPromotion::Keep, Next::Person(Stuck::Kept)),
    ] {
        let plan = Plan { after_promotion, ..story() };
        let mut run = run(&plan);
        run.done(Step::forward(0));
        run.done(Step::forward(1));
        run.promoted(2);
        run.fails(Step::forward(3), maybe());
        assert_eq!(run.machine.next(), expected);
        if after_promotion == AfterPromotion::Keep {
            // A rollback by hand has everything undone.
            run.tell(&Event::TakenBack { reason: "by hand".to_owned() });
            assert_eq!(run.machine.next(), Next::Begin(Step::back(3)));
        }
        for stage in [3, 2] {
            run.tell(&Event::Began(Step::back(stage)));
            if stage == 2 {
                run.tell(&Event::Made(Step::back(stage)));
            }
            run.end(Step::back(stage));
        }
        run.done(Step::back(1));
        run.done(Step::back(0));
        assert_eq!(run.machine.next(), Next::Over(Outcome::Undone));
    }
}

#[test]
fn a_kept_promotion_goes_on_when_it_is_tried_again() {
    let plan = Plan { after_promotion: AfterPromotion::Keep, ..story() };
    let mut run = run(&plan);
    run.done(Step::forward(0));
    run.done(Step::forward(1));
    run.promoted(2);
    run.fails(Step::forward(3), maybe());
    run.tell(&Event::Retried { by: "me".to_owned() });
    assert_eq!((run.machine.cause(), run.machine.next()), (None, Next::Begin(Step::forward(3))));
    run.done(Step::forward(3));
    assert_eq!(run.machine.next(), Next::Over(Outcome::Done));
}

#[test]
fn a_gradual_promotion_that_is_not_complete_is_not_kept() {
    let steps = Promote { steps: vec![10, 100], ..Promote::default() };
    let mut plan = Plan { after_promotion: AfterPromotion::Keep, ..story() };
    plan.stages[2] = Stage::new("promote", Action::Promote(steps));
    let mut at_ten_percent = run(&plan);
    at_ten_percent.done(Step::forward(0));
    at_ten_percent.done(Step::forward(1));
    at_ten_percent.tell(&Event::Began(Step::forward(2)));
    at_ten_percent.tell(&Event::Made(Step::forward(2)));
    // A watch takes it back, or a person ends the rollout.
    for is_cancelled in [false, true] {
        let mut run = Run { machine: at_ten_percent.machine.clone() };
        if is_cancelled {
            run.tell(&Event::Cancelled { by: "me".to_owned(), reason: None });
        }
        run.tell(&Event::Failed { step: Step::forward(2), failure: maybe() });
        assert_eq!(run.machine.next(), Next::Begin(Step::back(2)), "{is_cancelled}");
        run.done(Step::back(2));
        assert_eq!(run.machine.next(), Next::Begin(Step::back(1)), "{is_cancelled}");
    }
    // When it is complete, it is kept.
    at_ten_percent.end(Step::forward(2));
    at_ten_percent.fails(Step::forward(3), maybe());
    assert_eq!(at_ten_percent.machine.next(), Next::Person(Stuck::Kept));
}

#[test]
fn a_promotion_that_was_taken_back_is_noticed_in_the_middle_of_a_stage() {
    let plan = Plan { after_promotion: AfterPromotion::Keep, ..story() };
    let mut run = run(&plan);
    run.done(Step::forward(0));
    run.done(Step::forward(1));
    run.promoted(2);
    assert!(run.machine.stands_promoted());
    run.tell(&Event::Began(Step::forward(3)));
    run.tell(&Event::TakenBack { reason: "by a watch".to_owned() });
    assert!(!run.machine.stands_promoted(), "it is noticed once");
    assert_eq!(run.machine.next(), Next::Stop(Step::forward(3)));
    run.tell(&Event::Failed { step: Step::forward(3), failure: maybe() });
    assert_eq!(run.machine.next(), Next::Begin(Step::back(3)), "there is nothing to keep");
    assert_eq!(run.machine.cause(), Some(Cause::TakenBack));
}

#[test]
fn a_cancelled_rollout_is_undone_also_if_its_stage_succeeds_meanwhile() {
    let plan = story();
    let mut run = run(&plan);
    run.done(Step::forward(0));
    run.tell(&Event::Began(Step::forward(1)));
    run.tell(&cancelled());
    assert_eq!(run.machine.next(), Next::Stop(Step::forward(1)));
    assert_eq!(run.machine.apply(&cancelled(), 1), Err(Impossible::Undoing), "once");
    run.end(Step::forward(1));
    assert_eq!(run.machine.next(), Next::Begin(Step::back(1)));
    assert_eq!(run.machine.apply(&cancelled(), 1), Err(Impossible::Undoing));
    run.done(Step::back(1));
    run.done(Step::back(0));
    assert_eq!(run.machine.next(), Next::Over(Outcome::Cancelled));
    assert_eq!(run.machine.apply(&cancelled(), 1), Err(Impossible::Over));
}

#[test]
fn an_interrupted_stage_is_undone_or_waits_for_a_person() {
    let interrupted = Failure { interrupted: true, ..maybe() };
    let plan = story();
    let mut one = run(&plan);
    one.fails(Step::forward(0), interrupted.clone());
    assert_eq!(one.machine.next(), Next::Begin(Step::back(0)));
    let plan = Plan { if_interrupted: IfInterrupted::Wait, ..story() };
    let mut two = run(&plan);
    two.fails(Step::forward(0), interrupted.clone());
    assert_eq!(two.machine.next(), Next::Person(Stuck::Interrupted));
    two.tell(&Event::Retried { by: "me".to_owned() });
    assert_eq!(two.machine.next(), Next::Begin(Step::forward(0)));
    two.fails(Step::forward(0), interrupted);
    two.tell(&cancelled());
    assert_eq!(two.machine.next(), Next::Begin(Step::back(0)));
}

#[test]
fn an_approval_is_for_the_stage_that_waits_for_it() {
    let plan = plan(vec![Stage::new("ask", Action::Approve), with_undo("a", IfFailed::Stop)]);
    let approved = Event::Approved { by: "me".to_owned(), stage: None };
    let mut run = run(&plan);
    assert_eq!(run.machine.apply(&approved, 1), Err(Impossible::NothingToApprove));
    run.tell(&Event::Began(Step::forward(0)));
    assert_eq!((run.machine.state(), run.machine.waits_for_approval()), ("waiting", Some(0)));
    run.tell(&approved);
    assert_eq!((run.machine.state(), run.machine.waits_for_approval()), ("running", None));
    assert_eq!(run.machine.apply(&approved, 1), Err(Impossible::NothingToApprove));
    assert!(run.machine.stages()[0].is_approved);
}

#[test]
fn a_stage_of_flipgate_itself_is_undone_only_if_it_was_made() {
    let pool = || Stage::new("pool", Action::Pool(SetPool::default()));
    let plan = plan(vec![pool(), with_undo("a", IfFailed::Stop)]);
    let mut made = run(&plan);
    made.tell(&Event::Began(Step::forward(0)));
    made.tell(&Event::Made(Step::forward(0)));
    made.tell(&Event::Failed { step: Step::forward(0), failure: maybe() });
    assert_eq!(made.machine.next(), Next::Begin(Step::back(0)), "it was not healthy in time");
    let mut refused = run(&plan);
    refused.fails(Step::forward(0), maybe());
    assert_eq!(refused.machine.next(), Next::Over(Outcome::Undone));
}

#[test]
fn a_record_that_contradicts_itself_is_refused() {
    let plan = story();
    let entry = |event| Entry { at: 1, event };
    let step = Step::forward(0);
    let done = || Event::Done { step, saved: std::collections::BTreeMap::new(), note: None };
    for wrong in [
        vec![done()],
        vec![Event::Began(Step::forward(1))],
        vec![Event::Began(Step::back(0))],
        vec![Event::Began(Step::forward(9))],
        vec![Event::Began(step), done(), done()],
        vec![Event::Retried { by: "me".to_owned() }],
    ] {
        let last = wrong.len() - 1;
        let entries: Vec<_> = wrong.into_iter().map(entry).collect();
        let found = Machine::replay(&plan, &entries).map_err(|it| it.0);
        assert_eq!(found.err(), Some(last), "{entries:?}");
    }
}

/// The world of a random walk: what was really done.
struct World {
    done: Vec<bool>,
    /// What the executor of a living process has begun.
    runs: Option<Step>,
}

fn random_plan(random: &mut fastrand::Rng) -> Plan {
    let count = random.usize(1..7);
    let promotion = random.usize(..count + 2);
    let mut stage = |place: usize| {
        if place == promotion {
            return Stage::new("promote", Action::Promote(Promote::default()));
        }
        let if_failed = if random.bool() { IfFailed::Stop } else { IfFailed::Continue };
        let action = match random.usize(..4) {
            0 => Action::Pool(SetPool::default()),
            1 => Action::Approve,
            _ => call(),
        };
        let is_own = !matches!(action, Action::Call(_));
        let undo = (!is_own && random.u8(..4) > 0).then(|| undo(if_failed));
        Stage {
            idempotent: is_own || random.bool(),
            undo,
            ..Stage::new(&place.to_string(), action)
        }
    };
    let stages = (0..count).map(&mut stage).collect();
    Plan {
        after_promotion: match random.bool() {
            true => AfterPromotion::Rollback,
            false => AfterPromotion::Keep,
        },
        if_interrupted: if random.bool() { IfInterrupted::Undo } else { IfInterrupted::Wait },
        ..plan(stages)
    }
}

/// What must hold in every state.
fn check(plan: &Plan, machine: &Machine<'_>, world: &World, before: &Next) {
    let undone = |place: usize| plan.stages[place].undoing().is_some();
    match machine.next() {
        Next::Begin(Step { stage, direction: Direction::Do }) => {
            assert!(machine.cause().is_none(), "nothing is begun that is to be undone");
            let earlier = &machine.stages()[..stage];
            let is_over =
                |it: &StageState| matches!(it.forward, Progress::Done { .. } | Progress::Skipped);
            assert!(earlier.iter().all(is_over), "in order");
        }
        Next::Begin(Step { stage, direction: Direction::Undo }) => {
            for later in stage + 1..plan.stages.len() {
                let is_open = world.done[later] && undone(later);
                let is_left = machine.stages()[later].back.has_failed();
                assert!(!is_open || is_left, "stage {later} before stage {stage}");
                let stops = plan.stages[later].undo.as_ref().map(|it| it.if_failed);
                let goes_on = stops == Some(IfFailed::Continue);
                assert!(!is_left || goes_on, "a failed undo stops the others");
            }
            let keeps = plan.after_promotion == AfterPromotion::Keep && machine.is_promoted();
            assert!(!keeps, "what is kept is not undone");
        }
        Next::Over(Outcome::Undone) => {
            for (place, done) in world.done.iter().enumerate() {
                assert!(!done || !undone(place), "stage {place} was left");
            }
            assert!(!machine.has_something_left());
        }
        Next::Over(Outcome::Done) => {
            let stages = machine.stages().iter();
            let mut stages = stages.map(|it| &it.forward);
            assert!(stages.all(|it| matches!(it, Progress::Done { .. } | Progress::Skipped)));
        }
        Next::Over(Outcome::Cancelled) if !machine.has_something_left() => {
            for (place, done) in world.done.iter().enumerate() {
                assert!(
                    !done || !undone(place),
                    "stage {place} was left, and the rollout does not say so"
                );
            }
        }
        _ => {}
    }
    if let Next::Over(_) = before {
        assert_eq!(machine.next(), *before, "what is over stays so");
    }
}

/// Prints a walk, if it panics.
struct Shown<'w>(u64, &'w Plan, &'w [Entry]);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        let Self(seed, plan, entries) = self;
        let stage =
            |it: &Stage| (it.action.kind(), it.idempotent, it.undo.as_ref().map(|it| it.if_failed));
        let stages: Vec<_> = plan.stages.iter().map(stage).collect();
        let events: Vec<_> = entries.iter().map(|it| &it.event).collect();
        eprintln!("seed {seed}: {:?} {stages:?}\n{events:#?}", plan.after_promotion);
    }
}

/// One rollout with random faults. Returns how often the process was killed.
fn walk(seed: u64) -> usize {
    let mut random = fastrand::Rng::with_seed(seed);
    let plan = random_plan(&mut random);
    let mut entries: Vec<Entry> = Vec::new();
    let mut world = World { done: vec![false; plan.stages.len()], runs: None };
    let (mut crashes, mut faults) = (0, random.usize(..6));
    for _ in 0..200 {
        let machine = Machine::replay(&plan, &entries)
            .unwrap_or_else(|why| panic!("seed {seed}: {why:?} in {entries:?}"));
        let before = machine.next();
        let mut write = |event: Event, world: &World| {
            let mut next = Machine::replay(&plan, &entries).expect("it was replayed before");
            if next.apply(&event, 1).is_ok() {
                entries.push(Entry { at: 1, event });
                let shown = Shown(seed, &plan, &entries);
                check(&plan, &next, world, &before);
                std::mem::forget(shown);
            }
        };
        let mut fault = |random: &mut fastrand::Rng| {
            let is_one = faults > 0 && random.u8(..3) == 0;
            faults -= usize::from(is_one);
            is_one
        };
        if random.u8(..12) == 0 {
            // A person, or another change.
            let event = match random.u8(..4) {
                0 => cancelled(),
                1 => Event::TakenBack { reason: "by hand".to_owned() },
                2 => Event::Approved { by: "me".to_owned(), stage: None },
                _ => Event::Retried { by: "me".to_owned() },
            };
            let is_sensible =
                !matches!(event, Event::TakenBack { .. }) || machine.stands_promoted();
            if is_sensible {
                write(event, &world);
            }
            continue;
        }
        if random.u8(..15) == 0 && fault(&mut random) {
            // The process is killed: what ran may have been done or not.
            crashes += 1;
            if let Some(Step { stage, direction }) = world.runs.take()
                && matches!(plan.stages[stage].action, Action::Call(_))
                && random.bool()
            {
                world.done[stage] = direction == Direction::Do;
            }
            continue;
        }
        match before {
            Next::Over(_) => return crashes,
            Next::Person(_) => write(Event::Retried { by: "me".to_owned() }, &world),
            Next::Begin(step) => {
                write(Event::Began(step), &world);
                world.runs = Some(step);
            }
            Next::Stop(step) => {
                if matches!(plan.stages[step.stage].action, Action::Call(_)) && random.bool() {
                    world.done[step.stage] = true;
                }
                world.runs = None;
                write(Event::Failed { step, failure: maybe() }, &world);
            }
            Next::Continue(step) if world.runs != Some(step) => {
                // A new process: as the executor resumes.
                let stage = &plan.stages[step.stage];
                let is_harmless = match (step.direction, &stage.undo) {
                    (Direction::Do, _) => stage.idempotent,
                    (Direction::Undo, Some(undo)) => undo.idempotent,
                    (Direction::Undo, None) => true,
                };
                match is_harmless {
                    true => {
                        write(Event::Repeated(step), &world);
                        world.runs = Some(step);
                    }
                    false => {
                        let failure = Failure { interrupted: true, ..maybe() };
                        write(Event::Failed { step, failure }, &world);
                    }
                }
            }
            Next::Continue(step) => {
                let stage = &plan.stages[step.stage];
                let is_call = matches!(stage.action, Action::Call(_));
                let is_approve = matches!(stage.action, Action::Approve);
                if is_approve && !machine.stages()[step.stage].is_approved && random.bool() {
                    write(Event::Approved { by: "me".to_owned(), stage: None }, &world);
                    continue;
                }
                let effect = step.direction == Direction::Do;
                if fault(&mut random) {
                    world.runs = None;
                    let failure = if random.bool() { nothing() } else { maybe() };
                    if is_call && !failure.nothing_done && random.bool() {
                        world.done[step.stage] = effect;
                    }
                    write(Event::Failed { step, failure }, &world);
                    continue;
                }
                match is_call {
                    true => world.done[step.stage] = effect,
                    // Committed together with the change.
                    false if !is_approve => {
                        if machine.stages()[step.stage].is_made != effect {
                            world.done[step.stage] = effect;
                            write(Event::Made(step), &world);
                            continue;
                        }
                    }
                    false => {}
                }
                world.runs = None;
                let done =
                    Event::Done { step, saved: std::collections::BTreeMap::new(), note: None };
                write(done, &world);
            }
        }
    }
    panic!("seed {seed}: the rollout does not end: {entries:?}");
}

#[test]
fn whatever_fails_the_world_is_as_before_or_the_rollout_says_what_is_left() {
    let first = fastrand::u64(..);
    let mut crashes = 0;
    for seed in 0..20_000 {
        let seed = first.wrapping_add(seed);
        let walked = std::panic::catch_unwind(|| walk(seed));
        crashes += walked.unwrap_or_else(|_| panic!("the walk with seed {seed} failed, see above"));
    }
    assert!(crashes > 500, "{crashes} crashes");
}
