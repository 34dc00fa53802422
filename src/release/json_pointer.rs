//! Places in JSON documents, as JSON pointers (RFC 6901).

use serde_json::Value;

/// Removes the value at a pointer, if there is one.
pub(super) fn remove(json: &mut Value, pointer: &str) {
    let Some((parent, key)) = pointer.rsplit_once('/') else { return };
    let key = key.replace("~1", "/").replace("~0", "~");
    match json.pointer_mut(parent) {
        Some(Value::Object(fields)) => drop(fields.remove(&key)),
        Some(Value::Array(items)) => {
            if let Ok(index) = key.parse::<usize>()
                && index < items.len()
            {
                items.remove(index);
            }
        }
        _ => {}
    }
}

/// The pointers of the first `max` values that differ. A value that only one document has, and arrays of different
/// lengths, differ as a whole.
pub(super) fn differences(one: &Value, other: &Value, max: usize) -> Vec<String> {
    let mut found = Vec::new();
    collect(one, other, max, &mut String::new(), &mut found);
    found
}

fn collect(one: &Value, other: &Value, max: usize, place: &mut String, found: &mut Vec<String>) {
    if found.len() >= max {
        return;
    }
    let length = place.len();
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            let names = one.keys().chain(other.keys().filter(|it| !one.contains_key(*it)));
            for name in names {
                place.push('/');
                place.push_str(&name.replace('~', "~0").replace('/', "~1"));
                match (one.get(name), other.get(name)) {
                    (Some(one), Some(other)) => collect(one, other, max, place, found),
                    _ if found.len() < max => found.push(place.clone()),
                    _ => {}
                }
                place.truncate(length);
            }
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            for (index, (one, other)) in one.iter().zip(other).enumerate() {
                place.push_str(&format!("/{index}"));
                collect(one, other, max, place, found);
                place.truncate(length);
            }
        }
        _ if one != other => found.push(place.clone()),
        _ => {}
    }
}

/// Whether a place is the place `outer`, or within it.
pub(super) fn is_within(place: &str, outer: &str) -> bool {
    place.strip_prefix(outer).is_some_and(|it| it.is_empty() || it.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_difference_is_named_by_its_pointer() {
        let of = |one: Value, other: Value| differences(&one, &other, 3);
        assert_eq!(of(json!({"a": [1, {"b/c": 2}]}), json!({"a": [1, {"b/c": 3}]})), ["/a/1/b~1c"]);
        assert_eq!(of(json!({"a": 1}), json!({"a": 1, "b~": 2})), ["/b~0"]);
        assert_eq!(of(json!({"a": [1]}), json!({"a": [1, 2]})), ["/a"]);
        assert_eq!(of(json!({"a": 1, "b": 2}), json!({"b": 2, "a": 1})), [""; 0]);
        assert_eq!(of(json!([1, 2, 3, 4, 5]), json!([1, 0, 0, 0, 0])), ["/1", "/2", "/3"]);
        assert_eq!(of(json!(1), json!("1")), [""], "the whole document");
    }

    #[test]
    fn a_removed_value_is_gone_and_nothing_else() {
        let mut json = json!({"host": "a", "build": {"host": "b", "x/y": 1}, "list": [1, 2]});
        for pointer in ["/host", "/build/x~1y", "/list/0", "/list/9", "/none/a", "none"] {
            remove(&mut json, pointer);
        }
        assert_eq!(json, json!({"build": {"host": "b"}, "list": [2]}));
    }

    #[test]
    fn a_place_is_within_itself_and_the_places_around_it() {
        for (place, outer) in [("/a/b", "/a"), ("/a", "/a"), ("/a", "")] {
            assert!(is_within(place, outer), "{place} {outer}");
        }
        for (place, outer) in [("/ab", "/a"), ("/a", "/a/b"), ("", "/a")] {
            assert!(!is_within(place, outer), "{place} {outer}");
        }
    }
}
