//! Deployments in stages, which can be undone: pause workers, set a pool, run gates, promote, drain, and whatever else a plan
//! says.
//!
//! A rollout is a list of events, kept in the state. The machine ([`Machine`]) says what follows from them, and the executor does it. What a
//! rollout changes in Flipgate's own state is committed together with the event that says so, so a killed process comes back
//! to exactly where the rollout was. Other stages are written down before they begin and after they end.

mod begin;
mod board;
mod call;
mod child;
mod durations;
mod event;
mod events;
mod executor;
mod handle;
mod left;
mod machine;
mod masking;
mod own_state;
mod plan;
mod record;
mod runner;
mod running;
mod settings;
mod stages;
mod values;
mod waits;

pub use self::{
    begin::{BeginCall, DeploymentCall, new_id, wrong_version},
    call::ReadyUrl,
    child::{HELPER, HelperProgram, run_helper},
    event::{ChildId, Direction, Entry, Event, Failure, Step},
    handle::{KnownRollout, RolloutError, Rollouts},
    left::left_to_do,
    machine::{Cause, Impossible, Machine, Next, Outcome, Progress, StageState, Stuck},
    plan::{
        Action, AfterPatience, AfterPromotion, Call, Drain, DrainGoal, Exec, Hold, IfFailed,
        IfInterrupted, Plan, Promote, Retry, SecretSource, SetPool, Side, Stage, Target, Undo,
        Until, Watch,
    },
    record::{Deployment, Owner, Record, RecordError},
    runner::RolloutRunner,
    settings::RolloutSettings,
    values::{OF_ROLLOUT, OF_SERVICE, SECRET, placeholders},
};
