//! A load harness that checks what a proxy promises: requests of many kinds, flips while they are under
//! way, and a judge who has seen both.
//!
//! It is a client, of Flipgate as of any other proxy: it knows the colors and the wire types of the admin
//! API, and nothing of what is behind them. What it cannot see it does not judge, and says so.
//!
//! ```text
//! command ─▶ options   the command line, and what it asks for
//!            run       from the options to the report: calls the others in turn
//!            stage     starts sample applications and the proxy, kills and restarts them
//!            subject   where the services are
//!            prepare   sets these up, and finds what does not fit together
//!            load      threads of clients that keep to a rate (door: connections; traffic: kinds)
//!            conduct   flips, changes and kills (steps), and what the proxy tells of drains
//!            record    everything with its times
//!            check     which promises held: pure
//!            report    terminal, JSON, page
//! ```

mod check;
mod color;
pub mod command;
mod conduct;
mod door;
mod error;
mod live;
mod load;
mod measure;
mod options;
mod prepare;
mod program;
mod progress;
mod protocol;
mod record;
mod report;
mod run;
pub mod sample;
mod stage;
mod steps;
mod subject;
mod times;
mod tls;
mod traffic;

pub use self::{
    check::{Finding, Promise, Verdict, Violation, register},
    color::{Color, ParseColorError},
    error::DrillError,
    options::{Control, Mix, Options, Pace, Service, Speed, Subject as SubjectOptions, Upstream},
    program::Program,
    progress::spinner,
    protocol::Protocol,
    record::{Kind, Outcome},
    report::Report,
    run::run,
    steps::{Line, Step, When, parse_time},
};
