//! Plans the next state of a change. Pure: nothing is written or applied here.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    catalog::Catalog,
    change::{Change, ReasonKind, RefusalReason},
};
use crate::{
    model::{Color, OwnAddresses, PoolSpec, ServiceName},
    store::{Promotion, ServiceState, State},
};

/// The state after `change`, or all reasons against it.
pub(super) fn plan(
    state: &State,
    catalog: &Catalog,
    own: &OwnAddresses,
    change: &Change,
    reason: Option<&str>,
) -> Result<State, Vec<RefusalReason>> {
    let reasons = own_endpoints(own, change);
    if !reasons.is_empty() {
        return Err(reasons);
    }
    let mut next = match change {
        Change::Promote(colors) => promote(state, catalog, colors)?,
        Change::Rollback { services, force } => {
            let colors = colors_before(state, catalog, services, *force)?;
            let mut next = promote(state, catalog, &colors)?;
            // A rollback is not taken back by another rollback: a repeated call must not bring back what the first one
            // removed.
            for name in colors.keys() {
                if let Some(mut service) = next.services.get(name).map(|it| ServiceState::clone(it))
                {
                    service.previous = None;
                    next.services.insert(name.clone(), Arc::new(service));
                }
            }
            next
        }
        Change::SetPool { service, color, spec, force } => {
            set_pool(state, catalog, service, *color, spec, *force).map_err(|problem| {
                vec![RefusalReason { service: Some(service.clone()), problem }]
            })?
        }
        Change::Reconfigure(new) => {
            let next = reconfigure(state, new);
            let emptied = services_without_endpoints(state, &next, new);
            if !emptied.is_empty() {
                return Err(emptied);
            }
            next
        }
    };
    next.generation = state.generation.next();
    if let Change::Promote(_) | Change::Rollback { .. } = change {
        let promotion = Arc::make_mut(&mut next.promotion);
        promotion.generation = next.generation;
        promotion.is_rollback = matches!(change, Change::Rollback { .. });
        promotion.reason = reason.map(str::to_owned);
    }
    Ok(next)
}

/// The endpoints of a change that are addresses of this process: their requests would come back.
fn own_endpoints(own: &OwnAddresses, change: &Change) -> Vec<RefusalReason> {
    let found = |name: &ServiceName, spec: &PoolSpec| {
        let own = spec.endpoints.iter().find_map(|it| own.find(&it.endpoint))?;
        Some(RefusalReason { service: Some(name.clone()), problem: ReasonKind::OwnAddress(own) })
    };
    match change {
        Change::Promote(_) | Change::Rollback { .. } => Vec::new(),
        Change::SetPool { service, spec, .. } => found(service, spec).into_iter().collect(),
        Change::Reconfigure(new) => {
            let pools = new.services().iter();
            let pools = pools.flat_map(|(name, it)| [(name, &it.blue), (name, &it.green)]);
            pools.filter_map(|(name, spec)| found(name, spec)).collect()
        }
    }
}

/// The state that follows from the state before and a configuration.
pub(super) fn reconfigure(state: &State, catalog: &Catalog) -> State {
    let mut next = state.clone();
    for (name, spec) in catalog.services() {
        if next.damaged.contains_key(name) {
            continue;
        }
        let mut service = match next.services.get(name) {
            Some(known) => {
                let differs = |color| known.differs_from_file(color, spec.pool(color));
                if !Color::BOTH.into_iter().any(differs) {
                    continue;
                }
                ServiceState::clone(known)
            }
            None => ServiceState::fresh(spec.active, spec.blue.clone(), spec.green.clone()),
        };
        for color in Color::BOTH {
            service.follow_file(color, spec.pool(color));
        }
        next.services.insert(name.clone(), Arc::new(service));
    }
    next
}

/// The services with an active pool that a configuration would leave without endpoints.
fn services_without_endpoints(state: &State, next: &State, new: &Catalog) -> Vec<RefusalReason> {
    let active = |state: &State, name: &ServiceName| {
        let service = state.services.get(name)?;
        let has_none = service.pool(service.active).spec().endpoints.is_empty();
        Some((service.active, has_none))
    };
    let names = new.services().keys();
    names
        .filter_map(|name| match (active(state, name)?, active(next, name)?) {
            ((_, false), (color, true)) => {
                let problem = ReasonKind::ActiveEmptied(color);
                Some(RefusalReason { service: Some(name.clone()), problem })
            }
            _ => None,
        })
        .collect()
}

fn promote(
    state: &State,
    catalog: &Catalog,
    colors: &BTreeMap<ServiceName, Color>,
) -> Result<State, Vec<RefusalReason>> {
    let mut next = state.clone();
    let mut reasons = Vec::new();
    if colors.is_empty() {
        reasons.push(RefusalReason { service: None, problem: ReasonKind::NothingNamed });
    }
    for (name, color) in colors {
        if let Err(problem) = promote_one(&mut next, catalog, name, *color) {
            reasons.push(RefusalReason { service: Some(name.clone()), problem });
        }
    }
    let services = colors.keys().cloned().collect();
    next.promotion = Arc::new(Promotion { services, ..Promotion::default() });
    if reasons.is_empty() { Ok(next) } else { Err(reasons) }
}

