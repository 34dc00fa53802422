//! The watch after a promotion: judges the answers of the new color, and takes the promotion back if they are bad.

mod clients;
mod judge;
mod mixture;
