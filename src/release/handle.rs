//! Promotions and rollbacks with their gates.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use futures_util::{FutureExt, future::join_all};
use tracing::{debug, info, warn};

use super::{
    audited::audit_verdicts,
    candidate::{CallContext, Candidate, Direction},
    gate::{GateReport, GateResult, Verdict},
    gates::{gates, healthy},
    rules::Evaluator,
    run::run,
    watch::{Baselines, ShareBoard, ShareProgress, WatchBoard, WatchProgress},
};
use crate::{
    audit::AuditVerdict,
    control::{
        Applied, Change, ChangeError, ChangeOutcome, ChangeRequest, Control, EventKind,
        GateSummary, PlannedPromotion,
    },
    metrics::{Metrics, PromotionKind, PromotionResult},
    model::{Color, GateSettings, ServiceName},
    upstream::{PoolContext, WorkerRegistry},
};

/// Makes promotions and rollbacks if their gates allow them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Release {
    control: Control,
    metrics: Metrics,
    pools: PoolContext,
    workers: Arc<WorkerRegistry>,
    evaluator: Evaluator,
    baselines: Baselines,
    board: WatchBoard,
    share_board: ShareBoard,
}

/// Why a promotion or rollback was not made. Nothing has changed, unless [`ChangeError`] says that the outcome is unknown.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// The change itself is refused or failed.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// At least one gate refuses. The reports are of all services of the call.
    #[error("{}", Refusals(.0))]
    Gates(Vec<GateReport>),
}

/// The refusals of reports, as sentences.
pub(super) struct Refusals<'a>(pub(super) &'a [GateReport]);

/// How often a promotion is decided again because another change was applied between its gates, which took no time, and
/// its commit.
const ATTEMPTS: usize = 100;

/// The time for all connections that are opened before a promotion: it goes on without the missing ones.
const PRECONNECT_TIMEOUT: Duration = Duration::from_secs(1);

// === impl Release ===

impl Release {
    /// Gates for the services of `control`.
    #[must_use]
    pub fn new(
        control: Control,
        metrics: Metrics,
        pools: PoolContext,
        workers: Arc<WorkerRegistry>,
    ) -> Self {
        let (evaluator, baselines) = (Evaluator::new(), Baselines::default());
        let (board, share_board) = (WatchBoard::default(), ShareBoard::default());
        Self { control, metrics, pools, workers, evaluator, baselines, board, share_board }
    }

    /// How the watch of a service stands; `None` if there is none.
    #[must_use]
    pub fn watch_progress(&self, service: &ServiceName) -> Option<WatchProgress> {
        self.board.get(service)
    }

    /// How the gradual promotion of a service stands; `None` if there is none.
    #[must_use]
    pub fn share_progress(&self, service: &ServiceName) -> Option<ShareProgress> {
        self.share_board.get(service)
    }

