//! Who asks when: threads with clients that keep to a rate whatever the answers do, or that ask one after
//! the other.

use std::{
    io,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio::{
    runtime::{Builder, LocalOptions},
    task::JoinSet,
};

use super::{
    live::LiveCounters,
    options::{LoadMode, Mix},
    record::{Kind, Outcome, Request},
    traffic::{ServiceAddresses, Sizes, ThreadClients},
};
use crate::sample::now_ns;

/// What is to be asked.
#[derive(Clone, Debug)]
pub(super) struct LoadPlan {
    pub(super) mix: Mix,
    pub(super) sizes: Sizes,
    pub(super) threads: usize,
    pub(super) seed: u64,
    /// Bounds the number of requests, beside the time.
    pub(super) count: Option<u64>,
}

/// Threads that ask.
#[derive(Debug)]
pub(super) struct Load {
    threads: Vec<JoinHandle<io::Result<Vec<Request>>>>,
    stop: Arc<AtomicBool>,
}

/// What one thread does.
struct LoadThread {
    thread: usize,
    order: LoadPlan,
    pace: LoadMode,
    from: u64,
    until: u64,
    stop: Arc<AtomicBool>,
    left: Arc<AtomicU64>,
}

/// Requests that a thread may have under way at a rate that is kept.
const UNDER_WAY_MAX: usize = 5000;

/// Requests between two breaks of a thread that is behind.
const YIELD_EVERY: u64 = 16;

/// Requests that are remembered, over all threads: about two gigabytes.
pub(super) const REMEMBERED_MAX: u64 = 20_000_000;

/// How long one trial of what can be done takes, how many there are at most, and what is at once:
/// 20 ms, in nanoseconds.
const TRIAL: Duration = Duration::from_secs(1);
const TRIALS_MAX: usize = 16;
const AT_ONCE: u64 = 20_000_000;

// === impl Load ===

impl Load {
    /// Starts to ask at `from`, and to stop asking at `until`, both of [`now_ns`]. Each thread has clients
    /// of every one of `entrances`.
    pub(super) fn start(
        order: &LoadPlan,
        pace: LoadMode,
        (from, until): (u64, u64),
        entrances: impl Fn() -> Vec<ServiceAddresses>,
        live: &Arc<LiveCounters>,
    ) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let left =
            Arc::new(AtomicU64::new(order.count.unwrap_or(REMEMBERED_MAX).min(REMEMBERED_MAX)));
        let mut threads = Vec::new();
        for thread in 0..order.threads {
            let (entrances, live) = (entrances(), Arc::clone(live));
            let shift = LoadThread {
                thread,
                order: order.clone(),
                pace,
                from,
                until,
                stop: Arc::clone(&stop),
                left: Arc::clone(&left),
            };
            let builder = std::thread::Builder::new().name(format!("drill-{thread}"));
            threads.push(builder.spawn(move || shift.work(entrances, live))?);
        }
        Ok(Self { threads, stop })
    }

    /// Whether all that was to be asked is over.
    pub(super) fn is_over(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Asks for nothing more.
    pub(super) fn stop(&self) {
        self.stop.store(true, Relaxed);
    }

    /// Waits for what is under way, and returns all that was seen. Blocks the thread.
    pub(super) fn finish(self) -> io::Result<Vec<Request>> {
        let mut all = Vec::new();
        for thread in self.threads {
            let seen =
                thread.join().map_err(|_| io::Error::other("a thread of the load panicked"))?;
            all.extend(seen?);
        }
        Ok(all)
    }
}

// === impl LoadThread ===

impl LoadThread {
    fn work(
        self,
        entrances: Vec<ServiceAddresses>,
        live: Arc<LiveCounters>,
    ) -> io::Result<Vec<Request>> {
        let LoadPlan { sizes, seed, .. } = self.order;
        let thread = self.thread as u64;
        let clients = ThreadClients::new(thread, entrances, sizes, seed, live);
        let clients = Rc::new(clients);
        let runtime =
            Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
        runtime.block_on(async {
            match self.pace {
                LoadMode::Rate(rate) => self.keep_rate(rate, &clients).await,
                LoadMode::ThreadClients(count) => self.one_after_the_other(count, &clients).await,
            }
        });
        Ok(clients.seen.take())
    }

    /// Asks at even intervals, whether answers come or not, so that what a slow answer holds up is counted
    /// as late and not left out.
    async fn keep_rate(&self, rate: f64, clients: &Rc<ThreadClients>) {
        let mut random = fastrand::Rng::with_seed(self.order.seed ^ !(self.thread as u64));
        let mut tasks = JoinSet::new();
        let interval = 1e9 / rate;
        for turn in 0_u64.. {
            // Threads take turns. No run is long enough to tell the rounding.
            let place = (turn * self.order.threads as u64 + self.thread as u64) as f64;
            let due = self.from.saturating_add((place * interval) as u64);
            if due >= self.until || self.stop.load(Relaxed) || !self.take_one() {
                break;
            }
            sleep_until(due).await;
            if turn % YIELD_EVERY == 0 {
                // Whoever is behind does not sleep, and the others have to be served too.
                tokio::task::yield_now().await;
            }
            while tasks.try_join_next().is_some() {}
            let kind = self.order.mix.choose(&mut random);
            if tasks.len() >= UNDER_WAY_MAX {
                clients.leave_out(kind, due);
            } else {
                tasks.spawn_local(Rc::clone(clients).run(kind, due));
            }
        }
        while tasks.join_next().await.is_some() {}
    }

    async fn one_after_the_other(&self, count: usize, clients: &Rc<ThreadClients>) {
        let threads = self.order.threads;
        let own = count / threads + usize::from(self.thread < count % threads);
        let mut tasks = JoinSet::new();
        sleep_until(self.from).await;
        let shift = Rc::new(self.order.mix.clone());
        for client in 0..own {
            let (clients, mix) = (Rc::clone(clients), Rc::clone(&shift));
            let (until, stop, left) = (self.until, Arc::clone(&self.stop), Arc::clone(&self.left));
            let mut random = fastrand::Rng::with_seed(
                self.order.seed ^ ((client as u64) << 16) ^ ((self.thread as u64) << 40),
            );
            tasks.spawn_local(async move {
                while now_ns() < until && !stop.load(Relaxed) && take_one(&left) {
                    Rc::clone(&clients).run(mix.choose(&mut random), now_ns()).await;
                }
            });
        }
        while tasks.join_next().await.is_some() {}
    }

    fn take_one(&self) -> bool {
        take_one(&self.left)
    }
}

fn take_one(left: &AtomicU64) -> bool {
    left.fetch_update(Relaxed, Relaxed, |it| it.checked_sub(1)).is_ok()
}

/// Sleeps until a time of [`now_ns`].
pub(super) async fn sleep_until(at: u64) {
    let wait = at.saturating_sub(now_ns());
    if wait > 0 {
        tokio::time::sleep_until((Instant::now() + Duration::from_nanos(wait)).into()).await;
    }
}

/// The highest rate of a mix, of those tried, at which nine of ten short requests are answered at once:
/// the trials go up by half until one is too much.
///
/// # Errors
///
/// If a request fails that nothing is too much for.
pub(super) async fn capacity(
    order: &LoadPlan,
    entrances: impl Fn() -> Vec<ServiceAddresses>,
) -> io::Result<f64> {
    let trial = async |mix: &Mix, pace, time: Duration| {
        let live = Arc::new(LiveCounters::default());
        let order = LoadPlan { mix: mix.clone(), count: None, ..order.clone() };
        let from = now_ns();
        let until = from + u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let load = Load::start(&order, pace, (from, until), &entrances, &live)?;
        while !load.is_over() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // What comes first finds cold connections, and few streams under way.
        let seen = load.finish()?.into_iter().filter(|it| it.due > (from + until) / 2);
        Ok::<Vec<Request>, io::Error>(seen.collect())
    };
    let short = trial(&Mix::only(Kind::Short), LoadMode::ThreadClients(32), TRIAL).await?;
    let bad = short.iter().find(|it| it.outcome != Outcome::Whole);
    let trouble = match bad {
        Some(Request { outcome, .. }) => Some(outcome.to_string()),
        None => short.is_empty().then(|| "as slow as a second".to_owned()),
    };
    if let Some(trouble) = trouble {
        let text = format!("what can be done at most cannot be measured: a request was {trouble}");
        return Err(io::Error::other(text));
    }
    let mut rate = short.len() as f64 / (TRIAL.as_secs_f64() / 2.0) / 32.0;
    for _ in 0..TRIALS_MAX {
        let tried = rate * 1.5;
        let seen =
            trial(&order.mix, LoadMode::Rate(tried), TRIAL + order.sizes.stream_time).await?;
        if !is_at_ease(&seen) {
            break;
        }
        rate = tried;
    }
    Ok(rate)
}

/// Whether all was well, and nine of ten short requests were answered within [`AT_ONCE`].
fn is_at_ease(seen: &[Request]) -> bool {
    let shorts = || seen.iter().filter(|it| !it.kind.is_long());
    let quick = shorts().filter(|it| it.ended.saturating_sub(it.due) < AT_ONCE).count();
    seen.iter().all(|it| it.outcome == Outcome::Whole) && quick * 10 >= shorts().count() * 9
}
