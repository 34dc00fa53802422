//! A task for each endpoint, which looks at it again and again.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{
    sync::{Semaphore, watch},
    task::{AbortHandle, JoinSet},
};

use crate::upstream::{Member, Pool};

/// The tasks that look at endpoints; they end with this.
pub(super) struct Checks {
    /// By the member's place in memory, which its task keeps from being used again.
    running: HashMap<usize, Check>,
    tasks: JoinSet<()>,
    /// Looks at the same time.
    together: Arc<Semaphore>,
}

struct Check {
    /// What the member belongs to now.
    pool: watch::Sender<Arc<Pool>>,
    task: AbortHandle,
}

const TOGETHER: usize = 256;

/// How much earlier a look may be, in percent, so that many replicas and endpoints do not fall
/// into step.
const JITTER: u32 = 10;

impl Default for Checks {
    fn default() -> Self {
        let together = Arc::new(Semaphore::new(TOGETHER));
        Self { running: HashMap::new(), tasks: JoinSet::new(), together }
    }
}

impl Checks {
    /// Has every member of these pools looked at, and no others.
    pub(super) fn follow(&mut self, pools: &[Arc<Pool>]) {
        while self.tasks.try_join_next().is_some() {}
        let mut before = std::mem::take(&mut self.running);
        for pool in pools {
            for member in pool.members() {
                let place = Arc::as_ptr(&member).addr();
                let check = match before.remove(&place) {
                    Some(check) => {
                        check.pool.send_if_modified(|it| {
                            let has_changed = !Arc::ptr_eq(it, pool);
                            if has_changed {
                                *it = Arc::clone(pool);
                            }
                            has_changed
                        });
                        check
                    }
                    None => self.start(pool, member),
                };
                self.running.insert(place, check);
            }
        }
        for gone in before.into_values() {
            gone.task.abort();
        }
    }

    fn start(&mut self, pool: &Arc<Pool>, member: Arc<Member>) -> Check {
        let (pool, of_pool) = watch::channel(Arc::clone(pool));
        let task = self.tasks.spawn(look(member, of_pool, Arc::clone(&self.together)));
        Check { pool, task }
    }
}

/// Looks at a member for as long as it is in a pool.
async fn look(member: Arc<Member>, mut pool: watch::Receiver<Arc<Pool>>, together: Arc<Semaphore>) {
    while pool.has_changed().is_ok() {
        let Ok(turn) = together.acquire().await else { return };
        let policy = Arc::clone(pool.borrow().policy());
        let found = member.check(&policy.health).await;
        drop(turn);
        if let Some(found) = found {
            let current = Arc::clone(&pool.borrow());
            current.checked(&member, found);
        }
        let pause = policy.health.pause(member.is_unsettled());
        let mut pause = std::pin::pin!(tokio::time::sleep(jittered(pause)));
        loop {
            tokio::select! {
                () = &mut pause => break,
                () = member.alarmed() => {
                    tokio::time::sleep(jittered(policy.health.pause(true))).await;
                    break;
                }
                changed = pool.changed() => match changed {
                    // Another rule is tried at once.
                    Ok(()) if pool.borrow().policy().health != policy.health => break,
                    Ok(()) => {}
                    Err(_) => return,
                }
            }
        }
    }
}

/// Earlier, but never later than it was asked for: who waits for an endpoint counts on it.
fn jittered(pause: Duration) -> Duration {
    pause * (100 - fastrand::u32(0..=JITTER)) / 100
}
