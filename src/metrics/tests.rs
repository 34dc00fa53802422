use super::*;

#[test]
fn a_request_is_counted_under_its_pool_and_code() {
    let metrics = Metrics::new(&Registry::new()).expect("a fresh registry");
    let web: ServiceName = "web".parse().expect("a name");
    let pool = metrics.pool(&web, Color::Blue);
    pool.count(200);
    pool.count(200);
    pool.count(404);
    pool.count(99);
    let endpoint = |name: &str| EndpointGauges {
        endpoint: name.to_owned(),
        is_up: true,
        is_ejected: false,
        was_ejected: false,
        was_used: true,
        in_flight: 3,
        connections: 4,
    };
    let blue =
        PoolGauges { in_flight: 3, endpoints: vec![endpoint("a:1")], ..PoolGauges::default() };
    let shown = ServiceGauges {
        service: web,
        active: Some(Color::Blue),
        share: None,
        held: None,
        is_in_maintenance: false,
        pools: [blue, PoolGauges::default()],
    };
    let text = metrics.show(Generation(7), true, &[shown]);
    for line in [
        r#"flipgate_requests_total{code="200",color="blue",service="web"} 2"#,
        r#"flipgate_requests_total{code="404",color="blue",service="web"} 1"#,
        r#"flipgate_in_flight{color="blue",service="web"} 3"#,
        r#"flipgate_active{color="blue",service="web"} 1"#,
        r#"flipgate_active{color="green",service="web"} 0"#,
        "flipgate_generation 7",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert!(!text.contains(r#"code="99""#));
    assert!(text.contains(r#"flipgate_endpoint_up{color="blue",endpoint="a:1",service="web"} 1"#));
    assert!(!metrics.show(Generation(8), true, &[]).contains("a:1"), "who is gone is not shown");
}
