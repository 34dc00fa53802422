//! Expressions and pools for the parts of Flipgate above.

use serde_json::Value;

use super::{expression::Expression, handle::Release};
use crate::upstream::PoolContext;

impl Release {
    /// The value of an expression over variables, on a thread of its own and with a time limit. Dropping the future does not
    /// stop the thread.
    ///
    /// # Errors
    ///
    /// Why it has none.
    pub async fn evaluate(
        &self,
        source: &str,
        variables: Vec<(String, Value)>,
    ) -> Result<Value, String> {
        let source = source.to_owned();
        let work = move || {
            let names: Vec<&str> = variables.iter().map(|it| it.0.as_str()).collect();
            let expression = Expression::parse(&source, &names).map_err(|it| it.to_string())?;
            let variables: Vec<(&str, &Value)> =
                variables.iter().map(|(name, value)| (name.as_str(), value)).collect();
            expression.value(&variables).map_err(|it| it.to_string())
        };
        self.evaluator().run(work).await?
    }

    /// What connections to other programs need.
    #[must_use]
    pub fn pool_context(&self) -> &PoolContext {
        self.pools()
    }
}
