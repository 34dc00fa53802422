//! What the requests of gates and of rollouts have in common.

use http::{HeaderName, Method};

use super::reader::{Value, text};

/// The method of a request that Flipgate makes itself.
pub(super) fn request_method(value: Value<'_>) -> Result<&str, String> {
    let method = text(value)?;
    match Method::from_bytes(method.as_bytes()) {
        Ok(Method::CONNECT) | Err(_) => {
            Err(format!("`{method}` is not a method for a request like this"))
        }
        Ok(_) => Ok(method),
    }
}

/// The name of a header of such a request, in lower case.
pub(super) fn request_header(name: &str) -> Result<HeaderName, String> {
    let parsed = name.parse::<HeaderName>();
    let name = parsed.map_err(|_| format!("`{name}` is not the name of a header"))?;
    match name.as_str() {
        "connection" | "content-length" | "transfer-encoding" | "te" | "upgrade" => {
            Err(format!("Flipgate sets `{name}` itself"))
        }
        _ => Ok(name),
    }
}
