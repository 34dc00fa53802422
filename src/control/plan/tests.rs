use std::time::Duration;

use super::{plan as plan_for, *};
use crate::{
    continuity::HoldSettings,
    control::{IntakeChange, ServiceSpec},
    model::{Endpoint, Generation, OwnAddress, OwnAddressKind, PoolSpec},
};

use Color::{Blue, Green};

fn plan(state: &State, catalog: &Catalog, change: &Change) -> Result<State, Vec<RefusalReason>> {
    let call = ChangeRequest::unconditional(change.clone());
    plan_for(state, catalog, &OwnAddresses::default(), &call, 0)
}

fn spec(endpoints: &[&str]) -> PoolSpec {
    let endpoints = endpoints.iter().map(|it| it.parse::<Endpoint>().expect("an endpoint"));
    PoolSpec::new(None, endpoints).expect("no two alike")
}

fn catalog(services: &[(&str, &[&str], &[&str])]) -> Catalog {
    let services = services
        .iter()
        .map(|(name, blue, green)| {
            let service = ServiceSpec {
                hosts: vec![format!("{name}.test").parse().expect("a pattern")],
                path: "/".parse().expect("a prefix"),
                rules: crate::model::ServiceRules::default(),
                policy: Arc::default(),
                gate: Arc::default(),
                watch: None,
                pins: None,
                share: Arc::default(),
                hold: HoldSettings::default(),
                active: Blue,
                blue: spec(blue),
                green: spec(green),
            };
            (name.parse().expect("a name"), service)
        })
        .collect();
    Catalog::new(services).expect("no two alike")
}

fn two() -> (State, Catalog) {
    let catalog = catalog(&[("api", &["a:1"], &["a:2"]), ("web", &["w:1"], &["w:2"])]);
    (reconfigure(&State::default(), &catalog), catalog)
}

fn colors(pairs: &[(&str, Color)]) -> BTreeMap<ServiceName, Color> {
    pairs.iter().map(|(name, color)| (name.parse().expect("a name"), *color)).collect()
}

fn active(state: &State, name: &str) -> Color {
    state.services[name].active
}

fn rollback(names: &[&str]) -> Change {
    let services = names.iter().map(|it| it.parse().expect("a name")).collect();
    Change::Rollback { services, force: false }
}

fn problems(refused: Result<State, Vec<RefusalReason>>) -> Vec<ReasonKind> {
    refused.expect_err("refused").into_iter().map(|it| it.problem).collect()
}

#[test]
fn a_promotion_changes_all_its_services_or_none() {
    let (state, catalog) = two();
    let both = Change::Promote(colors(&[("api", Green), ("web", Green)]));
    let next = plan(&state, &catalog, &both).expect("both can");
    assert_eq!((active(&next, "api"), active(&next, "web")), (Green, Green));
    assert_eq!(next.generation, Generation(1));

    let one_cannot = Change::Promote(colors(&[("api", Green), ("web", Blue), ("x", Blue)]));
    let refused = problems(plan(&state, &catalog, &one_cannot));
    assert_eq!(refused, [ReasonKind::AlreadyActive(Blue), ReasonKind::UnknownService]);
}

#[test]
fn a_color_without_endpoints_is_never_promoted() {
    let catalog = catalog(&[("web", &["w:1"], &[])]);
    let state = reconfigure(&State::default(), &catalog);
    let change = Change::Promote(colors(&[("web", Green)]));
    assert_eq!(problems(plan(&state, &catalog, &change)), [ReasonKind::NoEndpoints(Green)]);
}

#[test]
fn an_endpoint_that_is_the_process_itself_is_refused() {
    let (state, old) = two();
    let address = "127.0.0.1:80".parse().expect("an address");
    let own = OwnAddress { address: OwnAddressKind::Tcp(address), description: "a listener" };
    let addresses = OwnAddresses::new(vec![own.clone()], |_| false);
    let plan_of =
        |change| plan_for(&state, &old, &addresses, &ChangeRequest::unconditional(change), 0);
    let plan = |change| problems(plan_of(change));
    let service: ServiceName = "web".parse().expect("a name");
    let loops = spec(&["n:1", "localhost:80"]);
    let set = Change::SetPool { service, color: Green, spec: loops, force: true };
    assert_eq!(plan(set), [ReasonKind::OwnAddress(own.clone())]);
    let file = catalog(&[("api", &["a:1"], &[]), ("web", &["w:1"], &["0.0.0.0:80"])]);
    assert_eq!(plan(Change::Reconfigure(Arc::new(file))), [ReasonKind::OwnAddress(own)]);
    let good = catalog(&[("api", &["a:1"], &[]), ("web", &["w:1"], &["127.0.0.1:81"])]);
    let follow = Change::Reconfigure(Arc::new(good));
    assert!(plan_of(follow).is_ok());
}

