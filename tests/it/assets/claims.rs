//! What holds what while the other color is asked, and what is left when it does not answer.

use super::{BLUE, GREEN, app, colors, file, found, get, missing, service};
use crate::support::{Application, MisbehavingUpstream, Misbehavior, Reply, TestProxy};

#[tokio::test]
async fn while_the_other_color_is_asked_both_are_held_and_then_only_the_one_that_answers() {
    let blue = Application::start(|_| Reply::Held("blue".to_owned())).await;
    let green = app("green", &[]).await;
    let proxy = service(&blue, &green, "").start();
    proxy.promote(&[("web", "green")]).await;
    let mut client = proxy.public().await;
    client.ask(BLUE, "").await;
    proxy.wait_for_in_flight("web", "blue", 1).await;
    proxy.wait_for_in_flight("web", "green", 1).await;
    blue.release();
    assert_eq!(client.answer().await.text(), "blue");
    for color in ["blue", "green"] {
        proxy.wait_for_in_flight("web", color, 0).await;
    }
    assert_eq!(proxy.drain("web").await["drained"], true);
}

#[tokio::test]
async fn a_client_that_leaves_meanwhile_leaves_nothing_behind() {
    let blue = Application::start(|_| Reply::Hang).await;
    let green = app("green", &[]).await;
    let proxy = service(&blue, &green, "").start();
    proxy.promote(&[("web", "green")]).await;
    let mut client = proxy.public().await;
    client.ask(BLUE, "").await;
    proxy.wait_for_in_flight("web", "blue", 1).await;
    drop(client);
    for color in ["blue", "green"] {
        proxy.wait_for_in_flight("web", color, 0).await;
    }
}

#[tokio::test]
async fn if_the_other_color_does_not_answer_the_first_answer_is_sent() {
    let green = app("green", &[GREEN]).await;
    let closing = MisbehavingUpstream::start(Misbehavior::ClosesBehindHead).await;
    let proxy = TestProxy::build()
        .service_of("web", "*", "/", &[closing.address], &[green.address])
        .services("health.interval = \"1h\"\nassets = { prefixes = [\"/static/\"] }")
        .start();
    proxy.promote(&[("web", "green")]).await;
    let mut client = proxy.public().await;
    for _ in 0..3 {
        let answer = client.get(BLUE, "").await;
        assert_eq!((answer.status, &*answer.text()), (404, "green has no such file"));
        assert_eq!(answer.field("cache-control"), Some("no-store"));
        let own = client.get(GREEN, "").await;
        assert_eq!((own.status, own.text()), found("green", GREEN), "the connection goes on");
    }
    let failed = "flipgate_asset_fallbacks_total{color=\"blue\",result=\"failed\",service=\"web\"}";
    assert!(proxy.metric(failed).await >= 1.0);
    for color in ["blue", "green"] {
        proxy.wait_for_in_flight("web", color, 0).await;
    }
}

#[tokio::test]
async fn a_color_without_an_endpoint_that_is_up_is_not_asked() {
    let green = app("green", &[]).await;
    let proxy = TestProxy::build()
        .service_of("web", "*", "/", &[], &[green.address])
        .services("assets = { prefixes = [\"/static/\"] }")
        .start();
    proxy.promote(&[("web", "green")]).await;
    let answer = proxy.public().await.get(BLUE, "").await;
    assert_eq!((answer.status, answer.field("cache-control")), (404, Some("no-store")));
    let failed = "flipgate_asset_fallbacks_total{color=\"blue\",result=\"failed\",service=\"web\"}";
    assert_eq!(proxy.metric(failed).await, 0.0);
}

/// The first answer is read to its end or its connection is closed, so that the next request does not read its rest.
#[tokio::test]
async fn the_connection_of_the_first_answer_is_used_again_or_closed() {
    for size in [10, 100_000] {
        let blue = app("blue", &[BLUE]).await;
        let green = Application::start(move |request| match request.path == GREEN {
            true => file(request, &format!("green {GREEN}")),
            false => Reply::status(404, &"x".repeat(size)),
        })
        .await;
        let proxy = service(&blue, &green, "").workers(1).start();
        proxy.promote(&[("web", "green")]).await;
        let mut client = proxy.public().await;
        for _ in 0..5 {
            let answer = client.get(BLUE, "").await;
            assert_eq!((answer.status, answer.text()), found("blue", BLUE));
            let answer = client.get(GREEN, "").await;
            assert_eq!((answer.status, answer.text()), found("green", GREEN));
        }
        let series = "flipgate_upstream_connections{color=\"green\",service=\"web\"}";
        assert_eq!(proxy.metric(series).await, 1.0, "no connection is left behind");
    }
}

#[tokio::test]
async fn it_is_counted_by_result_and_as_a_request_of_the_color_that_answers() {
    let (blue, green) = colors().await;
    let proxy = service(&blue, &green, "").start();
    proxy.promote(&[("web", "green")]).await;
    assert_eq!(get(&proxy, BLUE).await, found("blue", BLUE));
    assert_eq!(get(&proxy, "/static/none.0123abcd.js").await.0, 404);
    let asset = |result: &str| {
        format!(
            "flipgate_asset_fallbacks_total{{color=\"blue\",result=\"{result}\",service=\"web\"}}"
        )
    };
    assert_eq!(proxy.metric(&asset("found")).await, 1.0);
    assert_eq!(proxy.metric(&asset("missing")).await, 1.0);
    let requests = |color: &str, code: u16| {
        format!("flipgate_requests_total{{code=\"{code}\",color=\"{color}\",service=\"web\"}}")
    };
    assert_eq!(proxy.metric(&requests("blue", 200)).await, 1.0);
    assert_eq!(proxy.metric(&requests("green", 404)).await, 1.0);
    assert_eq!(proxy.metric(&requests("green", 200)).await, 0.0);
}

/// Both colors answer 404 for the path, and each would ask the other one.
#[tokio::test]
async fn each_color_is_asked_once() {
    let (blue, green) = (
        Application::start(|_| missing(404, "blue")).await,
        Application::start(|_| missing(404, "green")).await,
    );
    let proxy = service(&blue, &green, "").start();
    proxy.promote(&[("web", "green")]).await;
    assert_eq!(get(&proxy, BLUE).await, (404, "green has no such file".to_owned()));
    assert_eq!((blue.requests_for(BLUE).len(), green.requests_for(BLUE).len()), (1, 1));
}
