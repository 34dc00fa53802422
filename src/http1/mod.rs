//! HTTP/1 as bytes: heads read into offsets, bodies framed by machines without I/O.
//!
//! Knows nothing of sockets, services or policy. A head is parsed where it was read, and what it
//! means for framing is decided here, once and strictly, since an edge that reads a message in
//! another way than whoever stands behind it can be used to smuggle requests past it. A request that
//! cannot be read in one way only is refused, never repaired: line ends that are not CRLF, a length
//! beside a coding, a second `Host`.
//!
//! The sections are those of RFC 9112 where no other is named.

mod body;
mod chunk_extension;
mod encode;
mod field_name;
mod fields;
mod reject;
mod request;
mod response;
mod scan;
mod target;

pub use self::{
    body::{BodyError, DecodeStep, Decoder},
    encode::{Encoding, put_field, put_number},
    field_name::FieldName,
    fields::{FieldLine, FieldLines, Fields, Framing, members},
    reject::{HeadLimits, HeadRejection},
    request::RequestHead,
    response::{InvalidResponse, ResponseHead},
    scan::HeadScanner,
    target::TargetForm,
};

/// The version of a message. There is no other: HTTP/0.9 has no head, and HTTP/2 another framing.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Version {
    /// HTTP/1.0: no chunks, no interim answers, and a connection ends unless both agree otherwise.
    Http10,
    /// HTTP/1.1.
    Http11,
}

// === impl Version ===

impl Version {
    /// As it stands in a head.
    #[must_use]
    pub fn as_bytes(self) -> &'static [u8] {
        match self {
            Self::Http10 => b"HTTP/1.0",
            Self::Http11 => b"HTTP/1.1",
        }
    }

    fn of(minor: Option<u8>) -> Option<Self> {
        match minor {
            Some(0) => Some(Self::Http10),
            Some(1) => Some(Self::Http11),
            _ => None,
        }
    }
}
