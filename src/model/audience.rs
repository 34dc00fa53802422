//! Who is asking.

use std::fmt;

/// Who is asking: everybody, or a client of the networks that may see a color before it is active.
///
/// Not `Default`: whoever needs one must have decided it. Where nothing is known, it is `Public`.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Audience {
    /// Anybody. Gets the active color and nothing else.
    Public,
    /// A client whose verified address lies in `clients.internal`. May wish for a color.
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
