//! Schedules health checks: one timer for all endpoints, a few checks in parallel, and a limit of checks per second.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::task::{Id, JoinSet};

use super::PoolKey;
use crate::{
    metrics::Metrics,
    model::Health,
    upstream::{EndpointState, FailureKind, HealthFailure, Pool, Pools},
};

/// The checks of all endpoints. Dropping it ends running checks.
pub(super) struct CheckScheduler {
    /// By the address of the endpoint state in memory, which the entry keeps from being reused.
    members: HashMap<usize, ScheduledEndpoint>,
    /// The endpoints of each pool.
    of_pool: HashMap<PoolKey, Vec<usize>>,
    lanes: [CheckQueue; CheckPriority::ALL.len()],
    running: JoinSet<CheckOutcome>,
    /// The endpoint of each running check, also of one that panics.
    of_task: HashMap<Id, RunningCheck>,
    metrics: Metrics,
}

/// A check that has begun and is not recorded yet.
struct RunningCheck {
    place: usize,
    /// Kept until the check is recorded, so that no other endpoint gets the same address in memory.
    member: Arc<EndpointState>,
    urgency: CheckPriority,
}

/// The due checks of one priority, and their rate.
struct CheckQueue {
    due: BinaryHeap<Reverse<(Instant, usize)>>,
    /// The shortest time between two checks.
    gap: Duration,
    /// When the next one may begin.
    free_at: Instant,
    /// Running checks.
    running: usize,
}

/// Why a check is due. Each priority has its own rate and reserved places, so that neither ten thousand stable
/// endpoints delay the check of a changing one, nor hundreds of silent endpoints delay all others.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum CheckPriority {
    /// The endpoint was never checked.
    First,
    /// It was never up, and refused the connection or responded badly: its application may be starting.
    Starting,
    /// Its health may be about to change.
    Unsettled,
    /// It is down, and may not respond until the timeout.
    Down,
    /// The interval is over.
    Regular,
}

struct ScheduledEndpoint {
    which: PoolKey,
    member: Arc<EndpointState>,
    /// When it is due, and why; other entries of the queue are outdated. `None` while a check runs.
    due: Option<(Instant, CheckPriority)>,
    /// The pool with the settings of the check.
    pool: Arc<Pool>,
    /// When its checks began.
    since: Instant,
}

type CheckOutcome = Option<Result<(), HealthFailure>>;

/// A finished check: its endpoint and its result.
pub(super) struct FinishedCheck {
    of: Option<RunningCheck>,
    found: CheckOutcome,
}

/// The most checks in parallel.
const TOGETHER: usize = 256;

/// Places that each priority has in any case.
const RESERVED: usize = 32;

/// How much earlier a check may be, in percent, so that replicas and endpoints do not check in step.
const JITTER: u32 = 10;

/// The longest time between two checks of an endpoint that was never up. A check that is refused or gets a response at
/// once finds an application within 250 ms of its start, even on a busy machine.
const STARTING: Duration = Duration::from_millis(100);

/// How long an endpoint with bad responses counts as starting. One that refuses connections counts without end: a
/// refused check disturbs no application.
const STARTING_FOR: Duration = Duration::from_secs(60);

/// The time between two first checks, so that a machine with many endpoints does not get all of them at once.
const FIRST_GAP: Duration = Duration::from_micros(200);

// === impl CheckPriority ===

impl CheckPriority {
    const ALL: [Self; 5] =
        [Self::First, Self::Starting, Self::Unsettled, Self::Down, Self::Regular];

    fn of(member: &EndpointState) -> Self {
        match member.health() {
            Health::Unknown => Self::First,
            // A silent endpoint takes the whole timeout; more frequent checks would not find it sooner.
            Health::Down
                if member.startup_failure().is_some_and(|it| it != FailureKind::Unresponsive) =>
            {
                Self::Starting
            }
            _ if member.is_transitioning() => Self::Unsettled,
            Health::Down => Self::Down,
            Health::Up => Self::Regular,
        }
    }
}

// === impl CheckScheduler ===

impl CheckScheduler {
    pub(super) fn new(per_second: u32, metrics: Metrics) -> Self {
        Self {
            members: HashMap::new(),
            of_pool: HashMap::new(),
            lanes: CheckPriority::ALL.map(|it| CheckQueue {
                due: BinaryHeap::new(),
                gap: match it {
                    CheckPriority::First => FIRST_GAP,
                    _ => Duration::from_secs(1) / per_second.max(1),
                },
                free_at: Instant::now(),
                running: 0,
            }),
            running: JoinSet::new(),
            of_task: HashMap::new(),
            metrics,
        }
    }