#[test]
fn a_rollback_goes_back_to_where_the_last_promotion_came_from() {
    let (state, catalog) = two();
    let change = Change::Promote(colors(&[("api", Green), ("web", Green)]));
    let next = plan(&state, &catalog, &change).expect("both can");
    let back = plan(&next, &catalog, &rollback(&[])).expect("there is a way");
    assert_eq!((active(&back, "api"), active(&back, "web")), (Blue, Blue));
    // A repeated rollback must not bring back what the first one removed.
    let again = problems(plan(&back, &catalog, &rollback(&[])));
    assert_eq!(again, [ReasonKind::NeverPromoted, ReasonKind::NeverPromoted]);
}

#[test]
fn a_rollback_to_endpoints_that_were_never_active_is_refused() {
    let (state, catalog) = two();
    let change = Change::Promote(colors(&[("web", Green)]));
    let state = plan(&state, &catalog, &change).expect("it can");
    let service: ServiceName = "web".parse().expect("a name");
    let set = Change::SetPool { service, color: Blue, spec: spec(&["n:1"]), force: false };
    let state = plan(&state, &catalog, &set).expect("idle");
    let refused = problems(plan(&state, &catalog, &rollback(&[])));
    assert_eq!(refused, [ReasonKind::ChangedSince(Blue)]);
    let forced = Change::Rollback { services: vec![], force: true };
    assert_eq!(active(&plan(&state, &catalog, &forced).expect("forced"), "web"), Blue);
}

#[test]
fn a_service_that_was_never_promoted_is_not_rolled_back() {
    let (state, catalog) = two();
    let nothing = problems(plan(&state, &catalog, &rollback(&[])));
    assert_eq!(nothing, [ReasonKind::NothingPromoted]);
    let refused = problems(plan(&state, &catalog, &rollback(&["web", "x"])));
    assert_eq!(refused, [ReasonKind::NeverPromoted, ReasonKind::UnknownService]);
}

#[test]
fn the_active_pool_is_changed_only_by_force_and_never_emptied() {
    let (state, catalog) = two();
    let set = |color, endpoints: &[&str], force| {
        let service = "web".parse().expect("a name");
        let change = Change::SetPool { service, color, spec: spec(endpoints), force };
        plan(&state, &catalog, &change)
    };
    assert_eq!(problems(set(Blue, &["n:1"], false)), [ReasonKind::PoolIsActive(Blue)]);
    assert_eq!(problems(set(Blue, &[], true)), [ReasonKind::ActiveEmptied(Blue)]);
    let forced = set(Blue, &["n:1"], true).expect("forced");
    assert!(forced.services["web"].blue.served);
    let idle = set(Green, &["n:1"], false).expect("idle");
    assert_eq!(idle.services["web"].green.spec(), &spec(&["n:1"]));
    set(Green, &[], false).expect("an idle pool may be emptied");
}

#[test]
fn a_runtime_pool_stays_until_its_entry_in_the_file_changes() {
    let (state, catalog_then) = two();
    let service: ServiceName = "web".parse().expect("a name");
    let set = Change::SetPool { service, color: Green, spec: spec(&["n:1"]), force: false };
    let state = plan(&state, &catalog_then, &set).expect("idle");
    let same = reconfigure(&state, &catalog_then);
    assert_eq!(same.services["web"].green.spec(), &spec(&["n:1"]));
    let changed = catalog(&[("api", &["a:1"], &["a:2"]), ("web", &["w:1"], &["w:3"])]);
    let next = reconfigure(&state, &changed);
    assert_eq!(next.services["web"].green.spec(), &spec(&["w:3"]));
    assert_eq!(active(&next, "web"), Blue);
}

#[test]
fn a_changed_file_does_not_empty_what_is_active() {
    let (state, catalog_then) = two();
    let emptied = catalog(&[("api", &["a:1"], &["a:2"]), ("web", &[], &["w:2"])]);
    let refused = problems(plan(&state, &catalog_then, &Change::Reconfigure(Arc::new(emptied))));
    assert_eq!(refused, [ReasonKind::ActiveEmptied(Blue)]);
    let idle = catalog(&[("api", &["a:1"], &[]), ("web", &["w:1"], &["w:2"])]);
    plan(&state, &catalog_then, &Change::Reconfigure(Arc::new(idle))).expect("green is idle");
}

