//! The one task that changes the state and applies it.
//!
//! A change is planned on the applied state, committed to the store, and comes back through the store's watch, as the
//! changes of other processes do. Then it is applied and acknowledged.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tokio::sync::{mpsc, oneshot, watch};

use super::{
    catalog::Catalog,
    change::{Actor, Change, ChangeError, ChangeOutcome, ChangeRequest, Idempotency},
    plan::plan,
    reconcile::Reconciler,
    shared::{Applied, ControlShared},
};
use crate::store::{AcceptedCall, CommitError, State};

/// The control task.
#[derive(Debug)]
pub struct ControlTask {
    shared: Arc<ControlShared>,
    questions: mpsc::Receiver<PendingChange>,
    state: watch::Receiver<State>,
    reconciler: Reconciler,
    /// When the state was read, in Unix seconds: the age of keys without a time counts from here.
    began: u64,
}

/// How long an idempotency key is kept.
const KEY_AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// A change that a caller waits for.
#[derive(Debug)]
pub(super) struct PendingChange {
    pub(super) call: ChangeRequest,
    pub(super) answer: oneshot::Sender<Result<ChangeOutcome, ChangeError>>,
}

/// The store has ended.
#[derive(Debug, thiserror::Error)]
#[error("the store of the state has ended")]
pub struct StoreClosed;

// === impl ControlTask ===

impl ControlTask {
    pub(super) fn new(
        shared: Arc<ControlShared>,
        questions: mpsc::Receiver<PendingChange>,
        state: watch::Receiver<State>,
        reconciler: Reconciler,
    ) -> Self {
        Self { shared, questions, state, reconciler, began: unix_seconds() }
    }

    /// Makes and applies changes until every [`super::Control`] is dropped. Dropping the future during a change leaves
    /// it written or not; acknowledged changes stay.
    ///
    /// # Errors
    ///
    /// [`StoreClosed`] if the store has ended.
    pub async fn run(mut self) -> Result<(), StoreClosed> {
        loop {
            self.shared.set_busy(None);
            tokio::select! {
                question = self.questions.recv() => {
                    let Some(PendingChange { call, answer }) = question else { return Ok(()) };
                    self.shared.set_busy(Some(Instant::now()));
                    let done = self.make(call).await;
                    // The caller may have gone; the change stays.
                    let _ = answer.send(done);
                }
                changed = self.state.changed() => {
                    changed.map_err(|_| StoreClosed)?;
                    self.shared.set_busy(Some(Instant::now()));
                    self.reconcile(None, None);
                }
            }
        }
    }

    async fn make(&mut self, call: ChangeRequest) -> Result<ChangeOutcome, ChangeError> {
        loop {
            // This change is decided on the newest state, with changes of other processes.
            self.reconcile(None, None);
            let (expected, next, catalog) = match self.prepare(&call)? {
                Prepared::Known(done) => return Ok(done),
                Prepared::Commit { next, catalog } => {
                    (self.applied().state.revision, next, catalog)
                }
            };
            let generation = next.generation;
            // The store reports a slow disk itself.
            self.shared.set_busy(None);
            let committed = self.shared.store.commit(expected, next).await;
            self.shared.set_busy(Some(Instant::now()));
            match committed {
                Ok(revision) => {
                    self.reconcile(catalog, call.actor.as_ref());
                    let applied = self.applied();
                    return Ok(ChangeOutcome { generation, revision, is_replayed: false, applied });
                }
                Err(CommitError::Conflict { current }) => {
                    // It arrives through the watch, if it has not already.
                    let is_there = self.state.wait_for(|it| it.revision >= current).await;
                    is_there.map_err(|_| ChangeError::Stopping)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// What to commit for a change, if its conditions hold.
    fn prepare(&self, call: &ChangeRequest) -> Result<Prepared, ChangeError> {
        let ChangeRequest { change, if_generation, idempotency, reason, actor: _ } = call;
        let applied = self.applied();
        let state = &applied.state;
        let known = |generation, is_repeated| {
            let (revision, applied) = (state.revision, Arc::clone(&applied));
            Prepared::Known(ChangeOutcome {
                generation,
                revision,
                is_replayed: is_repeated,
                applied,
            })
        };
        let now = unix_seconds();
        let is_old = |it: &AcceptedCall| {
            now.saturating_sub(it.at.unwrap_or(self.began)) >= KEY_AGE_MAX.as_secs()
        };
        if let Some(call) = idempotency
            && let Some(before) = state.accepted.get(&call.key)
            && !is_old(before)
        {
            return match call.matches(&before.fingerprint) {
                true => Ok(known(before.generation, true)),
                false => Err(ChangeError::KeyReused(call.key.clone())),
            };
        }
        if let Some(decided_on) = if_generation
            && !decided_on.contains(&state.generation)
        {
            let (decided_on, current) = (decided_on.clone(), state.generation);
            return Err(ChangeError::Stale { decided_on, current });
        }
        if let Change::Reconfigure(new) = change
            && **new == *applied.catalog
        {
            return Ok(known(state.generation, false));
        }
        let planned =
            plan(state, &applied.catalog, &self.shared.parts.own, change, reason.as_deref());
        let mut next = planned.map_err(ChangeError::Refused)?;
        next.accepted.forget(is_old);
        if let Some(Idempotency { key, fingerprint, .. }) = idempotency {
            let (key, fingerprint) = (key.clone(), fingerprint.clone());
            let (generation, at) = (next.generation, Some(now));
            next.accepted.put(AcceptedCall { key, fingerprint, generation, at });
        }
        let catalog = match change {
            Change::Reconfigure(new) => Some(Arc::clone(new)),
            Change::Promote(_) | Change::Rollback { .. } | Change::SetPool { .. } => None,
        };
        Ok(Prepared::Commit { next, catalog })
    }

    /// Applies the newest state, with another configuration if there is one. `actor` is the caller that asked for the
    /// change, if it is known.
    fn reconcile(&mut self, catalog: Option<Arc<Catalog>>, actor: Option<&Actor>) {
        let state = self.state.borrow_and_update().clone();
        self.reconciler.apply(&self.shared, state, catalog, actor);
    }

    fn applied(&self) -> Arc<Applied> {
        self.shared.applied()
    }
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

enum Prepared {
    /// There is nothing to commit.
    Known(ChangeOutcome),
    Commit {
        next: State,
        catalog: Option<Arc<Catalog>>,
    },
}
