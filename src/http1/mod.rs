//! HTTP/1 parsing and encoding: heads as offsets, and bodies decoded without I/O.
//!
//! This room knows nothing of sockets, services or policy. A head is parsed in the buffer that it was read into. Its
//! framing is decided here, once and strictly: if a proxy reads a message differently than the next server, the
//! difference can be used to smuggle requests. An ambiguous request is rejected and never repaired: line ends that are
//! not CRLF, a `Content-Length` with a `Transfer-Encoding`, a second `Host`.
//!
//! Sections without a document are those of RFC 9112.

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

/// The HTTP version of a message.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum HttpVersion {
    /// HTTP/1.0: no chunked coding, no interim responses, and no keep-alive unless both sides ask for it.
    Http10,
    /// HTTP/1.1.
    Http11,
}

// === impl Version ===

impl HttpVersion {
    /// As in a start line.
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