    /// The control plane.
    #[must_use]
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// The metrics.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub(super) fn evaluator(&self) -> &Evaluator {
        &self.evaluator
    }

    pub(super) fn pools(&self) -> &PoolContext {
        &self.pools
    }

    pub(super) fn baselines(&self) -> &Baselines {
        &self.baselines
    }

    pub(super) fn share_board(&self) -> &ShareBoard {
        &self.share_board
    }

    pub(super) fn board(&self) -> &WatchBoard {
        &self.board
    }

    /// Makes a promotion or rollback if the gates of all its services allow it. `skips_gates` makes it without them.
    ///
    /// The gates decide on one generation. If another change is applied while they run, the result is
    /// [`ChangeError::Stale`]; gates that need no I/O run again instead.
    ///
    /// Dropping the future before the commit cancels everything. From the commit on, the change is made.
    ///
    /// # Errors
    ///
    /// [`ReleaseError`].
    pub async fn make(
        &self,
        call: ChangeRequest,
        skips_gates: bool,
    ) -> Result<ChangeOutcome, ReleaseError> {
        let kind = match call.change {
            Change::Rollback { .. } => PromotionKind::Rollback,
            _ => PromotionKind::Promote,
        };
        let made = self.decide(call, skips_gates).await;
        self.count(kind, &made);
        made
    }

    pub(super) fn count(&self, kind: PromotionKind, made: &Result<ChangeOutcome, ReleaseError>) {
        let result = match made {
            Ok(_) => PromotionResult::Promoted,
            Err(ReleaseError::Change(ChangeError::Stale { .. })) => PromotionResult::Stale,
            Err(
                ReleaseError::Gates(_)
                | ReleaseError::Change(ChangeError::Refused(_) | ChangeError::KeyReused(_)),
            ) => PromotionResult::Refused,
            Err(ReleaseError::Change(ChangeError::Store(_) | ChangeError::Stopping)) => {
                PromotionResult::Failed
            }
        };
        self.metrics.promotion(kind, result);
    }

    pub(super) async fn decide(
        &self,
        call: ChangeRequest,
        skips_gates: bool,
    ) -> Result<ChangeOutcome, ReleaseError> {
        if skips_gates {
            let mut call = call;
            call.terms.skips_gates = true;
            if let PlannedPromotion::Colors { colors, applied } =
                self.control.plan_promotion(&call)?
            {
                call.terms.before = self.before(&colors, &applied);
            }
            return Ok(self.control.propose(call).await?);
        }
        let (mut attempts, mut is_preconnected) = (0, false);
        loop {
            attempts += 1;
            let (colors, applied) = match self.control.plan_promotion(&call)? {
                PlannedPromotion::Known(done) => return Ok(done),
                PlannedPromotion::Colors { colors, applied } => (colors, applied),
            };
            let direction = match call.change {
                Change::Rollback { .. } => Direction::Rollback,
                _ => Direction::Promote,
            };
            let mut candidates = self.candidates(&colors, &applied, &call, direction);
            let (reports, is_instant) = {
                let mut running = Box::pin(run_all(&candidates));
                match (&mut running).now_or_never() {
                    Some(reports) => (reports, true),
                    None => (running.await, false),
                }
            };
            // That a healthy color is healthy is no news, unless more was configured.
            let has_more = |it: &Candidate| *it.settings != GateSettings::default();
            let is_news = candidates.iter().any(has_more);
            if is_news || !reports.iter().all(GateReport::has_passed) {
                self.publish(&reports);
            }
            if !reports.iter().all(GateReport::has_passed) {
                // A refusal of pools that are others by now says nothing.
                let decided_on = applied.state.generation;
                let current = self.control.applied().state.generation;
                if current != decided_on && candidates.iter().any(Candidate::is_superseded) {
                    return Err(ChangeError::Stale { decided_on: vec![decided_on], current }.into());
                }
                return Err(ReleaseError::Gates(reports));
            }
            if direction == Direction::Promote && !is_preconnected {
                is_preconnected = true;
                let unreachable = self.preconnect(&candidates).await;
                candidates.retain(|it| unreachable.contains(&it.service));
                if let Some(refused) = self.check_again(candidates).await {
                    return Err(ReleaseError::Gates(refused));
                }
            }
            let mut gated = call.clone();
            gated.terms.before = self.before(&colors, &applied);
            gated.if_generation = Some(vec![applied.state.generation]);
            gated.terms.verdicts = audit_verdicts(&reports);
            gated.terms.manifests = reports.into_iter().flat_map(|it| it.manifests).collect();
            match self.control.propose(gated).await {
                Err(ChangeError::Stale { .. })
                    if is_instant && call.if_generation.is_none() && attempts < ATTEMPTS => {}
                done => return Ok(done?),
            }
        }
    }

    /// Runs the gates of one service for a promotion of `color`, and changes nothing. `None` if the service is not
    /// configured or its state is damaged. Cancel-safe.
    ///
    /// # Errors
    ///
    /// [`ChangeError`] if the promotion would be refused without any gate.
    pub async fn check(
        &self,
        service: &ServiceName,
        color: Color,
        mut call: ChangeRequest,
    ) -> Result<GateReport, ChangeError> {
        // Nothing is promoted, so that a rollout of the service is not disturbed.
        call.terms.skips_gates = true;
        let applied = match self.control.plan_promotion(&call)? {
            PlannedPromotion::Known(done) => done.applied,
            PlannedPromotion::Colors { applied, .. } => applied,
        };
        let colors = BTreeMap::from([(service.clone(), color)]);
        let mut candidates = self.candidates(&colors, &applied, &call, Direction::Promote);
        for candidate in &mut candidates {
            candidate.is_dry_run = true;
        }
        let mut reports = run_all(&candidates).await;
        self.publish(&reports);
        let empty = || GateReport {
            service: service.clone(),
            color,
            verdicts: Vec::new(),
            manifests: Vec::new(),
        };
        Ok(reports.pop().unwrap_or_else(empty))
    }

    /// Checks the health of these candidates now, whatever is known of it. Returns the verdicts if one refuses.
    async fn check_again(&self, candidates: Vec<Candidate>) -> Option<Vec<GateReport>> {
        let again = async |it: Candidate| run(&[healthy()], &it.checking_again()).await;
        let reports = join_all(candidates.into_iter().map(again)).await;
        if reports.iter().all(GateReport::has_passed) {
            return None;
        }
        self.publish(&reports);
        Some(reports)
    }

    /// Has the workers open connections to the candidates. Endpoints with as many connections as wanted cost nothing. Returns
    /// the services with a candidate that no connection could be opened to.
    async fn preconnect(&self, candidates: &[Candidate]) -> Vec<ServiceName> {
        let workers = self.workers.workers();
        let open = async |it: &Candidate| {
            let per_worker = it.settings.preconnect;
            let enough = workers * per_worker;
            let endpoints = it.pool.endpoints();
            if endpoints.iter().all(|it| it.connections() >= enough) {
                return None;
            }
            let opened = self.workers.preconnect(&it.pool, per_worker, PRECONNECT_TIMEOUT).await;
            debug!(service = %it.service, color = %it.color, opened, "preconnected");
            let is_reachable = opened > 0 || endpoints.iter().any(|it| it.connections() > 0);
            (!is_reachable).then(|| it.service.clone())
        };
        join_all(candidates.iter().map(open)).await.into_iter().flatten().collect()
    }

    /// Failures and requests of the colors that would be replaced.
    fn before(
        &self,
        colors: &BTreeMap<ServiceName, Color>,
        applied: &Applied,
    ) -> BTreeMap<ServiceName, (u64, u64)> {
        let of = |(name, color): (&ServiceName, &Color)| {
            let active = applied.pools.get(name)?.pool(color.other());
            Some((name.clone(), self.baselines.of(name, active)))
        };
        colors.iter().filter_map(of).collect()
    }

    /// The candidates of a call. A service with a damaged state has none: it refuses all requests, and a promotion is how
    /// it is repaired.
    pub(super) fn candidates(
        &self,
        colors: &BTreeMap<ServiceName, Color>,
        applied: &Arc<Applied>,
        call: &ChangeRequest,
        direction: Direction,
    ) -> Vec<Candidate> {
        let (reason, actor) = (call.reason.clone(), call.actor.clone());
        let (pools, evaluator) = (self.pools.clone(), self.evaluator.clone());
        let changes = self.control.changes();
        // The promotion is known to be bad: what the color before is like now matters more than the time.
        let checks_again = call.terms.takes_back.is_some();
        let call = CallContext {
            direction,
            reason,
            actor,
            is_dry_run: false,
            checks_again,
            pools,
            evaluator,
            changes,
        };
        let candidate = |(service, color): (&ServiceName, &Color)| {
            Candidate::new(service, *color, applied, &call)
        };
        colors.iter().filter_map(candidate).collect()
    }

    /// Publishes the verdicts, to the log and the subscribers.
    fn publish(&self, reports: &[GateReport]) {
        for report in reports {
            let GateReport { service, color, verdicts, .. } = report;
            let gates: Vec<_> = verdicts.iter().map(summary).collect();
            let (service, color) = (service.clone(), *color);
            let event = match report.has_passed() {
                true => {
                    let gates_run = verdicts.len();
                    info!(%service, %color, gates = gates_run, "gates passed");
                    EventKind::GatePassed { service, color, gates }
                }
                false => {
                    for Verdict { gate, reasons, .. } in report.refusals() {
                        let reasons = reasons.join("; ");
                        warn!(%service, %color, %gate, reasons, "gate refused the promotion");
                    }
                    EventKind::GateRefused { service, color, gates }
                }
            };
            self.control.events().publish(event);
        }
    }
}

