//! JSON values as values of CEL.

use std::{collections::HashMap, sync::Arc};

use cel::{Value as CelValue, objects::Key};
use serde_json::Value;

/// The same value, with signed whole numbers.
///
/// # Errors
///
/// If a whole number has more than 63 bits.
pub(super) fn to_cel(json: &Value) -> Result<CelValue, String> {
    Ok(match json {
        Value::Null => CelValue::Null,
        Value::Bool(value) => CelValue::Bool(*value),
        Value::Number(number) => match (number.as_i64(), number.is_u64(), number.as_f64()) {
            (Some(whole), ..) => CelValue::Int(whole),
            (None, false, Some(float)) => CelValue::Float(float),
            _ => return Err(format!("the number {number} is too large")),
        },
        Value::String(text) => CelValue::String(Arc::new(text.clone())),
        Value::Array(items) => {
            CelValue::List(Arc::new(items.iter().map(to_cel).collect::<Result<_, _>>()?))
        }
        Value::Object(fields) => {
            let field = |(name, value): (&String, &Value)| {
                Ok((Key::String(Arc::new(name.clone())), to_cel(value)?))
            };
            let fields = fields.iter().map(field).collect::<Result<HashMap<_, _>, String>>()?;
            CelValue::Map(fields.into())
        }
    })
}
