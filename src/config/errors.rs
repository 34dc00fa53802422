//! The error pages of a service: `[service.X.errors]`.

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use serde::de::IgnoredAny;

use super::{
    files::read_regular,
    reader::{Section, Value, ValueOrTable},
    settings::path,
};
use crate::{
    model::{ErrorPage, ErrorPages},
    proxy::PAGE_STATUSES,
};

/// The format of a page, by the end of its file name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Format {
    Html,
    Json,
}

/// The pages of a service, each read from its file.
pub(super) fn error_pages(section: &Section<'_>) -> Option<Arc<ErrorPages>> {
    let pages = section.values_or_tables(|key, entry| {
        let status = status(key)?;
        let page = match entry {
            ValueOrTable::Value(value) => {
                let (format, text) = file(value)?;
                match format {
                    Format::Html => ErrorPage { html: Some(text), json: None },
                    Format::Json => ErrorPage { html: None, json: Some(text) },
                }
            }
            ValueOrTable::Table(table) => both(&table)?,
        };
        Ok((status, page))
    });
    (!pages.is_empty()).then(|| Arc::new(pages.into_iter().collect()))
}

/// `{ html = "503.html", json = "503.json" }`.
fn both(table: &Section<'_>) -> Result<ErrorPage, String> {
    let page = |key, expected| {
        table.read(key, None, |it| match file(it)? {
            (format, text) if format == expected => Ok(Some(text)),
            _ => Err(format!("expected a file that ends in `.{key}`")),
        })
    };
    let page = ErrorPage { html: page("html", Format::Html), json: page("json", Format::Json) };
    table.finish();
    match table.has("html") || table.has("json") {
        true => Ok(page),
        false => {
            Err("the table is empty\nwrite { html = \"503.html\", json = \"503.json\" }".to_owned())
        }
    }
}

fn status(key: &str) -> Result<u16, String> {
    let status = key.parse().ok().filter(|it| PAGE_STATUSES.contains(it) && key.len() == 3);
    status.ok_or_else(|| {
        let [first @ .., last] = PAGE_STATUSES.map(|it| it.to_string());
        format!(
            "no error of Flipgate for a request of this service has the status `{key}`\nwrite {} or {last}; responses of the \
             application stay as they are",
            first.join(", ")
        )
    })
}

/// Reads a page.
fn file(value: Value<'_>) -> Result<(Format, Bytes), String> {
    let file = path(value)?;
    let format = match file.extension().and_then(|it| it.to_str()) {
        Some("html") => Format::Html,
        Some("json") => Format::Json,
        _ => {
            return Err(format!(
                "`{}` ends neither in `.html` nor in `.json`, so that the type of the page is not known",
                name(&file)
            ));
        }
    };
    let shown = file.display();
    let text = read_regular(&file, ErrorPages::PAGE_MAX)
        .map_err(|error| format!("cannot read {shown}: {error}"))?;
    if text.trim().is_empty() {
        return Err(format!("{shown} is empty"));
    }
    if format == Format::Json {
        serde_json::from_str::<IgnoredAny>(&text)
            .map_err(|error| format!("{shown} is not JSON: {error}"))?;
    }
    Ok((format, text.into()))
}

fn name(file: &Path) -> String {
    file.file_name().unwrap_or(file.as_os_str()).to_string_lossy().into_owned()
}
