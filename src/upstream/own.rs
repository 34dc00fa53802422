//! Endpoints that turn out to be the process itself when a connection is to be opened: a name may come to point
//! there, or a symbolic link. The admin API must not be reached from the public by such a detour.

use std::{
    io,
    net::SocketAddr,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
};

use super::{
    connect::{ConnectFailure, ConnectReason},
    endpoint_state::ConnectConfig,
};
use crate::model::{Endpoint, EndpointAddress, OwnAddress, OwnAddresses};

/// Why the file of a `unix:` endpoint can be none, as the file system shows it now. A file that is not there is
/// made when the application starts. Blocks.
#[must_use]
pub fn invalid_socket(endpoint: &Endpoint, own: &OwnAddresses) -> Option<String> {
    let EndpointAddress::Unix(path) = &endpoint.place else { return None };
    let path = Path::new(&**path);
    let metadata = path.metadata().ok()?;
    if !metadata.file_type().is_socket() {
        return Some(format!("`{endpoint}` is a file that is no socket"));
    }
    own_socket(path, own).map(|it| format!("`{endpoint}` is {it}: write that of the application"))
}

/// Which of the sockets that the process listens on this file is, whatever its path.
fn own_socket<'a>(path: &Path, own: &'a OwnAddresses) -> Option<&'a OwnAddress> {
    let mut sockets = own.sockets().peekable();
    sockets.peek()?;
    let identity = |it: &Path| it.metadata().map(|it| (it.dev(), it.ino())).ok();
    let metadata = identity(path)?;
    sockets.find(|(own, _)| identity(own) == Some(metadata)).map(|(_, address)| address)
}

impl ConnectConfig {
    /// Refuses an address of the process itself.
    pub(super) fn refuse_own(&self, address: SocketAddr) -> Result<(), ConnectFailure> {
        self.own.find_address(address).map_or(Ok(()), |it| Err(refused(&it)))
    }

    /// Refuses the file of a socket that the process listens on. Asks the file system.
    pub(super) fn refuse_own_socket(&self, path: &Path) -> Result<(), ConnectFailure> {
        own_socket(path, &self.own).map_or(Ok(()), |it| Err(refused(it)))
    }
}

fn refused(own: &OwnAddress) -> ConnectFailure {
    let reason = format!("it is {own}: use the address of the application");
    (ConnectReason::Own, io::Error::other(reason))
}
