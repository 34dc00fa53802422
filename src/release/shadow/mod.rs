//! Compares the responses of two versions to copies of live requests: the parts of the gate `shadow`.
//!
//! Each copied request goes to the candidate once and to the active color twice. What differs between the two responses
//! of the active color is noise, such as a timestamp, and is not judged. Comparison and verdict are pure.

mod answer;
mod coding;
mod compare;
mod copied;
mod exchange;
mod tally;
mod verdict;

pub(super) use self::{answer::Normalization, exchange::Exchange, tally::Tally, verdict::Verdict};
