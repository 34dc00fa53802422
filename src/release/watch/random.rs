//! Random numbers for simulations.

/// A generator with a new seed, which it prints.
pub(super) fn random() -> fastrand::Rng {
    let seed = fastrand::u64(..);
    println!("seed = {seed}");
    fastrand::Rng::with_seed(seed)
}

/// The Poisson distribution: how many requests arrive in a tick.
#[derive(Debug)]
pub(super) struct Poisson {
    /// The probability of at most so many, by their number.
    at_most: Vec<f64>,
}

// === impl Poisson ===

impl Poisson {
    pub(super) fn new(mean: f64) -> Self {
        let mut log_probability = -mean;
        let mut at_most = vec![log_probability.exp()];
        let mut number = 0.0;
        while number < mean + 10.0 * mean.sqrt() + 10.0 {
            number += 1.0;
            log_probability += (mean / number).ln();
            at_most.push(at_most[at_most.len() - 1] + log_probability.exp());
        }
        Self { at_most }
    }

    pub(super) fn draw(&self, random: &mut fastrand::Rng) -> u64 {
        let drawn = random.f64();
        self.at_most.partition_point(|it| *it < drawn) as u64
    }
}

/// The most successes of `trials` with this probability each that are not exceeded but with the probability `error`.
pub(super) fn most_of(trials: u32, probability: f64, error: f64) -> u32 {
    let n = f64::from(trials);
    // The binomial distribution, from its upper tail down would lose nothing; from 0 up, rounding is below 1e-13.
    let mut mass = (n * (-probability).ln_1p()).exp();
    let (mut at_most, mut number) = (mass, 0_u32);
    while 1.0 - at_most > error {
        let k = f64::from(number);
        mass *= (n - k) / (k + 1.0) * probability / (1.0 - probability);
        at_most += mass;
        number += 1;
    }
    number
}

#[test]
fn the_distribution_has_its_mean() {
    let mut random = random();
    for mean in [0.01, 2.5, 250.0] {
        let poisson = Poisson::new(mean);
        let sum: u64 = (0..20_000).map(|_| poisson.draw(&mut random)).sum();
        #[expect(clippy::cast_precision_loss, reason = "small")]
        let found = sum as f64 / 20_000.0;
        assert!((found - mean).abs() < 6.0 * (mean / 20_000.0).sqrt(), "{found} {mean}");
    }
}

#[test]
fn the_tolerance_is_the_quantile_of_the_binomial_distribution() {
    // Poisson(1): more than 3 has a probability of 0.019, more than 2 of 0.080.
    assert_eq!(most_of(100_000, 0.000_01, 0.05), 3);
    // 10 coins: more than 8 heads have a probability of 11/1024.
    assert_eq!(most_of(10, 0.5, 0.02), 8);
}
