//! The one task that changes the state and applies it.
//!
//! A change is planned on the applied state, committed to the store, and comes back through the store's watch, as the
//! changes of other processes do. Then it is applied and acknowledged.

use std::{sync::Arc, time::Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tracing::debug;

use super::{
    audited::entry_of,
    catalog::Catalog,
    change::{Actor, Change, ChangeError, ChangeOutcome, ChangeRequest},
    intake::IntakeChange,
    intake_terms::RETRY,
    prepare::Prepared,
    reconcile::Reconciler,
    shared::{Applied, ControlShared},
};
use crate::{
    model::ServiceName,
    store::{CommitError, State},
};

/// The control task.
#[derive(Debug)]
pub struct ControlTask {
    shared: Arc<ControlShared>,
    questions: mpsc::Receiver<PendingChange>,
    state: watch::Receiver<State>,
    reconciler: Reconciler,
}

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
        Self { shared, questions, state, reconciler }
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
                () = self.shared.refusals.due() => self.record_refusals().await,
                () = self.reconciler.pins_due() => {
                    self.shared.set_busy(Some(Instant::now()));
                    self.reconciler.refresh_pins(&self.shared);
                }
                () = self.reconciler.holds.due() => {
                    self.shared.set_busy(Some(Instant::now()));
                    self.check_holds().await;
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
            let before = self.applied();
            let (mut next, catalog) = match self.shared.prepare_on(&before, &call)? {
                Prepared::Known(done) => return Ok(done),
                Prepared::Commit { next, catalog } => (*next, catalog),
            };
            let (expected, generation) = (before.state.revision, next.generation);
            let entry = entry_of(&call, &before.state, &next);
            let refusals = self.shared.refusals.waiting(before.state.generation);
            refusals.iter().chain([&entry]).for_each(|it| next.audit.append(it));
            // The store reports a slow disk itself.
            self.shared.set_busy(None);
            let committed = self.shared.store.commit(expected, next).await;
            self.shared.set_busy(Some(Instant::now()));
            match committed {
                Ok(revision) => {
                    self.shared.refusals.committed(refusals.len());
                    self.reconcile(catalog, call.actor.as_ref());
                    if let Change::Intake { service, change } = &call.change
                        && change.keeps_requests()
                    {
                        self.reconciler.wait_for_hold(service).await;
                    }
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

    /// Ends the holds of which the time is over, and forgets those that have let all of their requests go. The time of a
    /// hold is over for its requests also if that cannot be written.
    async fn check_holds(&mut self) {
        let due = self.reconciler.holds.all_due();
        let is_in_state = |it: &ServiceName| self.applied().state.holds.contains_key(it);
        let (over, released): (Vec<_>, Vec<_>) = due.into_iter().partition(is_in_state);
        self.reconciler.refresh_holds(&self.shared, &released);
        for service in over {
            let id = self.applied().state.holds.get(&service).map(|it| it.id);
            let change = IntakeChange::Release { id, is_over: true };
            let change = Change::Intake { service: service.clone(), change };
            if let Err(error) = self.make(ChangeRequest::unconditional(change)).await {
                debug!(%service, %error, "the end of a hold is not recorded yet");
                self.reconciler.holds.delay(&service, RETRY);
            }
        }
    }

    /// Commits the entries of refused calls without a change. Dropping the future leaves them written or not.
    async fn record_refusals(&mut self) {
        self.shared.set_busy(Some(Instant::now()));
        self.reconcile(None, None);
        let before = self.applied();
        let mut next = before.state.clone();
        let refusals = self.shared.refusals.waiting(next.generation);
        refusals.iter().for_each(|it| next.audit.append(it));
        next.audit.refusal_commits += 1;
        self.shared.set_busy(None);
        match self.shared.store.commit(before.state.revision, next).await {
            Ok(_) => self.shared.refusals.committed(refusals.len()),
            Err(error) => {
                debug!(%error, "refused calls are not recorded yet");
                self.shared.refusals.failed();
            }
        }
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
