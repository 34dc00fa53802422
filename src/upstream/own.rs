//! Refuses connections to Flipgate's own addresses: a name or a symbolic link may come to point there, and the public
//! must not reach the admin API through a service.

use std::{
    io,
    net::SocketAddr,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
};

use super::{
    connect::{ConnectFailure, ConnectReason},
    connect_config::ConnectConfig,
};
use crate::model::{Endpoint, EndpointAddress, OwnAddress, OwnAddresses};

/// Why the file of a `unix:` endpoint cannot be an application's socket, by its current metadata. A missing file is
/// allowed: the application may not have started. Blocks.
#[must_use]
pub fn invalid_socket(endpoint: &Endpoint, own: &OwnAddresses) -> Option<String> {
    let EndpointAddress::Unix(path) = &endpoint.address else { return None };
    let path = Path::new(&**path);
    let metadata = path.metadata().ok()?;
    if !metadata.file_type().is_socket() {
        return Some(format!("`{endpoint}` is not a socket"));
    }
    own_socket(path, own).map(|it| format!("`{endpoint}` is {it}; use the application's socket"))
}

/// Which of Flipgate's own sockets this file is, whatever its path.
fn own_socket<'a>(path: &Path, own: &'a OwnAddresses) -> Option<&'a OwnAddress> {
    let mut sockets = own.sockets().peekable();
    sockets.peek()?;
    let identity = |it: &Path| it.metadata().map(|it| (it.dev(), it.ino())).ok();
    let metadata = identity(path)?;
    sockets.find(|(own, _)| identity(own) == Some(metadata)).map(|(_, address)| address)
}

impl ConnectConfig {
    /// Refuses one of Flipgate's own addresses.
    pub(super) fn refuse_own(&self, address: SocketAddr) -> Result<(), ConnectFailure> {
        self.own.find_address(address).map_or(Ok(()), |it| Err(refused(&it)))
    }

    /// Refuses one of Flipgate's own unix sockets. Reads the file's metadata.
    pub(super) fn refuse_own_socket(&self, path: &Path) -> Result<(), ConnectFailure> {
        own_socket(path, &self.own).map_or(Ok(()), |it| Err(refused(it)))
    }
}

fn refused(own: &OwnAddress) -> ConnectFailure {
    let reason = format!("the address is {own}; use the address of the application");
    (ConnectReason::Own, io::Error::other(reason))
}
