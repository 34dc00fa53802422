//! Lines of the status about what comes before and after promotions: watches, confirmations and approvals.

use super::times::shown_time;
use flipgate_api::{
    escape,
    wire::{ServiceStatus, ShareEndStatus, Status},
};

/// A line for each watch, confirmation and approval.
pub(super) fn pending(status: &Status) -> Vec<String> {
    let of = |(name, service): (&String, &ServiceStatus)| lines(&escape(name), service);
    status.services.iter().flat_map(of).collect()
}

fn lines(name: &str, service: &ServiceStatus) -> Vec<String> {
    let active = escape(&service.active);
    let mut lines = Vec::new();
    if let Some(watch) = &service.watch {
        let rescue = if watch.rescue { "; with rescue" } else { "" };
        lines.push(format!(
            "{name}: {active} is watched until {}: {} of {} requests failed ({} %){rescue}",
            shown_time(&watch.until),
            watch.failures,
            watch.requests,
            watch.errors
        ));
    }
    lines.extend(share_line(name, service));
    lines.extend(share_end_line(name, service));
    if let Some(rollout) = &service.rollout {
        let id = escape(rollout);
        lines.push(format!("{name}: rollout {id} is in progress: `flipgate rollout {id}`"));
    }
    if let Some(until) = &service.confirm_by {
        lines.push(format!(
            "{name}: {active} will be rolled back at {} unless you run `flipgate confirm {name}`",
            shown_time(until)
        ));
    }
    for (color, pool) in &service.pools {
        if let Some(pins) = &pool.pins {
            let (color, until) = (escape(color), shown_time(&pins.until));
            lines.push(match pins.count {
                Some(1) => format!("{name}: 1 transaction is pinned to {color}, until {until} at the latest"),
                Some(count) => format!(
                    "{name}: {count} transactions are pinned to {color}, until {until} at the latest"
                ),
                None => format!("{name}: transactions may be pinned to {color} until {until}"),
            });
        }
        for approval in &pool.approvals {
            let until = approval.until.as_ref().map(|it| format!(" until {}", shown_time(it)));
            let (color, by) = (escape(color), escape(&approval.by));
            let until = until.unwrap_or_default();
            lines.push(format!("{name}: {color} is approved by {by}{until}"));
        }
    }
    lines
}

/// How the gradual promotion of a service stands, if there is one. `name` is printed as it is.
pub(super) fn share_line(name: &str, service: &ServiceStatus) -> Option<String> {
    let share = service.share.as_ref()?;
    let (color, until) = (escape(&share.color), shown_time(&share.until));
    let (step, steps) = (share.step, share.steps.len());
    let (percent, failures, requests) = (share.percent, share.failures, share.requests);
    let judged = match &share.waiting {
        None => format!("until {until}): {failures} of {requests} requests failed"),
        Some(reason) => format!(
            "waits for a verdict): {}; go on with `flipgate promote {name}={color}`, or back with `flipgate rollback {name}`",
            escape(reason)
        ),
    };
    let first = share
        .first_token
        .as_ref()
        .map(|it| format!("; internal clients and holders of the token {} go first", escape(it)));
    Some(format!(
        "{name}: {color} has a share of {percent} % (step {step} of {steps}, {judged}{}",
        first.unwrap_or_default()
    ))
}

/// How the last gradual promotion of a service was taken back, if nothing has replaced it.
fn share_end_line(name: &str, service: &ServiceStatus) -> Option<String> {
    let ShareEndStatus { color, at, by, reason } = service.share_ended.as_ref()?;
    let reason = reason.as_ref().map(|it| format!(": {}", escape(it))).unwrap_or_default();
    let (color, at, by) = (escape(color), shown_time(at), escape(by));
    Some(format!("{name}: the gradual promotion of {color} was taken back at {at} by {by}{reason}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status(web: &serde_json::Value) -> Status {
        let status = json!({"generation": 1, "services": {"web": web}});
        serde_json::from_value(status).expect("a status")
    }

    #[test]
    fn a_line_says_what_is_pending_and_until_when() {
        let pool = |approvals: serde_json::Value| {
            json!({
                "role": "active", "version": null, "source": "file", "in_flight": 0,
                "endpoints": [], "approvals": approvals,
            })
        };
        let web = json!({
            "active": "green", "previous": "blue",
            "watch": {"until": "12:05", "errors": 0.25, "failures": 3, "requests": 1200},
            "confirm_by": "12:02",
            "pools": {
                "blue": pool(json!([])),
                "green": pool(json!([{"by": "al\u{202e}ice", "at": "11:00", "until": "13:00"}])),
            },
        });
        assert_eq!(
            pending(&status(&web)),
            [
                "web: green is watched until 12:05: 3 of 1200 requests failed (0.25 %)",
                "web: green will be rolled back at 12:02 unless you run `flipgate confirm web`",
                "web: green is approved by al\\u{202e}ice until 13:00",
            ]
        );
        let ended = json!({
            "active": "blue", "previous": null, "pools": {},
            "share_ended": {"color": "green", "at": "2026-11-29T08:00:01.5Z", "by": "watch", "reason": "9 of 64 failed"},
        });
        assert_eq!(
            pending(&status(&ended)),
            [
                "web: the gradual promotion of green was taken back at 2026-11-29T08:00:01Z by watch: 9 of 64 failed"
            ]
        );
        let quiet =
            json!({"active": "green", "previous": null, "pools": {"green": pool(json!([]))}});
        assert_eq!(pending(&status(&quiet)), [] as [String; 0]);
    }
}
