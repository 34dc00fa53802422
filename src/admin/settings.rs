//! Where the API listens, and its tokens.

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr};

use subtle::ConstantTimeEq;

/// The settings of the API.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct AdminSettings {
    /// The address of the API.
    pub listen: AdminAddress,
    /// Accepted host names, besides addresses and `localhost`.
    pub hosts: Vec<String>,
    /// Whether a change must name the generation that it was decided on.
    pub require_if_match: bool,
    /// Whether callers on this machine need a token too.
    pub require_token: bool,
    /// The tokens.
    pub tokens: Vec<Token>,
}

/// An address of the API.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AdminAddress {
    /// An IP address and a port.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
}

/// A token and its scope.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Token {
    /// The name of its owner, for the log.
    pub name: String,
    /// Its scope.
    pub scope: Scope,
    /// The token itself.
    pub secret: Secret,
}

/// What a caller may do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scope {
    /// Read.
    Read,
    /// Read, and approve versions.
    Approve,
    /// Read, set pools, promote and roll back. Not approve: another person does that.
    Promote,
    /// Everything.
    Admin,
}

/// The text of a token. Never printed.
#[derive(Clone)]
pub struct Secret(Box<str>);

/// Not an address of the API.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{0}` is not an admin address: write \"127.0.0.1:9900\" or \"unix:/run/flipgate.sock\"")]
pub struct ParseAddressError(String);

/// Not a scope.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{0}` is not a scope: write \"read\", \"approve\", \"promote\" or \"admin\"")]
pub struct ParseScopeError(String);

/// A token that is too easy to guess, or cannot be sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a token is 16 to 512 visible ASCII characters: make one with `openssl rand -hex 32`")]
pub struct SecretError;

// === impl AdminAddress ===

impl AdminAddress {
    /// Whether only this machine can reach it.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl Default for AdminAddress {
    fn default() -> Self {
        Self::Tcp(SocketAddr::from(([127, 0, 0, 1], 9900)))
    }
}

impl FromStr for AdminAddress {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, ParseAddressError> {
        match text.strip_prefix("unix:") {
            Some("") => Err(ParseAddressError(text.to_owned())),
            Some(path) => Ok(Self::Unix(path.into())),
            None => text.parse().map(Self::Tcp).map_err(|_| ParseAddressError(text.to_owned())),
        }
    }
}

impl fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "http://{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

// === impl Scope ===

impl Scope {
    /// Whether a token of this scope may make a call that needs the scope `needed`.
    #[must_use]
    pub fn allows(self, needed: Self) -> bool {
        self == needed || self == Self::Admin || needed == Self::Read
    }
}

impl FromStr for Scope {
    type Err = ParseScopeError;

    fn from_str(text: &str) -> Result<Self, ParseScopeError> {
        match text {
            "read" => Ok(Self::Read),
            "approve" => Ok(Self::Approve),
            "promote" => Ok(Self::Promote),
            "admin" => Ok(Self::Admin),
            other => Err(ParseScopeError(other.to_owned())),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Approve => "approve",
            Self::Promote => "promote",
            Self::Admin => "admin",
        })
    }
}

// === impl Secret ===

impl Secret {
    /// A token with this text.
    ///
    /// # Errors
    ///
    /// [`SecretError`] if it is too short, too long or has other characters.
    pub fn new(text: &str) -> Result<Self, SecretError> {
        let is_plain = text.bytes().all(|it| it.is_ascii_graphic());
        match is_plain && (16..=512).contains(&text.len()) {
            true => Ok(Self(text.into())),
            false => Err(SecretError),
        }
    }

    /// Whether `text` is this token, in constant time.
    #[must_use]
    pub fn is(&self, text: &str) -> bool {
        self.0.as_bytes().ct_eq(text.as_bytes()).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.is(&other.0)
    }
}

impl Eq for Secret {}
