//! Finds internal addresses that get previews and probably have public clients behind them.

use std::{cell::RefCell, net::IpAddr};

use tracing::warn;

/// The internal addresses that got a preview lately, of one worker.
#[derive(Debug, Default)]
pub(super) struct PreviewMonitor(RefCell<Vec<PreviewClient>>);

#[derive(Debug)]
struct PreviewClient {
    address: IpAddr,
    /// Requests without a preview since then.
    others: u32,
}

/// Addresses that are kept. The oldest is removed for a new one.
const SEEN_MAX: usize = 16;

/// Requests without a preview after which an address is probably not a single tester.
const MANY: u32 = 1000;

// === impl PreviewMonitor ===

impl PreviewMonitor {
    /// Notes a request of an internal client. Warns, once for an address, if an address gets previews and sends many
    /// requests without one: behind a NAT, a container network or an L4 load balancer, public clients share one private
    /// address, and could preview.
    #[inline]
    pub(super) fn note(&self, address: IpAddr, is_preview: bool) {
        // Nearly always both are false.
        if is_preview || !self.0.borrow().is_empty() {
            self.note_seen(address, is_preview);
        }
    }

    fn note_seen(&self, address: IpAddr, is_preview: bool) {
        let mut seen = self.0.borrow_mut();
        if let Some(seen) = seen.iter_mut().find(|it| it.address == address) {
            if !is_preview {
                seen.others = seen.others.saturating_add(1);
                if seen.others == MANY {
                    warn!(
                        %address,
                        "an address of clients.internal is shown previews and sends much else: if it is a NAT, a \
                         container network or a load balancer, the public can preview; take it off \
                         clients.internal, or use the PROXY protocol or clients.trusted_proxies"
                    );
                }
            }
            return;
        }
        if is_preview {
            if seen.len() >= SEEN_MAX {
                seen.remove(0);
            }
            seen.push(PreviewClient { address, others: 0 });
        }
    }

    /// Whether there was a warning about an address.
    #[cfg(test)]
    fn is_suspect(&self, address: IpAddr) -> bool {
        self.0.borrow().iter().any(|it| it.address == address && it.others >= MANY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_with_previews_and_much_else_is_suspect_and_no_other() {
        let previews = PreviewMonitor::default();
        let address = |it: u8| IpAddr::from([10, 0, 0, it]);
        for _ in 0..MANY {
            previews.note(address(1), false);
        }
        assert!(!previews.is_suspect(address(1)), "it has no previews");
        previews.note(address(2), true);
        for _ in 0..MANY - 1 {
            previews.note(address(2), false);
            previews.note(address(1), false);
        }
        assert!(!previews.is_suspect(address(2)), "a tester browses too");
        previews.note(address(2), false);
        assert!(previews.is_suspect(address(2)) && !previews.is_suspect(address(1)));
        for it in 3..100 {
            previews.note(address(it), true);
        }
        assert_eq!(previews.0.borrow().len(), SEEN_MAX);
    }
}
