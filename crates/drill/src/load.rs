//! The load: threads that send requests at a fixed rate, or with a fixed number of clients.

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

/// The requests of a load.
#[derive(Clone, Debug)]
pub(super) struct LoadPlan {
    pub(super) mix: Mix,
    pub(super) sizes: Sizes,
    pub(super) threads: usize,
    pub(super) seed: u64,
    /// The largest number of requests.
    pub(super) count: Option<u64>,
}

/// A running load.
#[derive(Debug)]
pub(super) struct Load {
    threads: Vec<JoinHandle<io::Result<Vec<Request>>>>,
    stop: Arc<AtomicBool>,
}

/// The work of one thread.
struct LoadThread {
    thread: usize,
    plan: LoadPlan,
    mode: LoadMode,
    from: u64,
    until: u64,
    stop: Arc<AtomicBool>,
    left: Arc<AtomicU64>,
}

/// Requests that a thread has in flight at most, at a fixed rate.
const IN_FLIGHT_MAX: usize = 5000;

/// A thread that is late yields to its other tasks after this many requests.
const YIELD_EVERY: u64 = 16;

/// Requests of all threads at most, since all are recorded: about two gigabytes.
pub(super) const REQUESTS_MAX: u64 = 20_000_000;

/// For the measurement of the capacity: the duration of a trial, the largest number of trials, and the latency of a
/// fast response in nanoseconds (20 ms).
const TRIAL: Duration = Duration::from_secs(1);
const TRIALS_MAX: usize = 16;
const FAST: u64 = 20_000_000;

// === impl Load ===

impl Load {
    /// Starts threads that send requests from `from` until `until`, both of [`now_ns`], to all of `addresses`.
    pub(super) fn start(
        plan: &LoadPlan,
        mode: LoadMode,
        (from, until): (u64, u64),
        addresses: impl Fn() -> Vec<ServiceAddresses>,
        live: &Arc<LiveCounters>,
    ) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let left = Arc::new(AtomicU64::new(plan.count.unwrap_or(REQUESTS_MAX).min(REQUESTS_MAX)));
        let mut threads = Vec::new();
        for thread in 0..plan.threads {
            let (addresses, live) = (addresses(), Arc::clone(live));
            let load_thread = LoadThread {
                thread,
                plan: plan.clone(),
                mode,
                from,
                until,
                stop: Arc::clone(&stop),
                left: Arc::clone(&left),
            };
            let builder = std::thread::Builder::new().name(format!("drill-{thread}"));
            threads.push(builder.spawn(move || load_thread.run(addresses, live))?);
        }
        Ok(Self { threads, stop })
    }

    /// Whether all requests have ended.
    pub(super) fn is_over(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Stops sending requests.
    pub(super) fn stop(&self) {
        self.stop.store(true, Relaxed);
    }

    /// Waits for the requests in flight, and returns all requests. Blocks the thread.
    pub(super) fn finish(self) -> io::Result<Vec<Request>> {
        let mut all = Vec::new();
        for thread in self.threads {
            let requests =
                thread.join().map_err(|_| io::Error::other("a thread of the load panicked"))?;
            all.extend(requests?);
        }
        Ok(all)
    }
}

// === impl LoadThread ===

impl LoadThread {
    fn run(
        self,
        addresses: Vec<ServiceAddresses>,
        live: Arc<LiveCounters>,
    ) -> io::Result<Vec<Request>> {
        let LoadPlan { sizes, seed, .. } = self.plan;
        let thread = self.thread as u64;
        let clients = ThreadClients::new(thread, addresses, sizes, seed, live);
        let clients = Rc::new(clients);
        let runtime =
            Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
        runtime.block_on(async {
            match self.mode {
                LoadMode::Rate(rate) => self.run_at_rate(rate, &clients).await,
                LoadMode::Clients(count) => self.run_clients(count, &clients).await,
            }
        });
        Ok(clients.requests.take())
    }

