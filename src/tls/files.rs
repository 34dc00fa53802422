//! Reads certificates and keys.

use std::{
    io,
    path::{Path, PathBuf},
};

use rustls::pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject},
};

/// A file that cannot be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{}: {what}", path.display())]
pub struct FileError {
    /// The file.
    pub path: PathBuf,
    /// The problem and the remedy.
    pub what: String,
}

/// The largest file that is read: a bundle of authorities has a few hundred KiB.
const SIZE_MAX: u64 = 4 * 1024 * 1024;

// === impl FileError ===

impl FileError {
    pub(super) fn new(path: &Path, what: impl std::fmt::Display) -> Self {
        Self { path: path.to_owned(), what: format!("{what}") }
    }
}

pub(super) fn not_its_key(key: &Path, cert: &Path) -> FileError {
    let what = format_args!("is not the key of the first certificate in {}", cert.display());
    FileError::new(key, what)
}

/// All certificates of a file, in order.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let text = read(path)?;
    let found = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(FileError::new(path, "has no certificate: it needs a BEGIN CERTIFICATE")),
        Err(error) => Err(FileError::new(path, explain(&error))),
    }
}

/// The first private key of a file.
pub(super) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, FileError> {
    let text = read(path)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        pem::Error::NoItemsFound => FileError::new(
            path,
            "has no private key: it needs a BEGIN PRIVATE KEY, RSA PRIVATE KEY or EC PRIVATE KEY, \
             without a passphrase",
        ),
        error => FileError::new(path, explain(&error)),
    })
}

fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    let failed = |error: io::Error| FileError::new(path, format_args!("cannot be read: {error}"));
    let known = std::fs::metadata(path).map_err(failed)?;
    if !known.is_file() {
        let what = if known.is_dir() { "is a folder, not a file" } else { "is no file" };
        return Err(FileError::new(path, what));
    }
    if known.len() > SIZE_MAX {
        return Err(FileError::new(path, "is larger than 4 MiB"));
    }
    let text = std::fs::read(path).map_err(failed)?;
    if memchr::memmem::find(&text, b"ENCRYPTED").is_some() {
        let what =
            "is encrypted: write it without a passphrase, with openssl pkey -in FILE -out NEW";
        return Err(FileError::new(path, what));
    }
    if !text.is_empty() && memchr::memmem::find(&text, b"-----BEGIN ").is_none() {
        let what = "is no PEM: a certificate in DER becomes one with openssl x509 -inform der";
        return Err(FileError::new(path, what));
    }
    Ok(text)
}

fn explain(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { .. } => "is cut off: a BEGIN has no END".to_owned(),
        error => format!("is no PEM: {error}"),
    }
}