    /// Checks the endpoints of this pool from now on, instead of those before.
    pub(super) fn follow(&mut self, which: &PoolKey, pool: &Arc<Pool>, now: Instant) {
        let before = self.of_pool.remove(which).unwrap_or_default();
        let members = pool.endpoints();
        let places: Vec<_> = members.iter().map(|it| Arc::as_ptr(it).addr()).collect();
        let staying: HashSet<_> = places.iter().collect();
        for gone in before.iter().filter(|it| !staying.contains(it)) {
            self.members.remove(gone);
        }
        for (place, member) in places.iter().zip(members) {
            match self.members.get_mut(place) {
                Some(known) => {
                    let is_as_before = known.pool.policy().health == pool.policy().health;
                    known.pool = Arc::clone(pool);
                    // Changed settings are used at once.
                    if !is_as_before && known.due.is_some() {
                        self.schedule(*place, now);
                    }
                }
                None => {
                    let (which, pool) = (which.clone(), Arc::clone(pool));
                    let checked = ScheduledEndpoint { which, member, due: None, pool, since: now };
                    self.members.insert(*place, checked);
                    self.schedule(*place, now);
                }
            }
        }
        if !places.is_empty() {
            self.of_pool.insert(which.clone(), places);
        }
    }

    /// Ends the checks of this pool.
    pub(super) fn forget(&mut self, which: &PoolKey) {
        for place in self.of_pool.remove(which).unwrap_or_default() {
            self.members.remove(&place);
        }
    }

    /// Schedules checks soon for endpoints that requests could not connect to.
    pub(super) fn schedule_soon(&mut self, which: &PoolKey, pool: &Pool, now: Instant) {
        for place in self.of_pool.get(which).cloned().unwrap_or_default() {
            let Some(known) = self.members.get(&place) else { continue };
            let soon = now + jittered(pause(&known.member, pool, known.since, now));
            let is_early = known.due.is_none_or(|it| it.0 <= soon);
            if known.member.take_check_request() && !is_early {
                self.schedule(place, soon);
            }
        }
    }

