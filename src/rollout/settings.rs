//! The plans of the configuration, and what they need.

use std::collections::BTreeMap;

use super::{
    child::HelperProgram,
    plan::{Plan, SecretSource},
    values::Secrets,
};

/// The plans of the configuration, and what they need.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RolloutSettings {
    /// The plans, by name.
    pub plans: BTreeMap<String, Plan>,
    /// Whether stages may run commands.
    pub exec: bool,
    /// The environment variables that plans name as secrets.
    pub environment: BTreeMap<String, String>,
    /// The program of the helper that runs commands.
    pub helper: HelperProgram,
}

// === impl RolloutSettings ===

impl RolloutSettings {
    /// The secrets of a plan, by name.
    pub(super) fn secrets(&self, plan: &Plan) -> Secrets {
        let read = |name: &String, source: &SecretSource| match source {
            SecretSource::Env(variable) => {
                let value = self.environment.get(variable).cloned();
                value.ok_or_else(|| {
                    format!("secret `{name}`: the environment variable {variable} is not set")
                })
            }
            SecretSource::File(path) => read_secret(path)
                .map_err(|error| format!("secret `{name}`: {}: {error}", path.display())),
        };
        plan.secrets.iter().map(|(name, source)| (name.clone(), read(name, source))).collect()
    }
}

/// The most bytes of the file of a secret.
const SECRET_MAX: u64 = 64 * 1024;

/// The first line of a file.
fn read_secret(path: &std::path::Path) -> Result<String, String> {
    use std::io::Read;
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    if !file.metadata().map_err(|error| error.to_string())?.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    let mut text = String::new();
    file.take(SECRET_MAX).read_to_string(&mut text).map_err(|error| error.to_string())?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(line.to_owned()),
        _ => Err("it has no first line".to_owned()),
    }
}
