use std::time::Duration;

use super::*;
use crate::{continuity::ShareSecret, model::PoolSpec};

use Color::{Blue, Green};

fn name(text: &str) -> ServiceName {
    text.parse().expect("a name")
}

fn state(names: &[&str]) -> State {
    let mut state = State::default();
    for it in names {
        let service = ServiceState::fresh(Blue, PoolSpec::default(), PoolSpec::default());
        state.services.insert(name(it), Arc::new(service));
    }
    state
}

fn steps(percents: &[u8], secret: u8) -> ShareSteps {
    ShareSteps {
        percents: percents.to_vec(),
        step_for: Duration::from_secs(2),
        has_first: false,
        secret: ShareSecret([secret; 16]),
    }
}

fn began(names: &[&str]) -> State {
    let mut next = state(names);
    let colors = names.iter().map(|it| (name(it), Green)).collect();
    begin(&mut next, &colors, &steps(&[1, 50, 100], 1), 1_000);
    next
}

fn share<'a>(state: &'a State, service: &str) -> Option<&'a ShareState> {
    state.services.get(&name(service))?.share.as_ref()
}

#[test]
fn steps_are_raised_to_the_last_but_one() {
    let first = began(&["web"]);
    let of_first = share(&first, "web").expect("it has begun");
    assert_eq!((of_first.percent(), of_first.next_percent()), (1, Some(50)));
    assert_eq!((of_first.until, of_first.generation), (3_000, Generation(1)));
    let second = raise(&first, &[name("web")], Generation(1), 5_000).expect("the next step");
    let of_second = share(&second, "web").expect("it goes on");
    assert_eq!((of_second.percent(), of_second.next_percent()), (50, None));
    assert_eq!(of_second.until, 7_000);
    let third = raise(&second, &[name("web")], Generation(1), 9_000).expect("known");
    assert_eq!(share(&third, "web").map(ShareState::percent), Some(50), "100 is a promotion");
}

#[test]
fn another_promotion_is_neither_raised_nor_taken_back() {
    let state = began(&["api", "web"]);
    let both = [name("api"), name("web")];
    for generation in [Generation(0), Generation(2)] {
        assert!(raise(&state, &both, generation, 0).is_err());
        assert!(take_back(&state, &both, Some(generation)).is_err());
    }
    let one = take_back(&state, &both[..1], None).expect("it is in progress");
    assert!(share(&one, "api").is_none() && share(&one, "web").is_some());
    assert!(raise(&one, &both, Generation(1), 0).is_err(), "they move together or not");
    // What is left of a bad promotion is taken back.
    let none = take_back(&one, &both, Some(Generation(1))).expect("one is left");
    assert!(share(&none, "web").is_none());
    assert!(take_back(&none, &both, Some(Generation(1))).is_err());
}

#[test]
fn other_steps_of_the_same_color_keep_the_clients_that_have_moved() {
    let mut state = began(&["web"]);
    let before = share(&state, "web").expect("in progress").clone();
    state.generation = Generation(7);
    let again = BTreeMap::from([(name("web"), Green)]);
    begin(&mut state, &again, &steps(&[60, 100], 2), 0);
    let after = share(&state, "web").expect("in progress");
    assert_eq!((after.secret, after.generation), (before.secret, before.generation));
    assert_eq!(after.percent(), 60);
    let other = BTreeMap::from([(name("web"), Blue)]);
    begin(&mut state, &other, &steps(&[60, 100], 2), 0);
    let after = share(&state, "web").expect("in progress");
    assert_eq!((after.secret, after.generation), (ShareSecret([2; 16]), Generation(8)));
}