#[test]
fn a_service_that_left_the_configuration_comes_back_as_it_was() {
    let (state, catalog_then) = two();
    let change = Change::Promote(colors(&[("web", Green)]));
    let state = plan(&state, &catalog_then, &change).expect("it can");
    let without = catalog(&[("api", &["a:1"], &["a:2"])]);
    let gone = reconfigure(&state, &without);
    let refused = problems(plan(&gone, &without, &rollback(&[])));
    assert_eq!(refused, [ReasonKind::UnknownService]);
    assert_eq!(active(&reconfigure(&gone, &catalog_then), "web"), Green);
}

#[test]
fn a_damaged_service_waits_for_an_operator_who_says_what_is_active() {
    let (mut state, catalog) = two();
    let web: ServiceName = "web".parse().expect("a name");
    state.services.remove(&web);
    state.damaged.insert(web.clone(), "garbage".into());
    assert!(reconfigure(&state, &catalog).damaged.contains_key(&web), "it is not guessed");
    let spec = spec(&["n:1"]);
    let set = Change::SetPool { service: web.clone(), color: Blue, spec, force: true };
    assert_eq!(problems(plan(&state, &catalog, &set)), [ReasonKind::Damaged]);
    for color in Color::BOTH {
        let promote = Change::Promote(colors(&[("web", color)]));
        let next = plan(&state, &catalog, &promote).expect("whichever it is");
        assert_eq!((active(&next, "web"), next.damaged.len()), (color, 0));
    }
}

fn intake(
    state: &State,
    (name, change): (&str, IntakeChange),
    by: &str,
    now_ms: u64,
) -> Result<State, Vec<RefusalReason>> {
    let (_, catalog) = two();
    let service = name.parse().expect("a name");
    let actor = Actor {
        name: by.to_owned(),
        address: "10.0.0.1:5".to_owned(),
        uid: None,
        is_authenticated: true,
    };
    let call = ChangeRequest {
        actor: Some(actor),
        ..ChangeRequest::unconditional(Change::Intake { service, change })
    };
    plan_for(state, &catalog, &OwnAddresses::default(), &call, now_ms)
}

fn hold_of_seconds(seconds: u64, force: bool) -> IntakeChange {
    IntakeChange::Hold { length: Some(Duration::from_secs(seconds)), places: None, force }
}

#[test]
fn a_hold_keeps_its_id_for_its_owner_and_another_caller_needs_force() {
    let (state, _) = two();
    let held = intake(&state, ("web", hold_of_seconds(10, false)), "ci", 1000).expect("free");
    assert_eq!((held.generation, &held.services), (state.generation, &state.services));
    let term = held.holds["web"].clone();
    assert_eq!((&*term.owner, term.until_ms, term.places), ("ci", 11_000, 1000));
    let longer = intake(&held, ("web", hold_of_seconds(60, false)), "ci", 5000).expect("own");
    let extended = &longer.holds["web"];
    assert_eq!((extended.id, extended.began_ms, extended.set_ms), (term.id, 1000, 5000));
    assert_eq!(extended.until_ms, 65_000);
    let refused = problems(intake(&held, ("web", hold_of_seconds(60, false)), "bo", 5000));
    let until = "1970-01-01T00:00:11Z".to_owned();
    assert_eq!(refused, [ReasonKind::HeldByOther { owner: "ci".to_owned(), until }]);
    let forced = intake(&held, ("web", hold_of_seconds(60, true)), "bo", 5000).expect("forced");
    assert_eq!((&*forced.holds["web"].owner, forced.holds["web"].began_ms), ("bo", 5000));
    // A hold that is over is not in the way.
    let later = intake(&held, ("web", hold_of_seconds(10, false)), "bo", 11_000);
    assert_eq!(&*later.expect("it is over").holds["web"].owner, "bo");
}

#[test]
fn a_release_ends_the_hold_that_it_means_and_otherwise_changes_nothing() {
    let (state, _) = two();
    let release = |id| IntakeChange::Release { id, is_over: false };
    let held = intake(&state, ("web", hold_of_seconds(10, false)), "ci", 0).expect("free");
    let id = held.holds["web"].id;
    assert_eq!(intake(&state, ("web", release(None)), "bo", 0).as_ref(), Ok(&state));
    assert_eq!(intake(&held, ("web", release(Some(id + 1))), "bo", 0).as_ref(), Ok(&held));
    assert_eq!(intake(&held, ("api", release(None)), "bo", 0).as_ref(), Ok(&held));
    for id in [None, Some(id)] {
        assert_eq!(intake(&held, ("web", release(id)), "bo", 0).as_ref(), Ok(&state));
    }
    let unknown = problems(intake(&state, ("shop", release(None)), "bo", 0));
    assert_eq!(unknown, [ReasonKind::UnknownService]);
}
