//! A load test that checks whether a blue/green proxy keeps its promises while it flips.
//!
//! Clients send requests of several kinds at a fixed rate. Meanwhile the drill flips services, kills or replaces
//! endpoints, and restarts the proxy. Afterwards a pure check of the recorded history finds which promises held.
//!
//! The drill is a client of Flipgate or of any other proxy. It shares no code with the proxy; all that it uses of
//! Flipgate is the admin API (`flipgate-api`). It reports a promise that it cannot observe as not tested.
//!
//! The program `flipgate-drill` and the commands `drill` and `sample` of `flipgate` use [`command`]. Other programs
//! call [`run()`] with [`Options`].
//!
//! ```text
//! command ─▶ options ─▶ run   from the options to the report: calls the others in turn
//!            processes        starts, kills and restarts sample applications and the proxy
//!            target           the addresses of the services
//!            prepare          starts what is needed, and checks that the options are consistent
//!            load             threads that send requests (connector: connections; traffic: kinds)
//!            scenario         flips, changes and kills (steps); what the proxy reports of drains
//!            record           the history: requests, flips, events and kills with their times
//!            check            which promises held: pure
//!            report           terminal, JSON, page
//! ```

mod check;
mod color;
pub mod command;
mod connector;
mod error;
mod live;
mod load;
mod measure;
mod options;
mod prepare;
mod processes;
mod program;
mod progress;
mod protocol;
mod record;
mod report;
mod run;
pub mod sample;
mod scenario;
mod steps;
mod target;
mod times;
mod tls;
mod traffic;

pub use self::{
    check::{Finding, Promise, Verdict, Violation, register},
    color::{Color, ParseColorError},
    error::DrillError,
    options::{Control, LoadMode, LoadSpec, Mix, Options, Service, TargetOptions, Upstream},
    program::Program,
    progress::spinner,
    protocol::Protocol,
    record::{Kind, Outcome},
    report::Report,
    run::run,
    steps::{ScriptLine, Step, When, parse_time},
};