// === impl ReleaseError ===

impl ReleaseError {
    /// The verdicts of the gates, for the audit log.
    pub(super) fn audit_verdicts(&self) -> Vec<AuditVerdict> {
        match self {
            Self::Change(_) => Vec::new(),
            Self::Gates(reports) => audit_verdicts(reports),
        }
    }
}

async fn run_all(candidates: &[Candidate]) -> Vec<GateReport> {
    let run = async |it: &Candidate| run(&gates(&it.settings, it.direction), it).await;
    join_all(candidates.iter().map(run)).await
}

fn summary(verdict: &Verdict) -> GateSummary {
    let Verdict { gate, result, took: _, reasons, evidence: _ } = verdict;
    GateSummary {
        gate: gate.as_str(),
        passed: *result == GateResult::Passed,
        not_run: *result == GateResult::NotRun,
        reasons: reasons.clone(),
    }
}

impl fmt::Display for Refusals<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let refusals = self.0.iter().flat_map(|report| {
            report.refusals().map(move |it| (&report.service, it.gate, it.reasons.join("; ")))
        });
        for (place, (service, gate, reasons)) in refusals.enumerate() {
            let separator = if place == 0 { "" } else { "; " };
            write!(f, "{separator}service `{service}`: gate {gate}: {reasons}")?;
        }
        Ok(())
    }
}
