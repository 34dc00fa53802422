//! The usual calls, each with its types.

use std::time::Duration;

use http::Method;
use serde::Serialize;

use crate::{
    client::{Call, CallError, Caller},
    wire::{
        ApproveRequest, ConfirmRequest, DrainStatus, EndStreamsRequest, GateRequest, GateStatus,
        HoldRequest, MaintenanceRequest, PoolRequest, PromoteRequest, ReleaseRequest,
        RollbackRequest, RolloutActionRequest, RolloutList, RolloutRequest, RolloutStatus, Status,
    },
};

/// The longest time that the gates of a promotion take: the largest `gate.deadline`.
pub const GATES_MAX: Duration = Duration::from_secs(3600);

// === impl Call ===

impl Call<'static> {
    /// Makes colors active.
    #[must_use]
    pub fn promote(request: &PromoteRequest) -> Self {
        Self::post("/v1/promote", json(request))
    }

    /// Makes active what was active before the last promotion.
    #[must_use]
    pub fn rollback(request: &RollbackRequest) -> Self {
        Self::post("/v1/rollback", json(request))
    }

    /// Begins a rollout.
    #[must_use]
    pub fn begin_rollout(request: &RolloutRequest) -> Self {
        Self::post("/v1/rollouts", json(request))
    }
}

impl Call<'_> {
    /// Makes the change only if `generation` is the current one. Otherwise the response is a 412.
    #[must_use]
    pub fn if_generation(mut self, generation: u64) -> Self {
        self.headers.push(("if-match", format!("\"{generation}\"")));
        self
    }

    /// Makes it safe to repeat the call: the server makes the change of a key once.
    #[must_use]
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.headers.push(("idempotency-key", key.into()));
        self
    }
}

// === impl Caller ===

