//! Owns every long-lived task of the control plane, and handles its death.
//!
//! The death of a vital task shuts the process down gracefully, with an error. Any other task is restarted after a
//! pause that grows while it keeps dying. Every death is logged and counted.

use std::{
    collections::BTreeMap,
    fmt::Display,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use tokio::{sync::Notify, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::metrics::Metrics;

/// Runs tasks and notices when they end. Dropping it ends all tasks.
#[derive(Debug)]
pub(super) struct Supervisor {
    tasks: JoinSet<()>,
    watched: TaskHealth,
}

/// The health of the tasks. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct TaskHealth {
    metrics: Metrics,
    /// Each task, with its planted panic, and its error if it is dead for good.
    tasks: Arc<Mutex<BTreeMap<&'static str, TaskRecord>>>,
    /// Canceled when a vital task has died.
    pub(super) fatal: CancellationToken,
}

#[derive(Debug, Default)]
struct TaskRecord {
    planted: Arc<Notify>,
    gone: Option<String>,
}

/// One run of a task.
type TaskFuture = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// The first pause before a restart; doubled each time, up to the longest.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// A task that has run for this long begins with the shortest pause again.
const SETTLED: Duration = Duration::from_secs(60);

// === impl Supervisor ===

impl Supervisor {
    pub(super) fn new(metrics: Metrics) -> Self {
        let (tasks, fatal) = (Arc::default(), CancellationToken::new());
        Self { tasks: JoinSet::new(), watched: TaskHealth { metrics, tasks, fatal } }
    }

    pub(super) fn watched(&self) -> TaskHealth {
        self.watched.clone()
    }

    /// Runs a vital task. A successful end is no death. Must be called on the control runtime.
    pub(super) fn run_vital<E: Display>(
        &mut self,
        name: &'static str,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let (watched, planted) = (self.watched(), self.watched.register(name));
        let life: TaskFuture = Box::pin(task.map(|it| it.map_err(|error| error.to_string())));
        self.tasks.spawn(async move {
            if let Err(why) = restart_on_panic(life, &planted).await {
                error!(task = name, why, "a vital task has died; flipgate stops");
                watched.metrics.task_died(name);
                watched.tasks().entry(name).or_default().gone = Some(why);
                watched.fatal.cancel();
            }
        });
    }

    /// Runs a task that is restarted whenever it dies. Must be called on the control runtime.
    pub(super) fn run<F>(
        &mut self,
        name: &'static str,
        mut begin: impl FnMut() -> F + Send + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let (watched, planted) = (self.watched(), self.watched.register(name));
        self.tasks.spawn(async move {
            let mut pause = PAUSE;
            loop {
                let since = Instant::now();
                let life: TaskFuture = Box::pin(begin().map(Ok));
                let Err(why) = restart_on_panic(life, &planted).await else { return };
                watched.metrics.task_died(name);
                if since.elapsed() >= SETTLED {
                    pause = PAUSE;
                }
                let pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
                error!(task = name, why, pause_ms, "a task has died and is restarted");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        });
    }
}

// === impl TaskHealth ===

impl TaskHealth {
    /// The tasks that only a restart repairs, with their errors.
    pub(super) fn dead_tasks(&self) -> Vec<String> {
        let tasks = self.tasks();
        let gone = tasks.iter().filter_map(|(name, it)| Some((name, it.gone.as_ref()?)));
        gone.map(|(name, why)| format!("the task `{name}` has died: {why}")).collect()
    }

    /// The names of all tasks.
    pub(super) fn names(&self) -> Vec<&'static str> {
        self.tasks().keys().copied().collect()
    }

    /// Makes a task panic, for tests. Returns whether there is a task with this name.
    pub(super) fn plant_panic(&self, name: &str) -> bool {
        let tasks = self.tasks();
        let known = tasks.get(name);
        known.inspect(|it| it.planted.notify_one()).is_some()
    }

    fn register(&self, name: &'static str) -> Arc<Notify> {
        Arc::clone(&self.tasks().entry(name).or_default().planted)
    }

    fn tasks(&self) -> MutexGuard<'_, BTreeMap<&'static str, TaskRecord>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs a task once, and returns its error. Its values are dropped with it.
async fn restart_on_panic(mut life: TaskFuture, planted: &Notify) -> Result<(), String> {
    let living = async {
        tokio::select! {
            ended = &mut life => ended,
            () = planted.notified() => panic!("planted"),
        }
    };
    match AssertUnwindSafe(living).catch_unwind().await {
        Ok(ended) => ended,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            Err(format!("panic: {}", text.unwrap_or_default()))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use prometheus::Registry;

    use super::*;

    fn supervisor() -> Supervisor {
        Supervisor::new(Metrics::new(&Registry::new()).expect("a fresh registry"))
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_dies_is_started_again_after_longer_and_longer_pauses() {
        let mut supervisor = supervisor();
        let begun = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&begun);
        let at = tokio::time::Instant::now();
        supervisor.run("care", move || {
            let number = counted.fetch_add(1, SeqCst);
            async move {
                if number < 4 {
                    panic!("number {number}");
                }
                std::future::pending::<()>().await;
            }
        });
        while begun.load(SeqCst) < 5 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(at.elapsed() >= PAUSE * (1 + 2 + 4 + 8), "{:?}", at.elapsed());
        let watched = supervisor.watched();
        assert_eq!(watched.dead_tasks(), Vec::<String>::new());
        assert!(!watched.fatal.is_cancelled(), "the process goes on");
    }

    #[tokio::test]
    async fn a_vital_task_that_dies_is_fatal_and_is_named() {
        for is_panic in [false, true] {
            let mut supervisor = supervisor();
            supervisor.run_vital("control", async move {
                assert!(!is_panic, "by panic");
                Err::<(), _>("by error")
            });
            let watched = supervisor.watched();
            watched.fatal.cancelled().await;
            let gone = watched.dead_tasks();
            assert!(gone.len() == 1 && gone[0].contains("`control`"), "{gone:?}");
        }
    }

    #[tokio::test]
    async fn a_task_that_returns_ok_has_not_died() {
        let mut supervisor = supervisor();
        supervisor.run_vital("control", async { Ok::<(), String>(()) });
        while supervisor.tasks.join_next().await.is_some() {}
        assert!(!supervisor.watched().fatal.is_cancelled());
        assert_eq!(supervisor.watched().dead_tasks(), Vec::<String>::new());
    }

    #[tokio::test]
    async fn a_planted_panic_is_one() {
        let mut supervisor = supervisor();
        supervisor.run_vital("control", std::future::pending::<Result<(), String>>());
        let watched = supervisor.watched();
        assert_eq!((watched.names(), watched.plant_panic("other")), (vec!["control"], false));
        assert!(watched.plant_panic("control"));
        watched.fatal.cancelled().await;
        assert!(watched.dead_tasks()[0].contains("planted"));
    }
}
