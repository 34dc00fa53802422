//! The first phase of a request: its head was read, and there is no claim yet. From here it is either
//! admitted or refused.

use super::{
    admitted::{Admitted, Permits, Terms},
    ask::{Ask, location},
    headers::{Marks, Onward, put_request},
    hold::Hold,
    interim::Interim,
    memory::Memory,
    own_answer::{Circumstances, OwnAnswer},
    refusal::Refusal,
    tally::Tally,
    upload::Upload,
    worker::{Decision, Proxy},
};
use crate::{
    downstream::{After, Client, HeadError, Wait},
    http1::{Framing, RequestHead},
};

/// A request whose head was read.
struct Received<'a> {
    proxy: &'a Proxy,
    tally: Tally,
    ask: Ask,
}

/// A request that no service answers. It never had a claim.
///
/// Dropping it counts the request among those without a service.
pub(super) struct Unrouted<'a> {
    proxy: &'a Proxy,
    tally: Tally,
    answer: OwnAnswer,
}

/// Decides on the head that stands at the beginning of what is unread, and takes it away. If the request
/// is admitted but must not go to an upstream, the refusal is beside it: its hold lasts until that is
/// written.
pub(super) fn receive<'a>(
    proxy: &'a Proxy,
    client: &mut Client<Memory>,
    head: Result<RequestHead, HeadError>,
) -> Result<(Admitted<'a>, Result<(), Refusal>), Unrouted<'a>> {
    let tally = Tally::begin();
    match head {
        Ok(head) => {
            let (channel, connection) = client.split();
            let ask = Ask::of(&head, channel);
            connection.begin(Wait::Exchange);
            Received { proxy, tally, ask }.admit(client, &head)
        }
        Err(error) => {
            let received = Received { proxy, tally, ask: Ask::UNREAD };
            Err(received.refuse(client, error.into(), Upload::unread(), None))
        }
    }
}

// === impl Received ===

impl<'a> Received<'a> {
    /// Takes the claim, and turns the head into the upstream's.
    fn admit(
        self,
        client: &mut Client<Memory>,
        head: &RequestHead,
    ) -> Result<(Admitted<'a>, Result<(), Refusal>), Unrouted<'a>> {
        let (channel, connection) = client.split();
        let decision = match self.proxy.admit(head, channel.unread(), connection) {
            Ok(decision) => decision,
            Err(refusal) => {
                let port = connection.peer().listener().redirects_to;
                let port = port.filter(|_| refusal == Refusal::Redirect);
                let location = port.map(|it| location(head, channel.unread(), it));
                let upload = Upload::to_discard(channel, head);
                return Err(self.refuse(client, refusal, upload, location.as_deref()));
            }
        };
        let Self { proxy, tally, ask } = self;
        let Decision {
            claim,
            told,
            is_wished,
            has_marks,
            keeps_trace,
            patience,
            client: address,
            key,
            rules,
        } = decision;
        let marks = Marks {
            origin: has_marks.then(|| (claim.color(), claim.generation())),
            is_private: is_wished,
        };
        let timeouts = &claim.pool().policy().timeouts;
        match timeouts.request {
            None => {}
            Some(Some(limit)) => connection.begin_for(Wait::Exchange, limit),
            Some(None) => connection.end(Wait::Exchange),
        }
        let patience = timeouts.response.unwrap_or(patience);
        let terms = Terms { patience, tunnel_patience: rules.tunnel_patience, key };
        let underway = connection.peer().load().enter();
        let hold = Hold::new(claim, tally, &proxy.shard, underway);
        let permits = match Permits::take(&hold, proxy, address) {
            Ok(permits) => permits,
            Err(refusal) => {
                let (upload, interim) = (Upload::to_discard(channel, head), Interim::new(false));
                let permits = None;
                let admitted =
                    Admitted { hold, permits, proxy, ask, terms, marks, upload, interim };
                return Ok((admitted, Err(refusal)));
            }
        };
        // A client that sends its body at once does not wait for leave.
        let expects_continue = head.expects_continue && channel.unread().len() == head.len;
        let onward = Onward {
            expects_continue,
            peer: connection.peer(),
            client: address,
            told,
            keeps_trace,
            mark: proxy.mark_lines.of(ask.received()),
        };
        let out = put_request(head, channel.unread(), &onward, &mut proxy.random.borrow_mut());
        let mut upload = Upload::to_send(out, channel, head, expects_continue, &proxy.trailers);
        let decided = match (rules.body_max, head.framing) {
            (Some(max), Framing::Exact(length)) if length > max => Err(Refusal::BodyTooLarge),
            (max, _) => {
                upload.limit(max, proxy.least_progress);
                Ok(())
            }
        };
        let (permits, interim) = (Some(permits), Interim::new(expects_continue));
        Ok((Admitted { hold, permits, proxy, ask, terms, marks, upload, interim }, decided))
    }

    fn refuse(
        self,
        client: &mut Client<Memory>,
        refusal: Refusal,
        mut upload: Upload,
        location: Option<&[u8]>,
    ) -> Unrouted<'a> {
        let Self { proxy, mut tally, ask } = self;
        tally.answer(refusal.status().0.as_u16());
        let circumstances =
            Circumstances { interim: Vec::new(), marks: Marks::default(), location };
        let answer = OwnAnswer::new(refusal, &ask, &mut upload, circumstances, client);
        Unrouted { proxy, tally, answer }
    }
}

// === impl Unrouted ===

impl Unrouted<'_> {
    /// Sends the refusal.
    pub(super) async fn answer<T>(&self, client: &mut Client<Memory>) -> After<T> {
        self.answer.send(client).await
    }
}

impl Drop for Unrouted<'_> {
    fn drop(&mut self) {
        self.tally.count(&self.proxy.unrouted);
    }
}