impl Caller {
    /// The state of all services.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn status(&self) -> Result<Status, CallError> {
        self.call(Call::get("/v1/status")).await
    }

    /// Makes colors active, all in one step. After the response, no new request reaches a replaced color.
    ///
    /// # Errors
    ///
    /// [`CallError`]; also if a color is active already.
    pub async fn promote(&self, request: &PromoteRequest) -> Result<Status, CallError> {
        self.call(Call::promote(request)).await
    }

    /// Makes active what was active before the last promotion, all in one step.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn rollback(&self, request: &RollbackRequest) -> Result<Status, CallError> {
        self.call(Call::rollback(request)).await
    }

    /// Runs the gates of a service for `color`, or else for the color that is not active. Changes nothing.
    ///
    /// # Errors
    ///
    /// [`CallError`]; also if the color is active already or has no endpoints.
    pub async fn gate(&self, service: &str, color: Option<&str>) -> Result<GateStatus, CallError> {
        let body = json(&GateRequest { color: color.map(str::to_owned) });
        let path = format!("/v1/services/{service}/gate");
        let call = Call::post(&path, body);
        self.call(Call { wait: GATES_MAX, ..call }).await
    }

    /// Approves a pool of a service at the version that it has.
    ///
    /// # Errors
    ///
    /// [`CallError`]; also if the pool has another version than the request names.
    pub async fn approve(
        &self,
        service: &str,
        request: &ApproveRequest,
    ) -> Result<Status, CallError> {
        self.call(Call::post(&format!("/v1/services/{service}/approve"), json(request))).await
    }

    /// The rollouts in progress, and the last ones.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn rollouts(&self) -> Result<RolloutList, CallError> {
        self.call(Call::get("/v1/rollouts")).await
    }

    /// A rollout. With `wait`, when it is over or needs a person; with `since`, when it has another version. At the latest after
    /// `wait`.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn rollout(
        &self,
        id: &str,
        wait: Duration,
        since: Option<u64>,
    ) -> Result<RolloutStatus, CallError> {
        let mut path = format!("/v1/rollouts/{id}?wait={}ms", wait.as_millis());
        if wait.is_zero() {
            path = format!("/v1/rollouts/{id}");
        } else if let Some(since) = since {
            path += &format!("&since={since}");
        }
        self.call(Call { wait, ..Call::get(&path) }).await
    }

    /// Decides about a rollout: `cancel`, `approve`, `confirm` or `retry`.
    ///
    /// # Errors
    ///
    /// [`CallError`]; also if that is not possible now.
    pub async fn change_rollout(
        &self,
        id: &str,
        verb: &str,
        request: &RolloutActionRequest,
    ) -> Result<RolloutStatus, CallError> {
        self.call(Call::post(&format!("/v1/rollouts/{id}/{verb}"), json(request))).await
    }

    /// Confirms promotions.
    ///
    /// # Errors
    ///
    /// [`CallError`]; also if nothing waits for a confirmation.
    pub async fn confirm(&self, request: &ConfirmRequest) -> Result<Status, CallError> {
        self.call(Call::post("/v1/confirm", json(request))).await
    }

    /// Ends the watch of a service. The promotion stays.
    ///
    /// # Errors
    ///
    /// [`CallError`]; also if there is no watch.
    pub async fn stop_watch(&self, service: &str) -> Result<Status, CallError> {
        let path = format!("/v1/services/{service}/watch/stop");
        self.call(Call::post(&path, "{}".to_owned())).await
    }

    /// Sets the endpoints of a color. Requests that are in flight on other endpoints are completed.
    ///
    /// # Errors
    ///
    /// [`CallError`]; also if the color is active and the request does not say `force`.
    pub async fn set_pool(
        &self,
        service: &str,
        color: &str,
        request: &PoolRequest,
    ) -> Result<Status, CallError> {
        self.set_pool_if(service, color, request, None).await
    }

    /// Sets the endpoints of a color, but only if `generation` is the current one, if there is one. Otherwise the
    /// response is a 412.
    ///
    /// # Errors
    ///
    /// As for [`Caller::set_pool`].
    pub async fn set_pool_if(
        &self,
        service: &str,
        color: &str,
        request: &PoolRequest,
        generation: Option<u64>,
    ) -> Result<Status, CallError> {
        let path = format!("/v1/services/{service}/pools/{color}");
        let mut call = Call { method: Method::PUT, ..Call::post(&path, json(request)) };
        if let Some(generation) = generation {
            call = call.if_generation(generation);
        }
        self.call(call).await
    }

    /// The progress of a drain: of `color`, or else of the color that is not active. Returns when the drain is
    /// complete or after `wait`, which is at most an hour.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn drain(
        &self,
        service: &str,
        color: Option<&str>,
        wait: Duration,
    ) -> Result<DrainStatus, CallError> {
        let color = color.map(|it| format!("color={it}&")).unwrap_or_default();
        let path = format!("/v1/services/{service}/drain?{color}wait={}ms", wait.as_millis());
        self.call(Call { wait, ..Call::get(&path) }).await
    }

    /// The progress of a drain, as [`Caller::drain`] says, but returns only when it is safe to stop the color: when it is
    /// drained, and nothing else may need it.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn wait_until_safe_to_stop(
        &self,
        service: &str,
        color: Option<&str>,
        wait: Duration,
    ) -> Result<DrainStatus, CallError> {
        let color = color.map(|it| format!("color={it}&")).unwrap_or_default();
        let wait_ms = wait.as_millis();
        let path = format!("/v1/services/{service}/drain?{color}wait={wait_ms}ms&for=safe_to_stop");
        self.call(Call { wait, ..Call::get(&path) }).await
    }

    /// Signs pins with a new key from now on.
    ///
    /// # Errors
    ///
    /// [`CallError`]; if it was refused, nothing has changed.
    pub async fn rotate_pin_keys(&self) -> Result<Status, CallError> {
        self.call(Call::post("/v1/pins/rotate", "{}".to_owned())).await
    }

    /// Holds new requests of a service: they wait, without a claim on any color.
    ///
    /// # Errors
    ///
    /// [`CallError`]; also if another caller holds the service.
    pub async fn hold(&self, service: &str, request: &HoldRequest) -> Result<Status, CallError> {
        self.call(Call::post(&format!("/v1/services/{service}/hold"), json(request))).await
    }

    /// Lets held requests go, in the order in which they came. Without a hold nothing changes.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn release(
        &self,
        service: &str,
        request: &ReleaseRequest,
    ) -> Result<Status, CallError> {
        self.call(Call::post(&format!("/v1/services/{service}/release"), json(request))).await
    }

    /// Answers new requests of a service with 503.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn begin_maintenance(
        &self,
        service: &str,
        request: &MaintenanceRequest,
    ) -> Result<Status, CallError> {
        self.call(Call::post(&format!("/v1/services/{service}/maintenance"), json(request))).await
    }

    /// Takes new requests of a service again. Without maintenance nothing changes.
    ///
    /// # Errors
    ///
    /// [`CallError`].
    pub async fn end_maintenance(&self, service: &str) -> Result<Status, CallError> {
        let path = format!("/v1/services/{service}/maintenance");
        let call = Call::get(&path);
        self.call(Call { method: Method::DELETE, ..call }).await
    }

    /// Ends the streams that a flip has left on `color`, or else on the color that is not active. Returns at once.
    ///
    /// # Errors
    ///
    /// [`CallError`]; also if the color is active.
    pub async fn end_streams(
        &self,
        service: &str,
        color: Option<&str>,
    ) -> Result<DrainStatus, CallError> {
        let path = format!("/v1/services/{service}/drain");
        let request = EndStreamsRequest { color: color.map(str::to_owned), end_streams: true };
        self.call(Call::post(&path, json(&request))).await
    }

    /// Reads the configuration file again and applies it, all of it or nothing.
    ///
    /// # Errors
    ///
    /// [`CallError`]; also if the file has mistakes.
    pub async fn reload(&self) -> Result<Status, CallError> {
        self.call(Call::post("/v1/reload", String::new())).await
    }
}

fn json(request: &impl Serialize) -> String {
    serde_json::to_string(request).expect("the requests are of strings, numbers and booleans")
}
