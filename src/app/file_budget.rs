//! Divides the open files of the process, so that clients and endpoints leave some for the admin API under load.

use rustix::process::{Resource, getrlimit};
use tracing::warn;

/// The most connections.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct FileBudget {
    /// Client connections.
    pub(super) downstream: usize,
    /// Connections to endpoints.
    pub(super) upstream: usize,
}

/// Files for the admin API, the state, logs, certificates and health checks: an eighth, within these bounds.
const KEPT: std::ops::RangeInclusive<usize> = 96..=512;

// === impl FileBudget ===

impl FileBudget {
    /// The budget of this process, with `wanted` client connections if possible.
    pub(super) fn of_limit(wanted: usize) -> Self {
        let limit = getrlimit(Resource::Nofile).current.and_then(|it| usize::try_from(it).ok());
        let files = Self::share(limit.unwrap_or(usize::MAX), wanted);
        if files.downstream < wanted {
            warn!(
                open_files = limit,
                connections = files.downstream,
                "the limit of open files allows fewer client connections than limits.connections; raise it \
                 (ulimit -n, LimitNOFILE), or lower limits.connections"
            );
        }
        files
    }

    /// Clients get at most half: most of them need a connection to an endpoint, too.
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
