//! Pages that clients of a service get instead of the text of an error of Flipgate.

use std::collections::BTreeMap;

use bytes::Bytes;

/// The pages of a service, by status. Only for errors that Flipgate makes itself.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ErrorPages(BTreeMap<u16, ErrorPage>);

/// The page for one status, in one or two formats. Clones share the text.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ErrorPage {
    /// For clients that prefer HTML.
    pub html: Option<Bytes>,
    /// For clients that prefer JSON.
    pub json: Option<Bytes>,
}

// === impl ErrorPages ===

impl ErrorPages {
    /// The largest page, in bytes.
    pub const PAGE_MAX: usize = 256 << 10;

    /// The page for a status.
    #[must_use]
    pub fn get(&self, status: u16) -> Option<&ErrorPage> {
        self.0.get(&status)
    }
}

impl FromIterator<(u16, ErrorPage)> for ErrorPages {
    fn from_iter<T: IntoIterator<Item = (u16, ErrorPage)>>(pages: T) -> Self {
        Self(pages.into_iter().collect())
    }
}
