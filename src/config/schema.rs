//! The JSON schema of the configuration, for editors.
//!
//! It describes the form of each key. What only the reader can know, such as whether a file exists or two services
//! have the same host, is left to `flipgate check`.

mod keys;

use serde_json::{Map, Value, json};

use self::keys::{
    ENDPOINT, PAGE, ROOT, SchemaKey,
    ValueKind::{
        self, Duration, DurationOrNone, Endpoints, Flag, Named, Numbers, Pages, Path, Size,
        StringTable, Strings, Table, Tables, Text, Whole, WholeOr, WordList, Words,
    },
};
use crate::proxy::PAGE_STATUSES;

/// The JSON schema of the configuration (draft 2020-12).
#[must_use]
pub fn schema() -> Value {
    let mut schema = table(ROOT);
    schema.insert("$schema".into(), json!("https://json-schema.org/draft/2020-12/schema"));
    schema.insert("title".into(), json!("Flipgate configuration"));
    Value::Object(schema)
}

fn table(keys: &[SchemaKey]) -> Map<String, Value> {
    let property = |(name, kind, about): &SchemaKey| {
        let mut property = value(kind);
        property.insert("description".into(), json!(about));
        ((*name).to_owned(), Value::Object(property))
    };
    let properties: Map<_, _> = keys.iter().map(property).collect();
    object(json!({"type": "object", "additionalProperties": false, "properties": properties}))
}

fn value(kind: &ValueKind) -> Map<String, Value> {
    // A number may come from an environment variable.
    let variable = json!({"type": "string", "pattern": "\\$\\{"});
    let whole = |low: &u64, high: &u64| json!({"type": "integer", "minimum": low, "maximum": high});
    object(match kind {
        Text | Path => json!({"type": "string"}),
        Duration => json!({"type": "string", "examples": ["500ms", "30s", "1m 30s"]}),
        DurationOrNone => json!({"type": "string", "examples": ["none", "500ms", "30s"]}),
        Size => json!({"type": "string", "examples": ["none", "500B", "32KiB", "10MiB"]}),
        Whole(low, high) => json!({"anyOf": [whole(low, high), variable]}),
        WholeOr(words, low, high) => {
            json!({"anyOf": [{"enum": words}, whole(low, high), variable]})
        }
        Flag => json!({"anyOf": [{"type": "boolean"}, variable]}),
        Words(words) => json!({"anyOf": [{"enum": words}, variable]}),
        Numbers(low, high) => json!({"type": "array", "items": whole(low, high)}),
        Strings => json!({"type": "array", "items": {"type": "string"}}),
        WordList(words) => {
            json!({"type": "array", "items": {"anyOf": [{"enum": words}, variable]}})
        }
        Endpoints => {
            let mut weighted = table(ENDPOINT);
            weighted.insert("required".into(), json!(["address"]));
            json!({"type": "array", "items": {"anyOf": [{"type": "string"}, weighted]}})
        }
        Pages => json!({
            "type": "object",
            "propertyNames": {"enum": PAGE_STATUSES.map(|it| it.to_string())},
            "additionalProperties": {"anyOf": [{"type": "string"}, table(PAGE)]},
        }),
        StringTable => json!({"type": "object", "additionalProperties": {"type": "string"}}),
        Table(keys) => return table(keys),
        Tables(keys) => json!({"type": "array", "items": table(keys)}),
        Named(keys) => json!({
            "type": "object",
            "propertyNames": {"pattern": "^[a-z0-9][a-z0-9_-]{0,62}$"},
            "additionalProperties": table(keys),
        }),
    })
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => unreachable!("every caller passes an object"),
    }
}
