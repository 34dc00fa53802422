use futures_util::FutureExt;

use super::*;
use crate::upstream::WorkerRegistry;

#[tokio::test]
async fn a_call_reaches_all_others_and_is_not_lost_by_those_who_do_not_listen() {
    let workers = Arc::new(WorkerRegistry::default());
    let [one, two, three] = [(); 3].map(|()| workers.join());
    let [web, api] = [(); 2].map(|()| Arc::new(pool_of(&[], Policy::default())));
    assert!(two.called().now_or_never().is_none(), "dropped while nobody calls");
    one.call_others(Some(&web));
    one.call_others(None);
    one.call_others(Some(&api));
    one.call_others(Some(&web));
    for heard in [&two, &three] {
        let pools = heard.called().now_or_never().expect("called").collect::<Vec<_>>();
        assert_eq!(pools.len(), 2, "each once");
        assert!([&web, &api].iter().all(|it| pools.iter().any(|pool| Arc::ptr_eq(pool, it))));
        assert!(heard.called().now_or_never().is_none(), "heard as one");
    }
    assert!(one.called().now_or_never().is_none(), "it does not call itself");
    drop((two, three));
    assert_eq!(workers.len(), 1);
}
