//! The guided tour.

/// Options.
#[derive(Debug)]
pub struct Options {
    /// Stay.
    pub stay: bool,
    /// Json.
    pub json: bool,
}

/// Runs.
pub fn run(_options: &Options) -> Result<bool, std::io::Error> {
    Err(std::io::Error::other("not yet"))
}
