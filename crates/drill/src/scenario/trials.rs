//! Steps with a color that fails on purpose: its promotion must be refused (`refuse`), and if it turns bad after the flip,
//! the proxy must roll it back by itself (`guard`).

use std::time::Duration;

use flipgate_api::{
    Call, CallError, Caller,
    wire::{PromoteRequest, Status},
};
use tokio::time::timeout;

use super::{
    super::{
        error::DrillError,
        options::Control,
        record::{Flip, FlipOutcome, Trial, TrialKind, TrialResult},
    },
    ScenarioRunner,
};
use crate::{
    color::Color,
    sample::{Faults, now_ns, set_faults},
};

/// The timeout for the rollback of a color that turned bad.
const GUARD_TIMEOUT: Duration = Duration::from_secs(60);

/// The interval at which the status is read meanwhile.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(10);

impl ScenarioRunner {
    /// Has the color that is not active fail, and calls for its promotion. Then repairs it.
    pub(super) async fn refuse(&self, service: u8) -> Result<(), DrillError> {
        let Control::Admin(caller) = &self.control else { return Ok(()) };
        let color = self.active.borrow()[usize::from(service)].other();
        let from = now_ns();
        self.fail(service, color, 100).await?;
        let services = [(self.target.name(service).to_owned(), color.to_string())].into();
        let request = PromoteRequest { services, ..PromoteRequest::default() };
        let called = now_ns();
        let response = caller.call::<Status>(Call::promote(&request)).await;
        let result = match response {
            Ok(status) => {
                let mut flip = flip_of(service, color, called);
                self.apply_status(&mut flip, &status);
                self.log.borrow_mut().flips.push(flip);
                TrialResult::Missed
            }
            Err(CallError::Refused { .. }) => TrialResult::Done,
            Err(error) => {
                self.fail(service, color, 0).await?;
                return Err(DrillError::Call(format!("the promotion of a bad color: {error}")));
            }
        };
        self.fail(service, color, 0).await?;
        let (kind, until) = (TrialKind::Refuse, now_ns());
        self.log.borrow_mut().trials.push(Trial { kind, service, color, from, until, result });
        Ok(())
    }

    /// Promotes the color that is not active, has it fail, and waits until the proxy has rolled it back.
    pub(super) async fn guard(&self, service: u8, percent: u8) -> Result<(), DrillError> {
        let Control::Admin(caller) = &self.control else { return Ok(()) };
        let color = self.active.borrow()[usize::from(service)].other();
        self.flip(vec![(service, color)]).await;
        if self.active.borrow()[usize::from(service)] != color {
            // The failed flip is recorded.
            return Ok(());
        }
        let from = now_ns();
        self.fail(service, color, percent).await?;
        let rollback = timeout(GUARD_TIMEOUT, self.rolled_back(caller, service, color));
        let status = tokio::select! {
            status = rollback => status,
            () = self.halt.cancelled() => {
                let text = "the load ended before a bad color was rolled back; use a longer --duration";
                return Err(DrillError::Call(text.to_owned()));
            }
        };
        let result = match status {
            Ok(status) => {
                let mut flip = flip_of(service, color.other(), from);
                self.apply_status(&mut flip, &status);
                flip.is_automatic = true;
                self.log.borrow_mut().flips.push(flip);
                TrialResult::Done
            }
            Err(_elapsed) => TrialResult::Missed,
        };
        let until = now_ns();
        self.fail(service, color, 0).await?;
        let kind = TrialKind::Guard;
        self.log.borrow_mut().trials.push(Trial { kind, service, color, from, until, result });
        Ok(())
    }

    /// Waits until a color is not active any more.
    async fn rolled_back(&self, caller: &Caller, service: u8, color: Color) -> Status {
        let name = self.target.name(service);
        loop {
            if let Ok(status) = caller.status().await
                && status.services.get(name).is_some_and(|it| it.active != color.as_str())
            {
                return status;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Has all endpoints of a color fail in this percentage of their requests.
    async fn fail(&self, service: u8, color: Color, percent: u8) -> Result<(), DrillError> {
        let endpoints = self.processes.lock().await.endpoints(service, color);
        let faults = Faults { errors: percent, ..Faults::default() };
        for address in endpoints {
            set_faults(address, faults).await.map_err(|error| {
                DrillError::Process(format!("the faults of {address} cannot be set: {error}"))
            })?;
        }
        Ok(())
    }
}

/// A flip of one service that the proxy has made.
pub(super) fn flip_of(service: u8, color: Color, called: u64) -> Flip {
    Flip {
        changes: vec![(service, color)],
        called,
        acknowledged: now_ns(),
        outcome: FlipOutcome::Acknowledged,
        generation: None,
        error: None,
        lost_response: false,
        is_automatic: false,
    }
}