    /// Sends requests at even intervals and does not wait for responses. So a slow response delays no other request,
    /// and latencies are not too low (coordinated omission).
    async fn run_at_rate(&self, rate: f64, clients: &Rc<ThreadClients>) {
        let mut random = fastrand::Rng::with_seed(self.plan.seed ^ !(self.thread as u64));
        let mut tasks = JoinSet::new();
        let interval = 1e9 / rate;
        for round in 0_u64.. {
            // Threads take turns. The rounding error stays below a nanosecond per request.
            let index = (round * self.plan.threads as u64 + self.thread as u64) as f64;
            let due = self.from.saturating_add((index * interval) as u64);
            if due >= self.until || self.stop.load(Relaxed) || !self.reserve_request() {
                break;
            }
            sleep_until(due).await;
            if round % YIELD_EVERY == 0 {
                // A late thread does not sleep, but its other tasks must run.
                tokio::task::yield_now().await;
            }
            while tasks.try_join_next().is_some() {}
            let kind = self.plan.mix.choose(&mut random);
            if tasks.len() >= IN_FLIGHT_MAX {
                clients.record_not_sent(kind, due);
            } else {
                tasks.spawn_local(Rc::clone(clients).run(kind, due));
            }
        }
        while tasks.join_next().await.is_some() {}
    }

    async fn run_clients(&self, count: usize, clients: &Rc<ThreadClients>) {
        let threads = self.plan.threads;
        let own = count / threads + usize::from(self.thread < count % threads);
        let mut tasks = JoinSet::new();
        sleep_until(self.from).await;
        let shared_mix = Rc::new(self.plan.mix.clone());
        for client in 0..own {
            let (clients, mix) = (Rc::clone(clients), Rc::clone(&shared_mix));
            let (until, stop, left) = (self.until, Arc::clone(&self.stop), Arc::clone(&self.left));
            let mut random = fastrand::Rng::with_seed(
                self.plan.seed ^ ((client as u64) << 16) ^ ((self.thread as u64) << 40),
            );
            tasks.spawn_local(async move {
                while now_ns() < until && !stop.load(Relaxed) && reserve_request(&left) {
                    Rc::clone(&clients).run(mix.choose(&mut random), now_ns()).await;
                }
            });
        }
        while tasks.join_next().await.is_some() {}
    }

    fn reserve_request(&self) -> bool {
        reserve_request(&self.left)
    }
}

fn reserve_request(left: &AtomicU64) -> bool {
    left.fetch_update(Relaxed, Relaxed, |it| it.checked_sub(1)).is_ok()
}

/// Sleeps until a time of [`now_ns`].
pub(super) async fn sleep_until(at: u64) {
    let wait = at.saturating_sub(now_ns());
    if wait > 0 {
        tokio::time::sleep_until((Instant::now() + Duration::from_nanos(wait)).into()).await;
    }
}

/// The highest rate of a mix at which nine of ten short requests are answered within [`FAST`]. Each trial has a rate
/// that is higher by half, until one is too high.
///
/// # Errors
///
/// If a request fails before the trials.
pub(super) async fn measure_capacity(
    plan: &LoadPlan,
    addresses: impl Fn() -> Vec<ServiceAddresses>,
) -> io::Result<f64> {
    let trial = async |mix: &Mix, mode, time: Duration| {
        let live = Arc::new(LiveCounters::default());
        let plan = LoadPlan { mix: mix.clone(), count: None, ..plan.clone() };
        let from = now_ns();
        let until = from + u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let load = Load::start(&plan, mode, (from, until), &addresses, &live)?;
        while !load.is_over() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // The first half has cold connections and few streams.
        let requests = load.finish()?.into_iter().filter(|it| it.due > (from + until) / 2);
        Ok::<Vec<Request>, io::Error>(requests.collect())
    };
    let short = trial(&Mix::only(Kind::Short), LoadMode::Clients(32), TRIAL).await?;
    let bad = short.iter().find(|it| it.outcome != Outcome::Complete);
    let problem = match bad {
        Some(Request { outcome, .. }) => Some(outcome.to_string()),
        None => short.is_empty().then(|| "slower than a second".to_owned()),
    };
    if let Some(problem) = problem {
        let text = format!("cannot measure the highest possible rate: {problem}");
        return Err(io::Error::other(text));
    }
    let mut rate = short.len() as f64 / (TRIAL.as_secs_f64() / 2.0) / 32.0;
    for _ in 0..TRIALS_MAX {
        let tried = rate * 1.5;
        let requests =
            trial(&plan.mix, LoadMode::Rate(tried), TRIAL + plan.sizes.stream_time).await?;
        if !is_sustainable(&requests) {
            break;
        }
        rate = tried;
    }
    Ok(rate)
}

/// Whether all requests succeeded, and nine of ten short ones were answered within [`FAST`].
fn is_sustainable(requests: &[Request]) -> bool {
    let shorts = || requests.iter().filter(|it| !it.kind.is_long());
    let quick = shorts().filter(|it| it.ended.saturating_sub(it.due) < FAST).count();
    requests.iter().all(|it| it.outcome == Outcome::Complete) && quick * 10 >= shorts().count() * 9
}
