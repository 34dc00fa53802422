//! Prepares a drill: starts processes, and checks that the steps are possible before any request.

use flipgate_api::Caller;

use super::{
    error::DrillError,
    load::LoadPlan,
    options::{Control, Mix, Options, TargetOptions, Upstream},
    processes::Processes,
    program::Program,
    steps::{ProcessName, ScriptLine, Step},
    target::Target,
    times::Times,
    traffic::Sizes,
};
use crate::color::Color;

/// Starts the sample applications, and resolves the addresses of the services. Does not start the proxy.
pub(super) async fn set_up(
    options: &Options,
    processes: &mut Processes,
) -> Result<Target, DrillError> {
    let target = match &options.target {
        TargetOptions::Demo { services, endpoints, flipgate } => {
            Target::demo(processes, *services, *endpoints, flipgate, options).await?
        }
        TargetOptions::Urls(services) => Target::from_urls(services, options).await?,
    };
    for Upstream { service, color, address } in &options.upstreams {
        if !target.names().contains(service) {
            let known = target.names().join(", ");
            return Err(DrillError::Usage(format!(
                "--upstream {service}.{color}: there is no service {service}; the services are {known}"
            )));
        }
        processes.add(target.index(service), *color, *address).await?;
    }
    if let Some(command) = &options.proxy {
        // The shell is replaced by the proxy, so signals reach the proxy.
        let arguments = vec!["-c".to_owned(), format!("exec {command}")];
        processes.set_proxy(Program::at("sh"), arguments);
    }
    Ok(target)
}

/// Checks that each step is possible: its services, processes and calls exist, and it is due during the load.
pub(super) fn check_steps(
    options: &Options,
    control: &Control,
    target: &Target,
    processes: &Processes,
) -> Result<(), DrillError> {
    let usage = |text: String| Err(DrillError::Usage(text));
    let known = |name: &String| match target.names().contains(name) {
        true => Ok(()),
        false => usage(format!(
            "there is no service {name}; the services are {}",
            target.names().join(", ")
        )),
    };
    let is_for_all = matches!(control, Control::Command(it) if !it.contains("{service}"));
    let times = Times::of(options);
    for ScriptLine { step, when } in &options.steps {
        if !times.includes(*when) {
            return usage(format!(
                "the step `{when} {step}` is never due: the measured load takes {:?}",
                options.duration
            ));
        }
        let has_transactions = options.mix.as_ref().is_some_and(Mix::has_transactions);
        let ends_pins = matches!(
            step,
            Step::Rollback(_) | Step::Replace(..) | Step::Refuse(_) | Step::Guard(..)
        );
        if has_transactions && ends_pins {
            return usage(format!(
                "`{step}` ends transactions: use it without scan and page in --mix"
            ));
        }
        match step {
            Step::Flip(names) if !names.is_empty() && is_for_all => {
                return usage(
                    "one call of the --flip command flips all services; to flip one of them, put {service} into it"
                        .to_owned(),
                );
            }
            Step::Promote(pairs) if pairs.len() < target.names().len() && is_for_all => {
                return usage(
                    "one call of the --flip command flips all services; to flip one of them, put {service} into it"
                        .to_owned(),
                );
            }
            Step::Flip(names) => {
                names.iter().try_for_each(known)?;
                if matches!(control, Control::None) {
                    return usage("a flip needs --admin URL or --flip COMMAND".to_owned());
                }
            }
            Step::Promote(pairs) => pairs.iter().try_for_each(|(name, _)| known(name))?,
            Step::Rollback(names) => names.iter().try_for_each(known)?,
            Step::Replace(name, color) => {
                known(name)?;
                if processes.endpoints(target.index(name), *color).is_empty() {
                    return usage(format!(
                        "replace {name}.{color}: the drill did not start its endpoints; use --upstream"
                    ));
                }
            }
            Step::Reload => {}
            Step::Refuse(name) | Step::Guard(name, _) => {
                known(name)?;
                if Color::BOTH
                    .iter()
                    .any(|it| processes.endpoints(target.index(name), *it).is_empty())
                {
                    return usage(format!(
                        "{step}: the drill did not start the endpoints of {name}; use --upstream"
                    ));
                }
            }
            Step::Gradual(name, ..) => {
                known(name)?;
                if options.mix.as_ref().is_some_and(|it| !it.has_cookies()) {
                    return usage(format!(
                        "`{step}` needs clients with cookies: add visitor=10 to --mix"
                    ));
                }
            }
            Step::Process(_, ProcessName::Proxy) if !processes.has_proxy() => {
                return usage("the drill did not start the proxy; use --proxy COMMAND".to_owned());
            }
            Step::Process(_, ProcessName::Proxy) => {}
            Step::Process(_, ProcessName::Endpoint(name, color, number)) => {
                known(name)?;
                if !processes.has_endpoint(target.index(name), *color, *number) {
                    return usage(format!("{name}.{color}.{number}: the drill did not start it"));
                }
            }
        }
        let is_of_admin = matches!(
            step,
            Step::Rollback(_)
                | Step::Replace(..)
                | Step::Reload
                | Step::Refuse(_)
                | Step::Guard(..)
                | Step::Gradual(..)
        );
        if is_of_admin && !matches!(control, Control::Admin(_)) {
            return usage(
                "rollback, replace, reload, refuse, guard and gradual need Flipgate's admin API; use --admin URL"
                    .to_owned(),
            );
        }
    }
    Ok(())
}

/// Checks that a flip command without `{service}` is possible: all services must have the same active color.
pub(super) fn check_flip_command(
    control: &Control,
    target: &Target,
    active: &[Color],
) -> Result<(), DrillError> {
    let Control::Command(command) = control else { return Ok(()) };
    let is_even = active.iter().all(|it| Some(it) == active.first());
    if command.contains("{service}") || is_even {
        return Ok(());
    }
    let colors: Vec<_> =
        target.names().iter().zip(active).map(|(name, it)| format!("{name}={it}")).collect();
    Err(DrillError::Usage(format!(
        "one call of `{command}` flips all services to one color, but now the active colors are {}; put {{service}} \
         into the command",
        colors.join(" ")
    )))
}

/// The active color of each service, from the admin API.
pub(super) async fn active_colors(
    caller: &Caller,
    target: &Target,
) -> Result<Vec<Color>, DrillError> {
    let status = caller.status().await?;
    let of = |name: &String| {
        let service = status.services.get(name).ok_or_else(|| {
            let known: Vec<_> = status.services.keys().cloned().collect();
            DrillError::Usage(format!(
                "Flipgate has no service {name}; its services are {}",
                known.join(", ")
            ))
        })?;
        service
            .active
            .parse()
            .map_err(|_| DrillError::Call(format!("{name}: `{}` is not a color", service.active)))
    };
    target.names().iter().map(of).collect()
}

pub(super) fn load_plan(options: &Options, target: &Target) -> LoadPlan {
    let mix = options.mix.clone().unwrap_or_else(|| {
        let usual = match target.demo {
            Some(_) => Mix::demo_default(target.names().len()),
            None => Mix::default_mix(),
        };
        if options.is_gradual() { usual.with_visitors() } else { usual }
    });
    LoadPlan {
        mix,
        sizes: Sizes {
            download_bytes: options.download_bytes,
            upload_bytes: options.upload_bytes,
            stream_time: options.stream_time,
            has_reconnects: target.has_reconnects,
        },
        threads: options.threads,
        seed: options.seed,
        count: options.count,
    }
}
