//! An endpoint with its share of its pool's requests.

use serde::{Deserialize, Serialize};

use super::Endpoint;

/// An endpoint with its share of its pool's requests.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Weighted {
    /// Where it is.
    pub endpoint: Endpoint,
    /// Its share beside the others', 1 to [`Weighted::MAX`].
    pub weight: u16,
}

/// As it is written: an address alone has a weight of 1.
#[derive(Deserialize, Serialize)]
#[serde(untagged)]
enum Written {
    Plain(Endpoint),
    Weighted(Pair),
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Pair {
    address: Endpoint,
    weight: u16,
}

// === impl Weighted ===

impl Weighted {
    /// The largest weight: nothing needs a larger share than a hundred times another one.
    pub const MAX: u16 = 100;

    /// An endpoint with this weight; `None` if that is none.
    #[must_use]
    pub fn new(endpoint: Endpoint, weight: usize) -> Option<Self> {
        let weight = u16::try_from(weight).ok().filter(|it| (1..=Self::MAX).contains(it))?;
        Some(Self { endpoint, weight })
    }
}

impl From<Endpoint> for Weighted {
    fn from(endpoint: Endpoint) -> Self {
        Self { endpoint, weight: 1 }
    }
}

impl Serialize for Weighted {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { endpoint, weight } = self.clone();
        let written = match weight {
            1 => Written::Plain(endpoint),
            weight => Written::Weighted(Pair { address: endpoint, weight }),
        };
        written.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Weighted {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Written::deserialize(deserializer)? {
            Written::Plain(endpoint) => Ok(endpoint.into()),
            Written::Weighted(Pair { address, weight }) => Self::new(address, weight.into())
                .ok_or_else(|| serde::de::Error::custom(format!("a weight is 1 to {}", Self::MAX))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_of_one_is_not_written() {
        let one: Weighted = "app:1".parse::<Endpoint>().expect("an endpoint").into();
        let three = Weighted { weight: 3, ..one.clone() };
        let text = serde_json::to_string(&[&one, &three]).expect("texts and numbers");
        assert_eq!(text, r#"["app:1",{"address":"app:1","weight":3}]"#);
        let back: Vec<Weighted> = serde_json::from_str(&text).expect("what was written");
        assert_eq!(back, [one, three]);
        for bad in [r#"{"address":"app:1","weight":0}"#, r#"{"address":"app:1","weight":101}"#] {
            assert!(serde_json::from_str::<Weighted>(bad).is_err(), "{bad}");
        }
    }
}
