//! `approval`: a person has approved the candidate at the version that it has.

use std::{
    collections::BTreeSet,
    time::{SystemTime, UNIX_EPOCH},
};

use futures_util::{FutureExt, future::BoxFuture};

use crate::{
    model::{ApprovalGate, Color},
    release::{
        candidate::Candidate,
        duration_text::written,
        gate::{Findings, Gate, GateName},
    },
    store::{Approval, ServiceState},
};

#[derive(Debug)]
pub(super) struct Approved(pub(super) ApprovalGate);

impl Gate for Approved {
    fn name(&self) -> GateName {
        GateName::Approval
    }

    fn check<'a>(&'a self, candidate: &'a Candidate) -> BoxFuture<'a, Findings> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let Candidate { service, color, state, .. } = candidate;
        let findings = judge(&self.0, state, *color, now);
        let findings = findings.map_err(|reason| {
            format!("{reason}; approve it with `flipgate approve {service}={color}`")
        });
        let findings = match findings {
            Ok(evidence) => Findings::passed(evidence),
            Err(reason) => Findings::refused(reason),
        };
        async move { findings }.boxed()
    }
}

/// Who approved the pool, or what is missing. `now` is in Unix seconds.
fn judge(
    gate: &ApprovalGate,
    state: &ServiceState,
    color: Color,
    now: u64,
) -> Result<String, String> {
    let ApprovalGate { expires, four_eyes } = gate;
    let of_pool: Vec<_> = state.approvals.iter().filter(|it| it.color == color).collect();
    // An approval from the future was made before the clock was set back.
    let is_valid = |it: &&&Approval| it.at <= now && now - it.at < expires.as_secs();
    let valid: Vec<_> = of_pool.iter().filter(is_valid).collect();
    if valid.is_empty() {
        return Err(match of_pool.last() {
            Some(it) => format!(
                "the approval of {color} by {} has expired after {}",
                it.by,
                written(*expires)
            ),
            None => format!("{color} is not approved"),
        });
    }
    let names: Vec<_> = valid.iter().map(|it| &*it.by).collect();
    let approved = format!("{color} is approved by {}", names.join(" and "));
    if !four_eyes {
        return Ok(approved);
    }
    let mut identities: BTreeSet<&str> =
        valid.iter().filter(|it| it.is_authenticated).map(|it| &*it.by).collect();
    if identities.is_empty() {
        return Err(format!("{approved}, without a token; four_eyes counts callers with a token"));
    }
    let set_by = state.pool(color).set_by.as_deref();
    identities.extend(set_by);
    match (identities.len(), set_by) {
        (2.., Some(set_by)) => Ok(format!("{approved}, and was set by {set_by}")),
        (2.., None) => Ok(approved),
        (_, Some(set_by)) => {
            Err(format!("{approved}, and was set by {set_by}; four_eyes needs another person"))
        }
        (_, None) => Err(format!(
            "{approved}; four_eyes needs a second approval, because no caller with a token has set the pool"
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{Endpoint, PoolSpec};

    fn gate(four_eyes: bool) -> ApprovalGate {
        ApprovalGate { expires: Duration::from_secs(60), four_eyes }
    }

    fn state(set_by: Option<&str>, approvals: &[(Color, &str, u64)]) -> ServiceState {
        let mut state = ServiceState::fresh(Color::Blue, PoolSpec::default(), PoolSpec::default());
        state.green.set_by = set_by.map(Into::into);
        for (color, by, at) in approvals {
            let (color, at) = (*color, *at);
            let is_authenticated = *by != "local";
            state.approve(Approval { color, by: (*by).into(), is_authenticated, at });
        }
        state
    }

    fn is_allowed(four_eyes: bool, state: &ServiceState, now: u64) -> bool {
        judge(&gate(four_eyes), state, Color::Green, now).is_ok()
    }

    #[test]
    fn an_approval_is_for_one_color_and_expires() {
        let state = state(None, &[(Color::Green, "ada", 100)]);
        assert!(is_allowed(false, &state, 100) && is_allowed(false, &state, 159));
        assert!(!is_allowed(false, &state, 160) && !is_allowed(false, &state, 99));
        let refused = judge(&gate(false), &state, Color::Blue, 100);
        assert_eq!(refused, Err("blue is not approved".to_owned()));
    }

    #[test]
    fn four_eyes_needs_two_identities_with_a_token() {
        use Color::Green;
        let allowed = |set_by, approvals: &[_]| is_allowed(true, &state(set_by, approvals), 0);
        assert!(allowed(Some("ada"), &[(Green, "bob", 0)]));
        assert!(!allowed(Some("ada"), &[(Green, "ada", 0)]));
        assert!(!allowed(Some("ada"), &[]));
        assert!(!allowed(Some("ada"), &[(Green, "local", 0)]));
        assert!(allowed(Some("ada"), &[(Green, "local", 0), (Green, "bob", 0)]));
        assert!(!allowed(None, &[(Green, "bob", 0)]));
        assert!(allowed(None, &[(Green, "bob", 0), (Green, "ada", 0)]));
        assert!(!allowed(None, &[(Green, "bob", 0), (Color::Blue, "ada", 0)]));
    }

    #[test]
    fn a_change_of_the_pool_voids_its_approval() {
        let mut state = state(None, &[(Color::Green, "ada", 0), (Color::Blue, "ada", 0)]);
        let spec = PoolSpec::new("9".parse().ok(), Vec::<Endpoint>::new()).expect("a pool");
        state.follow_file(Color::Green, &spec);
        assert!(!is_allowed(false, &state, 0));
        assert_eq!(state.approvals.len(), 1, "the approval of the other pool stays");
    }
}
