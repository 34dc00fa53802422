//! The audience of a request.

use std::fmt;

/// The audience of a request: the public, or an internal client, which may see a color before it is active.
///
/// Not `Default`: the caller must decide. If nothing is known, it is `Public`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Audience {
    /// Any client. Gets the active color and nothing else.
    Public,
    /// A client with a verified address in `clients.internal`. May request a color.
    Internal,
}

impl fmt::Display for Audience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Public => "public",
            Self::Internal => "internal",
        })
    }
}
