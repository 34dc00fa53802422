use super::*;

/// A frame with this first byte and so many bytes of payload.
fn frame(first: u8, length: usize, sender: Sender) -> Vec<u8> {
    let mask = if sender == Sender::Client { 0x80 } else { 0 };
    let mut frame = vec![first];
    match length {
        0..=125 => frame.push(mask | u8::try_from(length).expect("small")),
        126..=65_535 => {
            frame.push(mask | 126);
            frame.extend(u16::try_from(length).expect("two bytes").to_be_bytes());
        }
        _ => {
            frame.push(mask | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    if sender == Sender::Client {
        frame.extend([1, 2, 3, 4]);
    }
    // Payload that looks like the header of a Close frame.
    frame.extend(std::iter::repeat_n(0x88, length));
    frame
}

fn after(sender: Sender, extensions: Extensions, bytes: &[u8], size: usize) -> FrameTracker {
    let mut tracker = FrameTracker::new(sender, extensions);
    bytes.chunks(size).for_each(|it| tracker.advance(it));
    tracker
}

/// Text in three fragments with a ping between them, a long message, an empty one, and a Close frame; with the border
/// behind each.
fn conversation(sender: Sender) -> Vec<(Vec<u8>, Option<Border>)> {
    vec![
        (frame(0x01, 5, sender), Some(Border::Frame)),
        (frame(0x89, 125, sender), Some(Border::Frame)),
        (frame(0x00, 126, sender), Some(Border::Frame)),
        (frame(0x80, 0, sender), Some(Border::Message)),
        (frame(0x82, 65_536, sender), Some(Border::Message)),
        (frame(0x81, 0, sender), Some(Border::Message)),
        (frame(0x8a, 0, sender), Some(Border::Message)),
        (frame(0x88, 2, sender), Some(Border::Close)),
        (b"more".to_vec(), Some(Border::Close)),
    ]
}

#[test]
fn it_is_at_a_border_behind_each_frame_and_nowhere_else() {
    for sender in [Sender::Client, Sender::Server] {
        let mut tracker = FrameTracker::new(sender, Extensions::None);
        assert!(tracker.is_at(Border::Message) && !tracker.has_closed());
        for (bytes, behind) in conversation(sender) {
            let was_closed = tracker.has_closed();
            for (place, byte) in bytes.iter().enumerate() {
                tracker.advance(&[*byte]);
                let is_last = place + 1 == bytes.len();
                let expected = |border| is_last && behind == Some(border);
                let is_message = expected(Border::Message);
                assert_eq!(tracker.is_at(Border::Message), is_message, "byte {place}");
                assert_eq!(tracker.is_at(Border::Frame), is_message || expected(Border::Frame));
                assert_eq!(tracker.has_closed(), was_closed || expected(Border::Close));
                assert!(!tracker.is_lost());
            }
        }
    }
}

#[test]
fn the_next_border_is_found_from_every_byte() {
    for sender in [Sender::Client, Sender::Server] {
        let frames = conversation(sender);
        let bytes: Vec<u8> = frames.iter().flat_map(|(it, _)| it.clone()).collect();
        let mut ends = Vec::new();
        for (frame, behind) in &frames[..8] {
            let end = ends.last().map_or(0, |(end, _)| *end) + frame.len();
            ends.push((end, *behind));
        }
        let closed = ends[7].0;
        let is_border = |border, end: usize| match border {
            Border::Close => end == closed,
            _ if end == 0 => true,
            Border::Message => ends.contains(&(end, Some(Border::Message))),
            Border::Frame => end < closed && ends.iter().any(|(it, _)| *it == end),
        };
        // All of the headers, and some of the long payload.
        for start in (0..600).chain(65_900..closed) {
            let tracker = after(sender, Extensions::None, &bytes[..start], 9999);
            for border in [Border::Frame, Border::Message, Border::Close] {
                let next = (start..=closed).find(|it| is_border(border, *it));
                let expected = next.map_or(bytes.len() - start, |it| it - start);
                let rest = &bytes[start..];
                assert_eq!(tracker.until(border, rest), expected, "{border:?} from {start}");
            }
        }
    }
}

#[test]
fn invalid_and_unknown_frames_are_not_followed() {
    let deflate = |bytes: &[u8]| after(Sender::Server, Extensions::Deflate, bytes, 1);
    let plain = |bytes: &[u8]| after(Sender::Server, Extensions::None, bytes, 1);
    for (bytes, why) in [
        (&[0xc1, 0][..], "RSV1 without an extension"),
        (&[0xa1, 0], "RSV2"),
        (&[0x91, 0], "RSV3"),
        (&[0x83, 0], "an unknown opcode"),
        (&[0x8b, 0], "an unknown control opcode"),
        (&[0x08, 0], "a fragment of a Close frame"),
        (&[0x89, 126, 0, 126], "a long control frame"),
        (&[0x80, 0], "a continuation of nothing"),
        (&[0x01, 0, 0x81, 0], "a message within a message"),
        (&[0x81, 0x80, 0, 0, 0, 0], "a masked frame of a server"),
        (&[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0], "a length of 64 bits"),
    ] {
        let tracker = plain(bytes);
        assert!(tracker.is_lost(), "{why}");
        for border in [Border::Frame, Border::Message, Border::Close] {
            assert!(!tracker.is_at(border), "{why}");
            assert_eq!(tracker.until(border, &[0x81, 0]), 2, "{why}");
        }
    }
    assert!(after(Sender::Client, Extensions::None, &[0x81, 0], 1).is_lost(), "not masked");
    assert!(after(Sender::Server, Extensions::Unknown, &[], 1).is_lost());
    assert!(deflate(&[0xc1, 0]).is_at(Border::Message), "a compressed message");
    assert!(deflate(&[0x41, 0, 0xc0, 0]).is_lost(), "RSV1 in a continuation");
    assert!(deflate(&[0xc9, 0]).is_lost(), "RSV1 in a ping");
    assert!(deflate(&[0x41, 0, 0x80, 0]).is_at(Border::Message));
}

/// A seeded random walk: the seed is in the message of a failure.
#[test]
fn any_split_gives_the_same_answer_as_one_piece() {
    for seed in 0..3000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let sender = if random.bool() { Sender::Server } else { Sender::Client };
        let extensions = if random.bool() { Extensions::None } else { Extensions::Deflate };
        let mut bytes = Vec::new();
        for _ in 0..random.usize(1..8) {
            let first = match random.u8(0..4) {
                0 => random.choice([0x81, 0x82, 0x89, 0x88]).unwrap_or(0x81),
                1 => random.choice([0x01, 0x00, 0x80]).unwrap_or(0),
                2 => random.choice([0x41, 0xc2, 0x8a]).unwrap_or(0x8a),
                _ => random.u8(..),
            };
            let length = match random.u8(0..10) {
                0 => random.usize(65_536..66_000),
                1 => random.usize(126..1000),
                _ => random.usize(0..20),
            };
            bytes.extend(frame(first, length, sender));
        }
        bytes.truncate(random.usize(0..=bytes.len()));
        let whole = after(sender, extensions, &bytes, bytes.len().max(1));
        let mut split = FrameTracker::new(sender, extensions);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let border = random.choice([Border::Frame, Border::Message, Border::Close]);
            let border = border.unwrap_or(Border::Frame);
            let ahead = split.until(border, rest);
            assert!(ahead <= rest.len(), "seed {seed}");
            // What lies before a border leads to it, and nothing shorter does.
            let mut there = split;
            there.advance(&rest[..ahead]);
            assert!(ahead == rest.len() || there.is_at(border), "seed {seed}");
            let part = random.usize(1..=rest.len());
            let (now, later) = rest.split_at(part);
            for shorter in 0..part.min(ahead).min(40) {
                let mut there = split;
                there.advance(&rest[..shorter]);
                assert!(!there.is_at(border), "seed {seed}");
            }
            split.advance(now);
            rest = later;
        }
        assert_eq!(split, whole, "seed {seed}");
    }
}

#[test]
fn both_directions_of_an_idle_tunnel_fit_into_32_bytes() {
    assert!(size_of::<[FrameTracker; 2]>() <= 32, "{}", size_of::<FrameTracker>());
}
