//! An endpoint with its weight.

use serde::{Deserialize, Serialize};

use super::Endpoint;

/// An endpoint with its weight.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct WeightedEndpoint {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// Its share of requests relative to the others, 1 to [`WeightedEndpoint::MAX`].
    pub weight: u16,
}

/// The serialized form: a plain address has a weight of 1.
#[derive(Deserialize, Serialize)]
#[serde(untagged)]
enum WrittenEndpoint {
    Plain(Endpoint),
    Weighted(Pair),
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Pair {
    address: Endpoint,
    weight: u16,
}

// === impl WeightedEndpoint ===

impl WeightedEndpoint {
    /// The largest weight.
    pub const MAX: u16 = 100;

    /// An endpoint with this weight; `None` if the weight is out of range.
    #[must_use]
    pub fn new(endpoint: Endpoint, weight: usize) -> Option<Self> {
        let weight = u16::try_from(weight).ok().filter(|it| (1..=Self::MAX).contains(it))?;
        Some(Self { endpoint, weight })
    }
}

impl From<Endpoint> for WeightedEndpoint {
    fn from(endpoint: Endpoint) -> Self {
        Self { endpoint, weight: 1 }
    }
}

impl Serialize for WeightedEndpoint {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { endpoint, weight } = self.clone();
        let written = match weight {
            1 => WrittenEndpoint::Plain(endpoint),
            weight => WrittenEndpoint::Weighted(Pair { address: endpoint, weight }),
        };
        written.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for WeightedEndpoint {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match WrittenEndpoint::deserialize(deserializer)? {
            WrittenEndpoint::Plain(endpoint) => Ok(endpoint.into()),
            WrittenEndpoint::Weighted(Pair { address, weight }) => {
                Self::new(address, weight.into()).ok_or_else(|| {
                    serde::de::Error::custom(format!("a weight must be 1 to {}", Self::MAX))
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_of_one_is_not_written() {
        let one: WeightedEndpoint = "app:1".parse::<Endpoint>().expect("an endpoint").into();
        let three = WeightedEndpoint { weight: 3, ..one.clone() };
        let text = serde_json::to_string(&[&one, &three]).expect("texts and numbers");
        assert_eq!(text, r#"["app:1",{"address":"app:1","weight":3}]"#);
        let back: Vec<WeightedEndpoint> = serde_json::from_str(&text).expect("what was written");
        assert_eq!(back, [one, three]);
        for invalid in [r#"{"address":"app:1","weight":0}"#, r#"{"address":"app:1","weight":101}"#]
        {
            assert!(serde_json::from_str::<WeightedEndpoint>(invalid).is_err(), "{invalid}");
        }
    }
}
