//! Small histories, and random ones that are compared with a search of all orders.

use super::*;
use crate::color::Color::{Blue, Green};

fn write(flip: usize, color: Color, called: u64, acknowledged: u64) -> RegisterWrite {
    RegisterWrite { flip, changes: vec![(0, color)], called, acknowledged, is_reset: false }
}

fn read(request: usize, color: Color, began: u64, ended: u64) -> RegisterRead {
    RegisterRead { request, service: 0, color, began, ended }
}

#[test]
fn either_color_is_right_during_a_flip_and_only_one_otherwise() {
    let writes = [write(0, Green, 10, 20)];
    let found = |color, began, ended| {
        !conflicts(&[Blue], &writes, &[read(0, color, began, ended)]).is_empty()
    };
    assert!(!found(Blue, 0, 5) && found(Green, 0, 5));
    assert!(!found(Blue, 12, 30) && !found(Green, 12, 30));
    assert!(!found(Blue, 5, 15) && !found(Green, 5, 15));
    assert!(found(Blue, 21, 25) && !found(Green, 21, 25));
}

#[test]
fn a_stale_response_names_the_flip_that_it_missed() {
    let writes = [write(3, Green, 10, 20)];
    assert_eq!(
        conflicts(&[Blue], &writes, &[read(7, Blue, 21, 25)]),
        [Conflict::Stale { request: 7, since: Some(3) }]
    );
    assert_eq!(
        conflicts(&[Blue], &writes, &[read(7, Green, 1, 2)]),
        [Conflict::Stale { request: 7, since: None }]
    );
}

#[test]
fn once_seen_a_flip_stays_seen_even_before_its_acknowledgement() {
    let writes = [write(0, Green, 10, 100)];
    let (new, old) = (read(1, Green, 20, 30), read(2, Blue, 40, 50));
    assert_eq!(
        conflicts(&[Blue], &writes, &[new, old]),
        [Conflict::Backwards { flip: 0, new: 1, old: 2 }]
    );
    // In the other order, and for overlapping requests, there is no conflict.
    assert_eq!(conflicts(&[Blue], &writes, &[read(1, Green, 40, 50), read(2, Blue, 20, 30)]), []);
    assert_eq!(conflicts(&[Blue], &writes, &[read(1, Green, 20, 45), read(2, Blue, 40, 50)]), []);
}

#[test]
fn a_request_across_two_flips_may_be_routed_before_or_after_both() {
    let writes = [write(0, Green, 10, 20), write(1, Blue, 30, 40)];
    let (begun, across) = (read(0, Green, 11, 12), read(1, Blue, 15, 35));
    assert_eq!(conflicts(&[Blue], &writes, &[begun, across]), []);
    // The first flip was visible before it began, and the second one was not visible after it ended.
    let late = read(2, Green, 36, 38);
    assert_eq!(
        conflicts(&[Blue], &writes, &[begun, across, late]),
        [Conflict::Backwards { flip: 1, new: 1, old: 2 }]
    );
}

#[test]
fn a_partial_flip_of_two_services_is_found_only_across_services() {
    let both = RegisterWrite { changes: vec![(0, Green), (1, Green)], ..write(0, Green, 10, 100) };
    let other = |request, color, began, ended| RegisterRead {
        service: 1,
        ..read(request, color, began, ended)
    };
    let reads = [read(0, Green, 20, 30), other(1, Blue, 40, 50)];
    assert_eq!(
        conflicts(&[Blue, Blue], std::slice::from_ref(&both), &reads),
        [Conflict::Backwards { flip: 0, new: 0, old: 1 }]
    );
    let alone = [
        RegisterWrite { changes: vec![(0, Green)], ..both.clone() },
        RegisterWrite { changes: vec![(1, Green)], ..both },
    ];
    for service in [0, 1] {
        let own: Vec<_> = reads.iter().copied().filter(|it| it.service == service).collect();
        assert_eq!(conflicts(&[Blue, Blue], &alone[usize::from(service)..][..1], &own), []);
    }
}

/// Whether an order exists, by trying every instant for every flip. Times are small and even, and instants lie on
/// and between them.
fn has_order(initial: &[Color], writes: &[RegisterWrite], reads: &[RegisterRead]) -> bool {
    fn search(
        initial: &[Color],
        writes: &[RegisterWrite],
        reads: &[RegisterRead],
        chosen: &mut Vec<u64>,
    ) -> bool {
        let Some(next) = writes.get(chosen.len()) else {
            return reads.iter().all(|it| is_true(initial, writes, chosen, it));
        };
        (next.called..=next.acknowledged).any(|instant| {
            chosen.push(instant);
            let is_found = search(initial, writes, reads, chosen);
            chosen.pop();
            is_found
        })
    }
    /// Whether the color was active at some instant of the request. A flip at the same instant may come before or
    /// after it.
    fn is_true(
        initial: &[Color],
        writes: &[RegisterWrite],
        chosen: &[u64],
        read: &RegisterRead,
    ) -> bool {
        let mut color = initial[usize::from(read.service)];
        let mut since = 0;
        for (write, instant) in writes.iter().zip(chosen) {
            for (service, to) in &write.changes {
                if *service == read.service && *to != color {
                    if color == read.color && since <= read.ended && *instant >= read.began {
                        return true;
                    }
                    (color, since) = (*to, *instant);
                }
            }
        }
        color == read.color && since <= read.ended
    }
    search(initial, writes, reads, &mut Vec::new())
}

#[test]
fn random_histories_have_an_order_if_and_only_if_the_check_finds_no_conflict() {
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut clean, mut dirty) = (0, 0);
    for round in 0..20_000 {
        let services = random.u8(1..=2);
        let (mut writes, mut now) = (Vec::new(), 0);
        for flip in 0..random.usize(1..=3) {
            let called = now + random.u64(0..3) * 2;
            let acknowledged = called + random.u64(0..4) * 2;
            let color = || if random.bool() { Blue } else { Green };
            let mut changes: Vec<_> = std::iter::repeat_with(color)
                .zip(0..services)
                .map(|(color, it)| (it, color))
                .collect();
            if changes.len() == 2 && random.bool() {
                changes.remove(random.usize(0..2));
            }
            writes.push(RegisterWrite { flip, changes, called, acknowledged, is_reset: false });
            now = acknowledged + 2;
        }
        let reads: Vec<_> = (0..random.usize(1..=5))
            .map(|request| {
                let began = random.u64(0..now + 4) | 1;
                let ended = began + random.u64(0..5) * 2;
                let color = if random.bool() { Blue } else { Green };
                RegisterRead { request, service: random.u8(0..services), color, began, ended }
            })
            .collect();
        let initial = vec![Blue; services.into()];
        let found = conflicts(&initial, &writes, &reads);
        let has_order = has_order(&initial, &writes, &reads);
        assert_eq!(
            found.is_empty(),
            has_order,
            "seed {seed}, round {round}: {writes:?}\n{reads:?}\n{found:?}"
        );
        *(if has_order { &mut clean } else { &mut dirty }) += 1;
    }
    assert!(clean > 1000 && dirty > 1000, "seed {seed}: {clean} with an order, {dirty} without");
}
