//! Command-line options that say where the admin API is and who calls it, for every program that calls it.

use std::{io, path::PathBuf};

use clap::Args;

use crate::client::{Caller, Target};

/// The options `--admin` and `--token-file`, and the environment variables `FLIPGATE_ADMIN` and
/// `FLIPGATE_TOKEN`.
#[derive(Args, Clone, Debug)]
pub struct CallerArguments {
    /// The admin API: http://HOST:PORT or unix:/PATH
    #[arg(
        long = "admin",
        value_name = "URL",
        env = "FLIPGATE_ADMIN",
        default_value = "http://127.0.0.1:9900"
    )]
    url: Target,
    /// A file with the token
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The token itself; only by the environment, since command lines are seen by others
    #[arg(long, hide = true, env = "FLIPGATE_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

/// The file with the token cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}: {error}", path.display())]
pub struct TokenFileError {
    /// The file.
    pub path: PathBuf,
    /// The system's error.
    pub error: io::Error,
}

impl CallerArguments {
    /// The caller that these options describe. Reads the file with the token.
    ///
    /// # Errors
    ///
    /// If that file cannot be read.
    pub fn caller(&self) -> Result<Caller, TokenFileError> {
        let token = match &self.token_file {
            None => self.token.clone(),
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|error| TokenFileError { path: path.clone(), error })?;
                Some(text.trim().to_owned())
            }
        };
        Ok(Caller { target: self.url.clone(), token })
    }
}
