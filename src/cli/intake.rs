//! `hold`, `release` and `maintenance`.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use flipgate_api::{
    CallerArguments, OutputArguments, escape,
    wire::{HoldRequest, MaintenanceRequest, ReleaseRequest, Status},
};

use super::{
    arguments::{Verbosity, count},
    exit::CommandError,
    output::done,
};
use crate::continuity::{HoldSettings, Maintenance};

#[derive(Args, Debug)]
pub(super) struct HoldArguments {
    /// The service
    service: String,
    /// How long it lasts if nothing releases it, at most 5m [default: the setting of the service, 10s]
    #[arg(long = "for", value_name = "TIME", value_parser = flipgate_drill::parse_time)]
    length: Option<Duration>,
    /// How many requests may wait [default: the setting of the service, 1000]
    #[arg(long, value_name = "NUMBER", value_parser = count(1, HoldSettings::PLACES_MAX))]
    requests: Option<usize>,
    /// Also if another caller holds the service; needs --reason
    #[arg(long)]
    force: bool,
    /// The reason, for the log
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    admin: CallerArguments,
    #[command(flatten)]
    output: OutputArguments,
}

#[derive(Args, Debug)]
pub(super) struct ReleaseArguments {
    /// The service
    service: String,
    /// Only this hold: if there is another one by now, nothing changes
    #[arg(long, value_name = "NUMBER")]
    id: Option<u64>,
    /// The reason, for the log
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    admin: CallerArguments,
    #[command(flatten)]
    output: OutputArguments,
}

#[derive(Args, Debug)]
pub(super) struct MaintenanceArguments {
    /// The service
    service: String,
    /// The page, a file of HTML
    #[arg(long, value_name = "FILE")]
    page: Option<PathBuf>,
    /// When clients should come again, at most 24h [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = flipgate_drill::parse_time)]
    retry_after: Option<Duration>,
    /// Let internal clients through
    #[arg(long)]
    except_internal: bool,
    /// The reason, for the log
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// End the maintenance
    #[arg(long, conflicts_with_all = ["page", "retry_after", "except_internal", "reason"])]
    end: bool,
    #[command(flatten)]
    admin: CallerArguments,
    #[command(flatten)]
    output: OutputArguments,
}

pub(super) async fn hold(
    arguments: HoldArguments,
    verbosity: Verbosity,
) -> Result<u8, CommandError> {
    let HoldArguments { service, length, requests, force, reason, admin, output } = arguments;
    let length = length.map(|it| format!("{}ms", it.as_millis()));
    let requests = requests.map(|it| u64::try_from(it).unwrap_or(u64::MAX));
    let request = HoldRequest { length, requests, force, reason };
    let status = admin.caller()?.hold(&service, &request).await?;
    let hold = status.services.get(&service).and_then(|it| it.hold.as_ref());
    let text = hold.map_or_else(String::new, |it| {
        let (left, places) = (Duration::from_millis(it.remaining_ms), it.requests);
        format!(", {:.1} s are left, for at most {places} requests", left.as_secs_f64())
    });
    done(&status, output, verbosity, &format!("{} is held{text}", escape(&service)))
}

pub(super) async fn release(
    arguments: ReleaseArguments,
    verbosity: Verbosity,
) -> Result<u8, CommandError> {
    let ReleaseArguments { service, id, reason, admin, output } = arguments;
    let caller = admin.caller()?;
    // Afterwards the first requests have gone already.
    let before = caller.status().await?;
    let status = caller.release(&service, &ReleaseRequest { id, reason }).await?;
    let hold = |status: &Status| status.services.get(&service).and_then(|it| it.hold.clone());
    let text = match (hold(&before), hold(&status)) {
        (_, Some(hold)) if !hold.releasing => {
            format!("is still held, by hold {} of {}", hold.id, escape(&hold.owner))
        }
        (None, None) => "is not held".to_owned(),
        (Some(hold), _) | (None, Some(hold)) => {
            let s = if hold.waiting == 1 { "" } else { "s" };
            format!("is released; {} request{s} waited", hold.waiting)
        }
    };
    done(&status, output, verbosity, &format!("{} {text}", escape(&service)))
}

pub(super) async fn maintenance(
    arguments: MaintenanceArguments,
    verbosity: Verbosity,
) -> Result<u8, CommandError> {
    let MaintenanceArguments {
        service,
        page,
        retry_after,
        except_internal,
        reason,
        end,
        admin,
        output,
    } = arguments;
    let caller = admin.caller()?;
    let name = escape(&service).into_owned();
    if end {
        let status = caller.end_maintenance(&service).await?;
        return done(&status, output, verbosity, &format!("{name} is not in maintenance"));
    }
    let page = page.map(|it| read_page(&it)).transpose()?;
    let retry_after = retry_after.map(|it| format!("{}ms", it.as_millis()));
    let request = MaintenanceRequest { page, retry_after, except_internal, reason };
    let status = caller.begin_maintenance(&service, &request).await?;
    let text = format!("{name} is in maintenance; end it with `flipgate maintenance {name} --end`");
    done(&status, output, verbosity, &text)
}

/// Reads a page, and no more of a file than a page may have.
fn read_page(path: &Path) -> Result<String, CommandError> {
    let wrong = |what: &dyn std::fmt::Display| {
        CommandError::usage(format!("cannot use {} as the page: {what}", path.display()))
    };
    let most = Maintenance::PAGE_MAX;
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?.take(most as u64 + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|error| wrong(&error))?;
    if bytes.len() > most {
        return Err(wrong(&format_args!("it has more than {most} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| wrong(&"it is not UTF-8"))
}