fn promote_one(
    next: &mut State,
    catalog: &Catalog,
    name: &ServiceName,
    color: Color,
) -> Result<(), ReasonKind> {
    let spec = catalog.services().get(name).ok_or(ReasonKind::UnknownService)?;
    if next.damaged.contains_key(name) {
        // The active color is all that was lost for good, and the operator names it.
        if spec.pool(color).endpoints.is_empty() {
            return Err(ReasonKind::NoEndpoints(color));
        }
        let fresh = ServiceState::fresh(color, spec.blue.clone(), spec.green.clone());
        next.damaged.remove(name);
        next.services.insert(name.clone(), Arc::new(fresh));
        return Ok(());
    }
    let service = next.services.get(name).ok_or(ReasonKind::UnknownService)?;
    if service.active == color {
        return Err(ReasonKind::AlreadyActive(color));
    }
    if service.pool(color).spec().endpoints.is_empty() {
        return Err(ReasonKind::NoEndpoints(color));
    }
    let mut service = ServiceState::clone(service);
    service.promote(color);
    next.services.insert(name.clone(), Arc::new(service));
    Ok(())
}

/// The color of each service before its last promotion.
fn colors_before(
    state: &State,
    catalog: &Catalog,
    names: &[ServiceName],
    force: bool,
) -> Result<BTreeMap<ServiceName, Color>, Vec<RefusalReason>> {
    let names = if names.is_empty() { &state.promotion.services } else { names };
    if names.is_empty() {
        return Err(vec![RefusalReason { service: None, problem: ReasonKind::NothingPromoted }]);
    }
    let mut colors = BTreeMap::new();
    let mut reasons = Vec::new();
    for name in names {
        let known = state.services.get(name).filter(|_| catalog.services().contains_key(name));
        let problem = match known {
            None if state.damaged.contains_key(name) => ReasonKind::Damaged,
            None => ReasonKind::UnknownService,
            Some(service) => match service.previous {
                Some(color) if service.pool(color).served || force => {
                    colors.insert(name.clone(), color);
                    continue;
                }
                Some(color) => ReasonKind::ChangedSince(color),
                None => ReasonKind::NeverPromoted,
            },
        };
        reasons.push(RefusalReason { service: Some(name.clone()), problem });
    }
    if reasons.is_empty() { Ok(colors) } else { Err(reasons) }
}

fn set_pool(
    state: &State,
    catalog: &Catalog,
    name: &ServiceName,
    color: Color,
    spec: &PoolSpec,
    force: bool,
) -> Result<State, ReasonKind> {
    if state.damaged.contains_key(name) {
        return Err(ReasonKind::Damaged);
    }
    let service = state.services.get(name).filter(|_| catalog.services().contains_key(name));
    let mut service = ServiceState::clone(service.ok_or(ReasonKind::UnknownService)?);
    let is_active = service.active == color;
    if is_active && !force {
        return Err(ReasonKind::PoolIsActive(color));
    }
    if is_active && spec.endpoints.is_empty() {
        return Err(ReasonKind::ActiveEmptied(color));
    }
    let pool = service.pool_mut(color);
    // Version and endpoints change with every deployment; protocol and TLS are those of the file.
    pool.runtime = Some(PoolSpec { link: pool.file.link.clone(), ..spec.clone() });
    pool.served = is_active;
    let mut next = state.clone();
    next.services.insert(name.clone(), Arc::new(service));
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::{plan as plan_for, *};
    use crate::{
        control::ServiceSpec,
        model::{Endpoint, Generation, OwnAddress, OwnAddressKind},
    };

    use Color::{Blue, Green};

    fn plan(
        state: &State,
        catalog: &Catalog,
        change: &Change,
    ) -> Result<State, Vec<RefusalReason>> {
        plan_for(state, catalog, &OwnAddresses::default(), change, None)
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
        let plan = |change| problems(plan_for(&state, &old, &addresses, &change, None));
        let service: ServiceName = "web".parse().expect("a name");
        let loops = spec(&["n:1", "localhost:80"]);
        let set = Change::SetPool { service, color: Green, spec: loops, force: true };
        assert_eq!(plan(set), [ReasonKind::OwnAddress(own.clone())]);
        let file = catalog(&[("api", &["a:1"], &[]), ("web", &["w:1"], &["0.0.0.0:80"])]);
        assert_eq!(plan(Change::Reconfigure(Arc::new(file))), [ReasonKind::OwnAddress(own)]);
        let good = catalog(&[("api", &["a:1"], &[]), ("web", &["w:1"], &["127.0.0.1:81"])]);
        let follow = Change::Reconfigure(Arc::new(good));
        assert!(plan_for(&state, &old, &addresses, &follow, None).is_ok());
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
    fn a_rollback_does_not_lead_to_what_was_never_active() {
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
        let refused =
            problems(plan(&state, &catalog_then, &Change::Reconfigure(Arc::new(emptied))));
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
}
