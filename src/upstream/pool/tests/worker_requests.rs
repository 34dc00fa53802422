use futures_util::FutureExt;

use super::*;
use crate::upstream::WorkerRegistry;

#[tokio::test]
async fn a_request_reaches_all_other_workers_and_is_kept_until_they_take_it() {
    let workers = Arc::new(WorkerRegistry::default());
    let [one, two, three] = [(); 3].map(|()| workers.register());
    let [web, api] = [(); 2].map(|()| Arc::new(pool_of(&[], Policy::default())));
    assert!(two.requested().now_or_never().is_none(), "no request yet");
    one.request_from_others(Some(&web));
    one.request_from_others(None);
    one.request_from_others(Some(&api));
    one.request_from_others(Some(&web));
    for worker in [&two, &three] {
        let pools = worker.requested().now_or_never().expect("requests").collect::<Vec<_>>();
        assert_eq!(pools.len(), 2, "each pool once");
        assert!([&web, &api].iter().all(|it| pools.iter().any(|pool| Arc::ptr_eq(pool, it))));
        assert!(worker.requested().now_or_never().is_none(), "returned once");
    }
    assert!(one.requested().now_or_never().is_none(), "not its own requests");
    drop((two, three));
    assert_eq!(workers.workers(), 1);
}
