//! The step `gradual`: the proxy promotes a color step by step, and the drill follows its status.

use std::time::Duration;

use flipgate_api::{
    Call, CallError, Caller,
    wire::{PromoteRequest, Status},
};

use super::{
    super::{
        error::DrillError,
        options::Control,
        record::{GradualPromotion, ShareStep},
    },
    ScenarioRunner,
    trials::{POLL_INTERVAL, flip_of},
};
use crate::sample::now_ns;

/// How a gradual promotion ended.
enum End {
    /// The color is active.
    Promoted(Status),
    /// The color has no share, and is not active.
    TakenBack,
    /// The load ended before.
    LoadEnded,
}

impl ScenarioRunner {
    /// Promotes the color that is not active in steps, and waits until it is active.
    pub(super) async fn gradual(
        &self,
        service: u8,
        steps: &[u8],
        time: Duration,
    ) -> Result<(), DrillError> {
        let Control::Admin(caller) = &self.control else { return Ok(()) };
        let color = self.active.borrow()[usize::from(service)].other();
        let what = format!("the gradual promotion of {}={color}", self.target.name(service));
        let request = PromoteRequest {
            services: [(self.target.name(service).to_owned(), color.to_string())].into(),
            steps: steps.to_vec(),
            step_for: Some(format!("{}ms", time.as_millis())),
            ..PromoteRequest::default()
        };
        let from = now_ns();
        match caller.call::<Status>(Call::promote(&request)).await {
            // If the response was lost, the status shows what happened.
            Ok(_)
            | Err(CallError::Lost { .. } | CallError::Silent { .. } | CallError::Foreign { .. }) => {
            }
            Err(error) => return Err(DrillError::Call(format!("{what}: {error}"))),
        }
        let mut promotion =
            GradualPromotion { service, color, from, until: u64::MAX, steps: Vec::new() };
        let end = self.follow(caller, &mut promotion).await;
        if !matches!(end, End::LoadEnded) {
            promotion.until = now_ns();
        }
        self.log.borrow_mut().gradual.push(promotion);
        match end {
            End::Promoted(status) => {
                let mut flip = flip_of(service, color, from);
                self.apply_status(&mut flip, &status);
                flip.is_automatic = true;
                self.log.borrow_mut().flips.push(flip);
                Ok(())
            }
            End::TakenBack => Err(DrillError::Call(format!(
                "{what} was taken back, or never began; `flipgate events` has the reason"
            ))),
            End::LoadEnded => Err(DrillError::Call(format!(
                "{what} was not finished when the load ended; use a longer --duration"
            ))),
        }
    }

    /// Reads the status until a gradual promotion has ended, and records the shares. Cancel safe: it changes nothing.
    async fn follow(&self, caller: &Caller, promotion: &mut GradualPromotion) -> End {
        let name = self.target.name(promotion.service);
        loop {
            let asked = now_ns();
            let status = tokio::select! {
                status = caller.status() => status,
                () = self.halt.cancelled() => return End::LoadEnded,
            };
            // Without a proxy there is no status.
            if let Ok(status) = status
                && let Some(service) = status.services.get(name)
            {
                match &service.share {
                    _ if service.active == promotion.color.as_str() => {
                        return End::Promoted(status);
                    }
                    Some(share) => promotion.see(share.percent, asked),
                    None => return End::TakenBack,
                }
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}

impl GradualPromotion {
    /// Notes the share that the response to a call at `asked` shows.
    fn see(&mut self, percent: u8, asked: u64) {
        match self.steps.last_mut() {
            Some(last) if last.percent == percent => last.until = asked,
            _ => self.steps.push(ShareStep { percent, from: now_ns(), until: asked }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::color::Color;

    #[test]
    fn a_share_holds_from_the_first_response_that_shows_it_to_the_last_call() {
        let (service, color) = (0, Color::Green);
        let mut promotion =
            GradualPromotion { service, color, from: 0, until: u64::MAX, steps: Vec::new() };
        let before = now_ns();
        for (percent, asked) in [(10, 1), (10, u64::MAX - 1), (50, 3)] {
            promotion.see(percent, asked);
        }
        let [ten, fifty] = promotion.steps[..] else { panic!("{promotion:?}") };
        assert!(ten.from >= before && fifty.from >= ten.from, "{promotion:?}");
        assert_eq!((ten.percent, ten.until), (10, u64::MAX - 1));
        // It was seen once, so it is not certain for any time.
        assert_eq!((fifty.percent, fifty.until), (50, 3));
    }
}