    /// Starts due checks, and waits until one is finished. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> FinishedCheck {
        loop {
            let wait = self.start_due(Instant::now());
            tokio::select! {
                Some(joined) = self.running.join_next_with_id() => {
                    let (task, found) = match joined {
                        Ok((task, found)) => (task, found),
                        // A check that panicked has no result; the next one is scheduled as usual.
                        Err(error) => {
                            self.metrics.task_died("check");
                            (error.id(), None)
                        }
                    };
                    let of = self.of_task.remove(&task);
                    if let Some(RunningCheck { urgency, .. }) = &of {
                        self.lanes[*urgency as usize].running -= 1;
                    }
                    return FinishedCheck { of, found };
                }
                () = sleep_until(wait) => {}
            }
        }
    }

    /// Records the result of a check, and schedules the next one.
    pub(super) fn done(&mut self, done: FinishedCheck, pools: &Pools) {
        let FinishedCheck { of: Some(RunningCheck { place, member, .. }), found } = done else {
            return;
        };
        let known = self.members.get(&place).filter(|it| Arc::ptr_eq(&it.member, &member));
        let Some(ScheduledEndpoint { which, since, .. }) = known else { return };
        let Some(pools) = pools.get(&which.0) else { return };
        let pool = Arc::clone(pools.pool(which.1));
        if let Some(found) = found {
            pool.record_check(&member, found);
        }
        let now = Instant::now();
        let pause = jittered(pause(&member, &pool, *since, now));
        self.schedule(place, now + pause);
    }

    fn schedule(&mut self, place: usize, due: Instant) {
        if let Some(known) = self.members.get_mut(&place) {
            let urgency = CheckPriority::of(&known.member);
            known.due = Some((due, urgency));
            self.lanes[urgency as usize].due.push(Reverse((due, place)));
        }
    }

    /// Starts due checks up to the limits. Returns when there is more to start.
    fn start_due(&mut self, now: Instant) -> Option<Instant> {
        let waits = CheckPriority::ALL.map(|it| self.start_due_of(it, now));
        waits.into_iter().flatten().min()
    }

    fn start_due_of(&mut self, urgency: CheckPriority, now: Instant) -> Option<Instant> {
        let Self { members, lanes, running, of_task, .. } = self;
        let others = CheckPriority::ALL.iter().filter(|it| **it != urgency);
        let kept = others.map(|it| lanes[*it as usize].running.max(RESERVED)).sum();
        let together = TOGETHER.saturating_sub(kept);
        let CheckQueue { due: waiting, gap, free_at, running: of_lane } =
            &mut lanes[urgency as usize];
        while *of_lane < together {
            let Reverse((due, place)) = *waiting.peek()?;
            let known = members.get_mut(&place).filter(|it| it.due == Some((due, urgency)));
            let Some(known) = known else {
                // It was rescheduled, or is gone.
                waiting.pop();
                continue;
            };
            let at = due.max(*free_at);
            if at > now {
                return Some(at);
            }
            waiting.pop();
            known.due = None;
            let (member, pool) = (Arc::clone(&known.member), Arc::clone(&known.pool));
            let of = RunningCheck { place, member: Arc::clone(&member), urgency };
            let check = async move { member.check(&pool.policy().health).await };
            of_task.insert(running.spawn(check).id(), of);
            *of_lane += 1;
            // Idle time earns at most a short burst.
            let earliest = now.checked_sub(Duration::from_millis(100)).unwrap_or(now);
            *free_at = (*free_at).max(earliest) + *gap;
        }
        None
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// The time to the next check of an endpoint that has been checked since `since`.
fn pause(member: &EndpointState, pool: &Pool, since: Instant, now: Instant) -> Duration {
    let pause = pool.policy().health.interval_for(member.needs_frequent_checks());
    match member.startup_failure() {
        Some(FailureKind::Refused) => pause.min(STARTING),
        Some(FailureKind::BadResponse) if now.saturating_duration_since(since) < STARTING_FOR => {
            pause.min(STARTING)
        }
        _ => pause,
    }
}

/// Earlier, but never later than configured.
fn jittered(pause: Duration) -> Duration {
    pause * (100 - fastrand::u32(0..=JITTER)) / 100
}

#[cfg(test)]
mod tests {
    use super::{
        super::samples::{deaths, metrics, pools},
        *,
    };
    use crate::model::Color;

    #[tokio::test]
    async fn a_check_that_panics_is_counted_and_the_next_one_comes_in_its_time() {
        let (pool, pools) = pools(&["unix:/nowhere/one.sock", "unix:/nowhere/two.sock"]);
        let which = ("web".parse().expect("a name"), Color::Blue);
        let metrics = metrics();
        let mut checks = CheckScheduler::new(1000, metrics.clone());
        checks.follow(&which, &pool, Instant::now());
        let [one, two] = &*checks.of_pool[&which] else { panic!("two members") };
        let (one, two) = (*one, *two);
        // As if the check of the first endpoint had been started.
        let known = checks.members.get_mut(&one).expect("known");
        known.due = None;
        let of = RunningCheck {
            place: one,
            member: Arc::clone(&known.member),
            urgency: CheckPriority::First,
        };
        let task = checks.running.spawn(async { panic!("planted") }).id();
        checks.of_task.insert(task, of);
        checks.lanes[CheckPriority::First as usize].running += 1;
        let began = Instant::now();
        let mut ended = Vec::new();
        for _ in 0..2 {
            let done = checks.next().await;
            ended.push((done.of.as_ref().expect("a member").place, done.found.is_some()));
            checks.done(done, &pools);
        }
        ended.sort_unstable();
        let mut expected = [(one, false), (two, true)];
        expected.sort_unstable();
        assert_eq!(ended, expected, "the check of the other one is not disturbed");
        assert_eq!(deaths(&metrics, "check"), 1);
        assert_eq!((checks.of_task.len(), checks.running.len()), (0, 0));
        let pause = pool.policy().health.interval_for(true) * (100 - JITTER) / 100;
        let (due, _) = checks.members[&one].due.expect("it is planned");
        assert!(due >= began + pause, "not at once");
    }

    #[tokio::test]
    async fn an_endpoint_that_was_never_up_is_checked_often_if_that_disturbs_no_application() {
        let (pool, pools) = pools(&["unix:/nowhere/one.sock"]);
        let member = &pool.endpoints()[0];
        let often = pool.policy().health.interval_for(true);
        assert!(often > STARTING, "or there is nothing to see");
        let now = Instant::now();
        let later = now + STARTING_FOR;
        let pauses = || [now, later].map(|at| pause(member, &pool, now, at));
        assert_eq!(pauses(), [often; 2], "not yet checked");
        pool.record_check(member, Err(HealthFailure::refused("refused")));
        assert_eq!(pauses(), [STARTING; 2]);
        assert_eq!(CheckPriority::of(member), CheckPriority::Starting);
        pool.record_check(member, Err(HealthFailure::bad_response("503")));
        assert_eq!(pauses(), [STARTING, often]);
        assert_eq!(CheckPriority::of(member), CheckPriority::Starting);
        pool.record_check(member, Err(HealthFailure::unresponsive("timeout")));
        assert_eq!(pauses(), [often; 2]);
        assert_eq!(
            CheckPriority::of(member),
            CheckPriority::Down,
            "it does not hold up those that answer"
        );
        pool.record_check(member, Ok(()));
        assert_eq!(pauses(), [pool.policy().health.interval; 2]);
        for _ in 0..pool.policy().health.fall {
            pool.record_check(member, Err(HealthFailure::refused("refused")));
        }
        assert_eq!(pauses(), [often; 2], "it was up: the usual pauses");
        assert_eq!(CheckPriority::of(member), CheckPriority::Down);
        drop(pools);
    }
}
