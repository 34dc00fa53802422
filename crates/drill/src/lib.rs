//! A load harness that checks whether a blue/green proxy keeps its promises while it flips.
//!
//! Clients send requests of many kinds at a fixed rate. Meanwhile services are flipped, endpoints are killed or
//! replaced, and the proxy is restarted. Afterwards a pure check judges the recorded history and says which
//! promises held.
//!
//! The drill is a client, of Flipgate as of any other proxy. It knows Flipgate by the admin API alone
//! (`flipgate-api`) and shares no code with the proxy. A promise that it cannot observe is reported as unchecked.
//!
//! The program `flipgate-drill` and the commands `drill` and `sample` of `flipgate` are [`command`]. Other programs
//! call [`run()`] with [`Options`].
//!
//! ```text
//! command ─▶ options ─▶ run   from the options to the report: calls the others in turn
//!            stage            starts sample applications and the proxy, kills and restarts them
//!            subject          where the services are
//!            prepare          sets these up, and checks that the options fit together
//!            load             threads of clients that keep to a rate (door: connections; traffic: kinds)
//!            conduct          flips, changes and kills (steps); what the proxy reports of drains
//!            record           everything that was seen, with its times
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
