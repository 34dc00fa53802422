//! The commands with their options, as `--help` shows them.

use std::{path::PathBuf, time::Duration};

use clap::Subcommand;
use flipgate_api::{CallerArguments, OutputArguments};
use flipgate_drill::command::{DrillCommand, SampleCommand};

use super::{
    arguments::{self, ChangeArguments, ConfigArguments, PoolName, StepArguments, count},
    audit,
    check_samples::ManifestArgument,
    deploy, gates, intake, pins, rollouts, state,
};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the proxy in the foreground
    ///
    /// SIGTERM completes requests in flight and ends the process; a second SIGTERM ends it at once. SIGHUP reads the
    /// configuration again.
    #[command(
        after_help = "Examples:\n  flipgate run\n  flipgate run --config config/minimal.toml"
    )]
    Run(ConfigArguments),
    /// Check a configuration file and report every mistake
    #[command(after_help = "Examples:\n  flipgate check flipgate.toml\n  \
                            generate-config | flipgate check -\n  \
                            flipgate check --json flipgate.toml | jq '.[].message'\n  \
                            flipgate check --manifest old=7.9.json --manifest new=8.0.json\n\n\
                            Exit code: 0 no mistakes (there may be warnings), 2 mistakes, 3 a rule refuses the\n\
                            manifests")]
    Check {
        /// The configuration file, or - for standard input
        #[arg(value_name = "FILE", conflicts_with = "config")]
        file: Option<PathBuf>,
        /// A manifest of the old or the new version: also runs the rules of the gate `compatible` for both
        #[arg(long, value_name = "old=FILE|new=FILE")]
        manifest: Vec<ManifestArgument>,
        #[command(flatten)]
        config: ConfigArguments,
        #[command(flatten)]
        output: OutputArguments,
    },
    /// Print the JSON schema of the configuration
    #[command(after_help = "Example: flipgate schema > flipgate.schema.json")]
    Schema,
    /// Read the configuration again and apply it, all of it or nothing
    #[command(after_help = "Example: flipgate reload\n\n\
                            Exit code: 0 applied, 2 mistakes in the file, 3 a change needs a restart")]
    Reload {
        #[command(flatten)]
        admin: CallerArguments,
        #[command(flatten)]
        output: OutputArguments,
    },
    /// Show the stored state
    #[command(subcommand, after_help = "Example: flipgate state show --config flipgate.toml")]
    State(state::StateCommand),
    /// Show who has changed what
    ///
    /// Reads the audit files of a state folder; a running Flipgate is not disturbed.
    #[command(after_help = "Examples:\n  flipgate audit --service web --limit 20\n  \
                            flipgate audit --json | jq 'select(.result != \"done\")'\n  \
                            flipgate audit verify")]
    Audit(audit::AuditArguments),
    /// Show services, colors, roles, versions, requests in flight and health
    #[command(after_help = "Examples:\n  flipgate status\n  flipgate status web --watch\n  \
                            flipgate status --json | jq .generation")]
    Status {
        /// Only this service, with all of its endpoints
        service: Option<String>,
        /// Print the status again when it has changed, until Ctrl-C
        #[arg(short, long)]
        watch: bool,
        #[command(flatten)]
        admin: CallerArguments,
        #[command(flatten)]
        output: OutputArguments,
    },
    /// Ask whether Flipgate is ready for requests
    #[command(
        after_help = "Example: flipgate ready\n\nExit code: 0 ready, 1 not ready or not reachable"
    )]
    Ready {
        #[command(flatten)]
        admin: CallerArguments,
        #[command(flatten)]
        output: OutputArguments,
    },
    /// Make colors active, all in one step or none of them
    #[command(
        after_help = "Examples:\n  flipgate promote web=green api=green --wait-drain 30s\n  \
                      flipgate promote web=green --if-generation 41 --reason 'release 8.0'\n  \
                      flipgate promote web=green --steps 1,10,50,100 --step-for 2m\n\n\
                      Exit code: 0 done, 1 active already, 2 usage or no connection, 3 refused, 4 stale generation, 5 not drained in time"
    )]
    Promote {
        /// Each service with its color
        #[arg(required = true, value_name = "SERVICE=COLOR", value_parser = arguments::parse_pair)]
        services: Vec<(String, String)>,
        /// Take the promotion back unless `flipgate confirm` comes within this time
        #[arg(long, value_name = "TIME", value_parser = flipgate_drill::parse_time)]
        confirm_within: Option<Duration>,
        #[command(flatten)]
        steps: StepArguments,
        #[command(flatten)]
        arguments: ChangeArguments,
    },
    /// Make the colors active that were active before the last promotion
    #[command(
        after_help = "Examples:\n  flipgate rollback\n  flipgate rollback web --wait-drain 30s\n\n\
                      Exit code: 0 done, 3 refused, 4 stale generation, 5 not drained in time"
    )]
    Rollback {
        /// The services; by default all of the last promotion
        #[arg(value_name = "SERVICE")]
        services: Vec<String>,
        #[command(flatten)]
        arguments: ChangeArguments,
    },
    /// Deploy versions by a plan: set the pools, run the gates, promote, drain, watch; and undo all of it on a failure
    ///
    /// The stages run in Flipgate. A lost connection loses nothing: `flipgate deploy --resume ID` looks on. Without a plan in
    /// the configuration, the built-in one sets the pools, waits until they are healthy, runs the gates, promotes, and waits for
    /// the drain and the watch.
    #[command(
        after_help = "Examples:\n  flipgate deploy web --version 8.0 --endpoint 10.0.0.8:9000\n  \
                      flipgate deploy web=8.0@10.0.0.8:9000 api=8.0@10.0.0.9:9000 --plan nightly\n  \
                      flipgate deploy web --version 8.0 --endpoint 10.0.0.8:9000 --dry-run\n  \
                      flipgate deploy --resume 20261129-081502-k7q2\n\n\
                      Exit code: 0 done, 1 no connection, 2 usage, 3 refused by a gate or before anything began (nothing has changed),\n\
                      6 failed and undone, 7 failed and not fully undone, 130 detached by a signal"
    )]
    Deploy(deploy::DeployArguments),
    /// List the rollouts in progress, and the last ones
    #[command(after_help = "Example: flipgate rollouts")]
    Rollouts {
        #[command(flatten)]
        admin: CallerArguments,
        #[command(flatten)]
        output: OutputArguments,
    },
    /// Show a rollout, or decide about it
    #[command(after_help = "Examples:\n  flipgate rollout 20261129-081502-k7q2\n  \
                      flipgate rollout 20261129-081502-k7q2 --wait 10m\n  \
                      flipgate rollout cancel 20261129-081502-k7q2\n\n\
                      Exit code: 0 shown or done, 3 not possible now; with --wait that of `flipgate deploy`, and 5 if it is not over")]
    Rollout(rollouts::RolloutArguments),
    /// Run the command of a stage (used by Flipgate itself)
    #[command(name = crate::rollout::HELPER, hide = true, after_help = "Example: only Flipgate starts it")]
    Helper,
    /// Run the gates of a service as a promotion would, and change nothing
    #[command(after_help = "Examples:\n  flipgate gate web\n  \
                            flipgate gate web=green --json | jq '.gates[] | select(.passed | not)'\n\n\
                            Exit code: 0 every gate allows the promotion, 3 refused")]
    Gate {
        /// The service, or the service and the candidate
        #[arg(value_name = "SERVICE[=COLOR]", value_parser = arguments::parse_service)]
        service: (String, Option<String>),
        #[command(flatten)]
        admin: CallerArguments,
        #[command(flatten)]
        output: OutputArguments,
    },
    /// Approve a color at the version that it has
    ///
    /// For services with an approval gate. The approval expires, and a change of the pool voids it.
    #[command(
        after_help = "Examples:\n  flipgate approve web\n  flipgate approve web=green --version 8.1\n\n\
                            Exit code: 0 approved, 3 refused"
    )]
    Approve {
        /// The service, or the service and the color
        #[arg(value_name = "SERVICE[=COLOR]", value_parser = arguments::parse_service)]
        service: (String, Option<String>),
        /// Fail if the pool has another version
        #[arg(long, value_name = "TEXT")]
        version: Option<String>,
        /// The reason, for the log
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        #[command(flatten)]
        admin: CallerArguments,
        #[command(flatten)]
        output: OutputArguments,
    },
    /// Confirm promotions that would be taken back otherwise
    #[command(
        after_help = "Examples:\n  flipgate promote web=green --confirm-within 2m && ./test.sh && flipgate confirm web\n  \
                            flipgate confirm\n\nExit code: 0 confirmed, 3 nothing waits for a confirmation"
    )]
    Confirm {
        /// The services; by default all that wait
        #[arg(value_name = "SERVICE")]
        services: Vec<String>,
        #[command(flatten)]
        admin: CallerArguments,
        #[command(flatten)]
        output: OutputArguments,
    },
    /// Control the watch of a promotion
    #[command(subcommand, after_help = "Example: flipgate watch stop web")]
    Watch(gates::WatchCommand),
    /// Manage the keys that sign pins
    #[command(subcommand, after_help = "Example: flipgate pins rotate")]
    Pins(pins::PinsCommand),
    /// Hold new requests of a service: they wait until `flipgate release`
    ///
    /// Held requests have no claim on any color, so a flip meanwhile is one for all of them. The hold ends by itself.
    #[command(after_help = "Examples:\n  flipgate hold web --for 10s\n  \
                      flipgate hold web && flipgate promote web=green && flipgate release web\n\n\
                      Exit code: 0 held, 3 another caller holds the service")]
    Hold(intake::HoldArguments),
    /// Let the held requests of a service go, in the order in which they came
    #[command(after_help = "Example: flipgate release web\n\n\
                            Exit code: 0 the service is not held, or by another hold than --id")]
    Release(intake::ReleaseArguments),
    /// Answer new requests of a service with 503 and a page
    #[command(
        after_help = "Examples:\n  flipgate maintenance web --page maintenance.html --retry-after 10m --except-internal\n  \
                      flipgate maintenance web --end"
    )]
    Maintenance(intake::MaintenanceArguments),
    /// Set the version and the endpoints of a pool
    #[command(
        after_help = "Examples:\n  flipgate set web.green --version 8.1 --endpoint 10.0.0.2:9001 --wait-healthy 30s\n  \
                      flipgate set web.green --version 8.1 --endpoint 10.0.0.2:9001 --endpoint 10.0.0.3:9001\n\n\
                      Exit code: 0 done, 3 the color is in use, 4 stale generation, 5 not healthy in time"
    )]
    Set {
        /// The pool
        #[arg(value_name = "SERVICE.COLOR", value_parser = arguments::parse_pool)]
        pool: PoolName,
        /// The version that runs there
        #[arg(long, value_name = "TEXT")]
        version: Option<String>,
        /// An endpoint, such as host:port, https://host:port or unix:/path; repeat it for several
        #[arg(long = "endpoint", required = true, value_name = "ADDRESS")]
        endpoints: Vec<String>,
        /// Also if the color is active, transactions are pinned to it, or it is promoted gradually; ends these
        #[arg(long)]
        force: bool,
        /// Fail if this is not the current generation
        #[arg(long, value_name = "NUMBER")]
        if_generation: Option<u64>,
        /// Return when all endpoints are healthy, at most after this time
        #[arg(long, value_name = "TIME", value_parser = flipgate_drill::parse_time)]
        wait_healthy: Option<Duration>,
        #[command(flatten)]
        admin: CallerArguments,
        #[command(flatten)]
        output: OutputArguments,
    },
    /// Wait until all endpoints of a pool are healthy
    ///
    /// Also waits for a Flipgate that is still starting.
    #[command(after_help = "Example: flipgate wait web.green --timeout 2m\n\n\
                            Exit code: 0 healthy, 5 not in time")]
    Wait {
        /// The pool
        #[arg(value_name = "SERVICE.COLOR", value_parser = arguments::parse_pool)]
        pool: PoolName,
        /// The longest wait
        #[arg(long, value_name = "TIME", default_value = "30s", value_parser = flipgate_drill::parse_time)]
        timeout: Duration,
        #[command(flatten)]
        admin: CallerArguments,
        #[command(flatten)]
        output: OutputArguments,
    },
    /// Show which requests still hold a color that is not active, or end its streams
    #[command(
        after_help = "Examples:\n  flipgate drain web\n  flipgate drain web=blue --end-streams --wait 60s\n  \
                            flipgate drain web=blue --safe-to-stop --wait 60s && docker stop web-blue\n\n\
                            Exit code: 0 drained (with --safe-to-stop: safe to stop), 3 the color is active, 5 not yet"
    )]
    Drain {
        /// The service, or the service and the color that you want to stop
        #[arg(value_name = "SERVICE[=COLOR]", value_parser = arguments::parse_service)]
        service: (String, Option<String>),
        /// Wait until the color is drained, at most this long
        #[arg(long, value_name = "TIME", value_parser = flipgate_drill::parse_time)]
        wait: Option<Duration>,
        /// Wait until it is safe to stop the color: also until no watch or confirmation may need it
        #[arg(long)]
        safe_to_stop: bool,
        /// End WebSockets, event streams and other streams that a flip has left on the color, by the policies of the
        /// service but without their patience
        #[arg(long)]
        end_streams: bool,
        #[command(flatten)]
        admin: CallerArguments,
        #[command(flatten)]
        output: OutputArguments,
    },
    /// Follow the events, one line each
    #[command(after_help = "Example: flipgate events --json | jq 'select(.event == \"drained\")'")]
    Events {
        /// Begin after this event instead of now
        #[arg(long, value_name = "NUMBER")]
        after: Option<u64>,
        #[command(flatten)]
        admin: CallerArguments,
        #[command(flatten)]
        output: OutputArguments,
    },
    /// Run the sample application, the proxy and load in one process: preview, flip, drain and rollback
    #[command(after_help = "Examples:\n  flipgate demo\n  flipgate demo --stay    \
                            # and open it in a browser\n  flipgate demo --gates\n\n\
                            Exit code: 0 only if no request failed; with --gates: if the bad versions were refused and rolled back")]
    Demo {
        /// Keep everything running at the end, to open it in a browser
        #[arg(long)]
        stay: bool,
        /// Clients that send requests all the time
        #[arg(long, value_name = "NUMBER", default_value_t = 16, value_parser = count(1, 1000))]
        clients: usize,
        /// Flips under load at the end
        #[arg(long, value_name = "NUMBER", default_value_t = 100, value_parser = count(0, 100_000))]
        flips: usize,
        /// Show gates and the watch instead: a bad version, a good one, and one that turns bad
        #[arg(long, conflicts_with_all = ["stay", "clients", "flips"])]
        gates: bool,
        #[command(flatten)]
        output: OutputArguments,
    },
    /// Test a proxy: load, flips, and a check of every promise
    ///
    /// With --demo, the drill starts a Flipgate and sample applications. Otherwise it tests the proxy at --url, which
    /// has sample applications (`flipgate sample`) behind it. Flips are calls of the admin API, or any command.
    /// The report names the promises that could not be tested.
    #[command(after_help = flipgate_drill::command::examples("flipgate drill"))]
    Drill(Box<DrillCommand>),
    /// Run the sample application of the demo and the drill
    ///
    /// Pages under /, and traffic that the drill checks under /traffic: short, download, upload, events, ws, scan,
    /// page, visit, asset.
    #[command(
        after_help = "Example: flipgate sample --color green --version 8.0 --listen 127.0.0.1:9002"
    )]
    Sample(SampleCommand),
    /// Print the completions of a shell
    #[command(after_help = "Example: flipgate completions bash > /etc/bash_completion.d/flipgate")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages to a folder
    #[command(after_help = "Example: flipgate man /usr/local/share/man/man1")]
    Man {
        /// The folder
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
}
