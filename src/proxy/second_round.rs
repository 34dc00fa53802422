//! What follows a response that is not simply relayed: another color is asked, or the request fails.

use super::{
    admitted::AdmittedRequest,
    assets::{FirstResponse, OtherAnswer},
    peer_cache::PeerCache,
    retries::Unrelayed,
    upstream_failure::UpstreamFailure,
    upstream_response::UpstreamResponse,
};
use crate::{downstream::ClientStream, http1::ResponseHead};

impl AdmittedRequest<'_> {
    /// The response that the client gets. `None`: the request is to be forwarded again, with another claim. `first` is the
    /// response of the other color, if this is the second time.
    ///
    /// Dropping the future gives up the request.
    #[cold]
    pub(super) async fn go_on(
        &mut self,
        client: &mut ClientStream<PeerCache>,
        first: &mut Option<Box<FirstResponse>>,
        answer: Result<(UpstreamResponse, ResponseHead), Unrelayed>,
    ) -> Result<Option<(UpstreamResponse, ResponseHead)>, UpstreamFailure> {
        if let Some(first) = first.take() {
            let answer = match answer {
                Ok((response, head)) => OtherAnswer::Found(response, head),
                Err(Unrelayed::Missing(missing)) => OtherAnswer::Missing(missing),
                Err(Unrelayed::Failure(failure)) => OtherAnswer::Failed(failure),
            };
            return self.decide_asset(client, *first, answer).await.map(Some);
        }
        match answer {
            Ok(response) => Ok(Some(response)),
            Err(Unrelayed::Missing(missing)) => match self.ask_other(client, missing) {
                Ok(aside) => {
                    *first = Some(aside);
                    Ok(None)
                }
                Err(missing) => Ok(Some(missing.into_parts())),
            },
            // At most once: a request that was rescued is not rescued again.
            Err(Unrelayed::Failure(failure)) if self.rescue(&failure, client.split().1) => Ok(None),
            Err(Unrelayed::Failure(failure)) => Err(failure),
        }
    }
}
