//! How the open files that a process may have are shared out, so that clients and endpoints leave some
//! for whoever has to come in when there is too much to do.

use rustix::process::{Resource, getrlimit};
use tracing::warn;

/// How many connections there may be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct FileBudget {
    /// Of clients.
    pub(super) downstream: usize,
    /// To endpoints.
    pub(super) upstream: usize,
}

/// For the admin API, the state, logs, certificates and health checks: an eighth, within these bounds.
const KEPT: std::ops::RangeInclusive<usize> = 96..=512;

// === impl FileBudget ===

impl FileBudget {
    /// What the limit of this process allows of what is `wanted` for clients.
    pub(super) fn of_limit(wanted: usize) -> Self {
        let limit = getrlimit(Resource::Nofile).current.and_then(|it| usize::try_from(it).ok());
        let files = Self::share(limit.unwrap_or(usize::MAX), wanted);
        if files.downstream < wanted {
            warn!(
                open_files = limit,
                connections = files.downstream,
                "the limit of open files allows fewer connections of clients than \
                 limits.connections: raise it (ulimit -n, LimitNOFILE), or lower limits.connections"
            );
        }
        files
    }

    /// Clients get no more than half, since most of them need a connection to an endpoint too.
    fn share(limit: usize, wanted: usize) -> Self {
        let free = limit.saturating_sub((limit / 8).clamp(*KEPT.start(), *KEPT.end()));
        let downstream = wanted.min(free / 2).max(1);
        Self { downstream, upstream: free.saturating_sub(downstream).max(1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_and_endpoints_leave_some_files_for_others() {
        for (limit, wanted, downstream, upstream) in [
            (1_000_000, 8192, 8192, 1_000_000 - 512 - 8192),
            (1024, 8192, 448, 448),
            (256, 8192, 80, 80),
            (64, 8192, 1, 1),
            (1024, 100, 100, 796),
            (1, 8192, 1, 1),
        ] {
            assert_eq!(
                FileBudget::share(limit, wanted),
                FileBudget { downstream, upstream },
                "{limit}"
            );
        }
    }
}
