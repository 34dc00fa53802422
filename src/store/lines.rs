//! The form of the state file: a line for the whole, then a line for each service, each behind its
//! own checksum, so that damage is found and stays where it is.
//!
//! ```text
//! 5f3c21aa {"flipgate":1,"generation":42,"services":["api","web"],"last_promotion":["web"],…}
//! 09b1d2c3 {"service":"api","truth":{"active":"blue","previous":null,"blue":{…},"green":{…}}}
//! 77ab0e12 {"service":"web","truth":{"active":"green","previous":"blue","blue":{…},"green":{…}}}
//! ```

use std::{borrow::Cow, collections::BTreeMap};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::truth::{Accepted, ServiceTruth, Truth};
use crate::model::{Generation, ServiceName};

/// The number of this form. A later one is refused rather than guessed at.
const FORM: u32 = 1;

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Head<'a> {
    flipgate: u32,
    generation: Generation,
    /// Whose lines follow; a lost line is missed by name.
    services: Vec<ServiceName>,
    last_promotion: Cow<'a, [ServiceName]>,
    accepted: Cow<'a, [Accepted]>,
}

/// A line names its service under its own checksum: a lost line must not pass another's for its own.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Entry<'a> {
    service: Cow<'a, ServiceName>,
    truth: Cow<'a, ServiceTruth>,
}

/// What is wrong with the file as a whole.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum Damage {
    #[error("line {line} {what}")]
    Line { line: usize, what: String },
    #[error("it has {found} lines where the first says {wanted}")]
    Lines { found: usize, wanted: usize },
    #[error("none of its {0} services can be read")]
    Everything(usize),
    #[error("it was written by a later Flipgate (form {0}, this one reads form {FORM})")]
    Later(u32),
}

