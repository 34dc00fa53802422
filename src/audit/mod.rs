//! The audit log: one JSON line for each call that changes something, allowed or refused, and for each change that
//! Flipgate makes by itself.
//!
//! Each line has the hash of the line before it, so that a changed, missing or moved line is found. This module makes
//! and checks lines. It does no file I/O: `store` keeps the lines and writes the files.

mod chain;
mod entry;
mod limit;
mod settings;
mod verify;

pub use self::{
    chain::{LineDamage, LineHash, LineLinks, line, links},
    entry::{AuditEntry, AuditLine, AuditResult, AuditVerdict, FLIPGATE, VerdictResult},
    limit::RefusalLimit,
    settings::AuditSettings,
    verify::{AuditAnchor, AuditDamage, AuditFile, LinePlace, Verification, verify},
};
