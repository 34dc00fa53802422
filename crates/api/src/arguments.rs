//! Command-line options of every program that calls the admin API: where the API is, who calls it, and the form of
//! the output.

use std::{
    io::{self, IsTerminal},
    path::PathBuf,
};

use clap::{Args, ValueEnum};

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

/// The options `--output` and `--json`.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct OutputArguments {
    /// The form of the output [default: a table in a terminal, JSON in a pipe]
    #[arg(long, value_name = "FORM")]
    output: Option<OutputForm>,
    /// Short for --output json
    #[arg(long, conflicts_with = "output")]
    json: bool,
}

/// The form of the output.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum OutputForm {
    /// For people.
    Table,
    /// For programs.
    Json,
}

impl OutputArguments {
    /// Whether to print JSON: if it was asked for, or if standard output is not a terminal.
    #[must_use]
    pub fn is_json(self) -> bool {
        self.form().map_or_else(|| !io::stdout().is_terminal(), |it| it == OutputForm::Json)
    }

    /// Whether to print JSON, for commands that print text in a pipe too.
    #[must_use]
    pub fn is_json_asked(self) -> bool {
        self.form() == Some(OutputForm::Json)
    }

    fn form(self) -> Option<OutputForm> {
        let Self { output, json } = self;
        if json { Some(OutputForm::Json) } else { output }
    }
}

impl CallerArguments {
    /// The caller that these options describe. Reads the file with the token.
    ///
    /// # Errors
    ///
    /// If that file cannot be read or is empty.
    pub fn caller(&self) -> Result<Caller, TokenFileError> {
        let token = match &self.token_file {
            None => self.token.clone(),
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|error| TokenFileError { path: path.clone(), error })?;
                let token = text.trim();
                if token.is_empty() {
                    let error = io::Error::new(io::ErrorKind::InvalidData, "it has no token");
                    return Err(TokenFileError { path: path.clone(), error });
                }
                Some(token.to_owned())
            }
        };
        Ok(Caller { target: self.url.clone(), token })
    }
}