/// The file's text.
pub(super) fn write(truth: &Truth) -> String {
    let Truth { generation, last_promotion, accepted, services, damaged } = truth;
    let names: BTreeMap<&ServiceName, String> = services
        .iter()
        .map(|(name, truth)| {
            let (service, truth) = (Cow::Borrowed(name), Cow::Borrowed(truth));
            (name, sealed(&Entry { service, truth }))
        })
        .chain(damaged.iter().map(|(name, raw)| (name, raw.clone())))
        .collect();
    let head = Head {
        flipgate: FORM,
        generation: *generation,
        services: names.keys().copied().cloned().collect(),
        last_promotion: Cow::Borrowed(last_promotion),
        accepted: Cow::Borrowed(accepted),
    };
    let mut text = sealed(&head);
    text.push('\n');
    for line in names.values() {
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// Reads the file. A service whose line is damaged is set aside; the others are as they were.
pub(super) fn read(bytes: &[u8]) -> Result<Truth, Damage> {
    // Damage may be no UTF-8; what replaces it fails that line's checksum.
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    let head: Head<'_> = opened(first).map_err(|what| Damage::Line { line: 1, what })?;
    if head.flipgate != FORM {
        return Err(Damage::Later(head.flipgate));
    }
    let lines: Vec<&str> = lines.collect();
    let count = head.services.len();
    if lines.len() > count {
        return Err(Damage::Lines { found: lines.len() + 1, wanted: count + 1 });
    }
    let mut truth = Truth {
        generation: head.generation,
        last_promotion: head.last_promotion.into_owned(),
        accepted: head.accepted.into_owned(),
        ..Truth::default()
    };
    let mut unreadable = Vec::new();
    for (place, line) in lines.into_iter().enumerate() {
        let Ok(Entry { service, truth: entry }) = opened::<Entry<'_>>(line) else {
            unreadable.push(line);
            continue;
        };
        let is_listed = head.services.contains(&service);
        if !is_listed || truth.services.contains_key(&*service) {
            let what = format!("is an entry of `{service}` that the first line does not have");
            return Err(Damage::Line { line: place + 2, what });
        }
        truth.services.insert(service.into_owned(), entry.into_owned());
    }
    // What cannot be read is kept for whoever looks into it, with one of those that are missing.
    let mut unreadable = unreadable.into_iter();
    for name in head.services {
        if !truth.services.contains_key(&name) {
            truth.damaged.insert(name, unreadable.next().unwrap_or_default().to_owned());
        }
    }
    if count > 0 && truth.services.is_empty() {
        return Err(Damage::Everything(count));
    }
    Ok(truth)
}

fn sealed(value: &impl Serialize) -> String {
    let json = serde_json::to_string(value).expect("maps with text keys and plain values only");
    format!("{:08x} {json}", crc32fast::hash(json.as_bytes()))
}

fn opened<T: DeserializeOwned>(line: &str) -> Result<T, String> {
    let (checksum, json) = line.split_once(' ').ok_or("is not a checksum and its text")?;
    let wanted = u32::from_str_radix(checksum, 16).map_err(|_| "has no checksum")?;
    if crc32fast::hash(json.as_bytes()) != wanted {
        return Err("does not match its checksum".to_owned());
    }
    serde_json::from_str(json).map_err(|error| format!("cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Color, PoolSpec};

    fn truth() -> Truth {
        let spec = |address: &str| PoolSpec {
            link: crate::model::Link::default(),
            version: Some("7.9".parse().expect("a version")),
            endpoints: vec![address.parse::<crate::model::Endpoint>().expect("an endpoint").into()],
        };
        let mut truth = Truth { generation: Generation(42), ..Truth::default() };
        for name in ["api", "shop", "web"] {
            let name: ServiceName = name.parse().expect("a name");
            let mut service = ServiceTruth::fresh(Color::Blue, spec("127.0.0.1:1"), spec("app:2"));
            service.promote(Color::Green);
            service.green.runtime = Some(spec("[::1]:3"));
            truth.services.insert(name.clone(), service);
            truth.last_promotion.push(name);
        }
        let (key, fingerprint) = ("k".to_owned(), "f".to_owned());
        truth.accept(Accepted { key, fingerprint, generation: Generation(41) });
        truth
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(read(write(&truth()).as_bytes()), Ok(truth()));
        assert_eq!(read(write(&Truth::default()).as_bytes()), Ok(Truth::default()));
    }

    #[test]
    fn one_damaged_entry_costs_no_other() {
        let whole = write(&truth());
        let damaged = whole.replacen("\"active\":\"green\"", "\"active\":\"blue\" ", 1);
        let found = read(damaged.as_bytes()).expect("two entries are whole");
        let names = |it: Vec<&ServiceName>| it.into_iter().map(ToString::to_string).collect();
        let lost: Vec<String> = names(found.damaged.keys().collect());
        let kept: Vec<String> = names(found.services.keys().collect());
        assert_eq!((lost, kept), (vec!["api".to_owned()], vec!["shop".into(), "web".into()]));
        // It stays damaged and stays in its place, however often the others are written.
        assert_eq!(read(write(&found).as_bytes()), Ok(found));
    }

    /// Entries were once matched to names by their place: a lost line in the middle gave a service
    /// the endpoints and the color of the next one.
    #[test]
    fn a_lost_line_is_missed_by_name_and_costs_no_other() {
        let whole = write(&truth());
        for (line, lost) in [(1, "api"), (2, "shop"), (3, "web")] {
            let mut lines: Vec<&str> = whole.lines().collect();
            lines.remove(line);
            let found = read(lines.join("\n").as_bytes()).expect("two entries are whole");
            let damaged: Vec<_> = found.damaged.keys().map(ServiceName::as_str).collect();
            assert_eq!(damaged, [lost]);
            for (name, service) in &found.services {
                assert_eq!(Some(service), truth().services.get(name));
            }
        }
    }

    #[test]
    fn an_entry_that_is_not_announced_is_damage() {
        let whole = write(&truth());
        let mut lines: Vec<&str> = whole.lines().collect();
        lines[1] = lines[3];
        let twice = read(lines.join("\n").as_bytes());
        assert!(matches!(twice, Err(Damage::Line { line: 4, .. })), "{twice:?}");
    }

    /// Every single changed byte is either found or changes nothing that is read.
    #[test]
    fn no_changed_byte_goes_unnoticed() {
        let whole = write(&truth()).into_bytes();
        for place in 0..whole.len() {
            for flip in [0x01, 0x20, 0x80] {
                let mut bytes = whole.clone();
                bytes[place] ^= flip;
                if let Ok(found) = read(&bytes) {
                    for (name, service) in &found.services {
                        assert_eq!(Some(service), truth().services.get(name), "byte {place}");
                    }
                    assert_eq!(found.generation, Generation(42), "byte {place}");
                    assert_eq!(found.services.len() + found.damaged.len(), 3, "byte {place}");
                }
            }
        }
    }

    #[test]
    fn no_cut_file_passes_for_whole() {
        let whole = write(&truth()).into_bytes();
        for length in 0..whole.len() - 1 {
            let found = read(&whole[..length]);
            assert!(found.map_or(true, |it| !it.damaged.is_empty()), "cut at {length}");
        }
    }

    #[test]
    fn a_file_as_a_whole_that_cannot_be_read_is_refused() {
        for bytes in [&b""[..], b"\n", b"garbage", b"{}", &[0xff; 100], &[0; 4096]] {
            assert!(matches!(read(bytes), Err(Damage::Line { line: 1, .. })), "{bytes:?}");
        }
        let later = sealed(&serde_json::json!({"flipgate":2,"generation":1,"services":[],
            "last_promotion":[],"accepted":[]}));
        assert_eq!(read(later.as_bytes()), Err(Damage::Later(2)));
        let more = format!("{}extra\n", write(&truth()));
        assert_eq!(read(more.as_bytes()), Err(Damage::Lines { found: 5, wanted: 4 }));
        let only_head = write(&truth()).lines().next().map(str::to_owned).expect("a head");
        assert_eq!(read(only_head.as_bytes()), Err(Damage::Everything(3)));
    }
}
