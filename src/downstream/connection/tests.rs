//! When a connection is busy, overdue, or done, without a socket.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;

use super::*;

struct Nobody;

impl Handler for Nobody {
    type Body = Full<Bytes>;
    type Hold = Rc<()>;
    type Memory = ();

    async fn handle(
        self: Rc<Self>,
        _request: Request<Incoming>,
        _connection: Rc<Connection<Self>>,
    ) -> Response<Full<Bytes>> {
        Response::default()
    }

    fn tick(&self) {}
}

fn connection() -> Connection<Nobody> {
    let address = SocketAddr::from(([127, 0, 0, 1], 80));
    let listener = Arc::new(Listener { address, preview: None });
    Connection::new(address, listener, Rc::new(Roster::new()))
}

/// What is overdue after an hour, with limits of a minute.
fn overdue(connection: &Connection<Nobody>) -> Option<Overdue> {
    let minute = Duration::from_secs(60);
    let patience = Patience { head: minute, keep_alive: minute, stall: minute, upstream: minute };
    connection.overdue(Instant::now() + minute * 60, &patience)
}

/// An answer was once taken for over when its last byte was in our buffers: a slow client was
/// then cut in the middle of it, or told 408 inside of it.
#[test]
fn a_connection_is_busy_until_its_answer_is_written() {
    let connection = connection();
    assert_eq!(overdue(&connection), Some(Overdue::KeepAlive));
    connection.has_read();
    assert_eq!(overdue(&connection), Some(Overdue::Head));
    connection.begin_exchange();
    assert_eq!(overdue(&connection), None);
    connection.answered();
    // The next request is read ahead while the client takes this answer.
    connection.has_read();
    assert_eq!(overdue(&connection), None);
    connection.has_tried_to_write(true);
    assert_eq!(overdue(&connection), Some(Overdue::Stall));
    connection.has_tried_to_write(false);
    connection.has_written_all();
    assert_eq!(overdue(&connection), Some(Overdue::KeepAlive));
}

#[test]
fn a_connection_is_busy_while_a_body_is_still_being_sent() {
    let connection = connection();
    let hold = Rc::new(());
    connection.begin_exchange();
    let upload = connection.upload_begins();
    connection.answered();
    connection.hold_until_uploaded(Rc::clone(&hold));
    connection.has_written_all();
    connection.has_read();
    // Neither a new head nor idle, but a body that does not move.
    assert_eq!(overdue(&connection), Some(Overdue::Stall));
    assert_eq!(Rc::strong_count(&hold), 2);
    connection.upload_ends(&upload);
    assert_eq!(Rc::strong_count(&hold), 1);
    assert_eq!(overdue(&connection), Some(Overdue::KeepAlive));
}

/// A body that was given up before its answer came to an end once kept the answer's claim for
/// as long as the connection lived.
#[test]
fn an_answer_whose_request_was_given_up_ends_when_it_is_written() {
    let connection = connection();
    let hold = Rc::new(());
    connection.begin_exchange();
    let upload = connection.upload_begins();
    connection.upload_ends(&upload);
    connection.answered();
    connection.hold_until_uploaded(Rc::clone(&hold));
    assert_eq!(Rc::strong_count(&hold), 2);
    connection.has_written_all();
    assert_eq!(Rc::strong_count(&hold), 1);
}

#[test]
fn a_body_that_ends_before_its_answer_is_written_leaves_the_claim_to_the_answer() {
    let connection = connection();
    let hold = Rc::new(());
    connection.begin_exchange();
    let upload = connection.upload_begins();
    connection.hold_until_uploaded(Rc::clone(&hold));
    connection.answered();
    connection.upload_ends(&upload);
    assert_eq!(Rc::strong_count(&hold), 2);
    connection.has_written_all();
    assert_eq!(Rc::strong_count(&hold), 1);
}

#[test]
fn a_body_that_is_left_over_is_not_kept_alive_by_those_behind_it() {
    let connection = connection();
    connection.begin_exchange();
    let _stuck = connection.upload_begins();
    connection.answered();
    connection.has_written_all();
    connection.begin_exchange();
    let moving = connection.upload_begins();
    moving.set(Instant::now() + Duration::from_secs(3600));
    assert_eq!(overdue(&connection), Some(Overdue::Stall));
    // But no answer is cut for it.
    connection.answered();
    assert_eq!(overdue(&connection), None);
}

#[test]
fn what_answers_hold_is_let_go_when_they_are_written_or_never_can_be() {
    let connection = connection();
    let hold = Rc::new(());
    connection.hold_until_written(Rc::clone(&hold));
    assert_eq!(Rc::strong_count(&hold), 2);
    connection.has_written_all();
    assert_eq!(Rc::strong_count(&hold), 1);
    connection.hold_until_written(Rc::clone(&hold));
    connection.hold_until_uploaded(Rc::clone(&hold));
    connection.end();
    assert_eq!(Rc::strong_count(&hold), 1);
}

#[test]
fn whoever_is_to_end_now_is_not_asked_to_end_gently_instead() {
    let connection = connection();
    connection.ask(Ask::End(Overdue::Stall));
    connection.ask(Ask::Close);
    assert!(matches!(connection.asked.take(), Some(Ask::End(Overdue::Stall))));
}
