//! What earlier and later versions have written.

use std::{fs, path::PathBuf};

use super::{super::show, Simulated, found, name};
use crate::{
    model::{Color, Generation, Protocol, ProxyProtocol},
    store::{
        FileStore,
        disk::Disk,
        entries::Delta,
        record::FileId,
        recovery::SNAPSHOT,
        snapshot,
        state::{EntryId, Revision, State},
    },
};

fn golden(format: u32) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/state-format-{format}"))
}

/// What all golden folders have in common: see their README.
fn assert_is_golden(state: &State) {
    let active = |it: &str| state.services[it].active;
    assert_eq!((active("api"), active("web")), (Color::Green, Color::Green));
    assert_eq!(state.services["web"].previous, Some(Color::Blue));
    let green = state.services["web"].green.runtime.as_ref().expect("it was set");
    let endpoints: Vec<_> =
        green.endpoints.iter().map(|it| (it.endpoint.to_string(), it.weight)).collect();
    assert_eq!(endpoints, [("127.0.0.1:9307".to_owned(), 1), ("app-2:9308".to_owned(), 5)]);
    assert_eq!(green.version.as_ref().map(crate::model::Version::as_str), Some("8.0"));
    let shop = &state.services["shop"].green.file;
    assert_eq!(shop.link.protocol, Some(Protocol::H2));
    assert_eq!(shop.link.proxy_protocol, Some(ProxyProtocol::V2));
    assert_eq!(shop.link.tls.server_name.as_deref(), Some("shop.test"));
    let keys: Vec<_> =
        state.accepted.iter().take(3).map(|it| (it.key.as_str(), it.generation.0)).collect();
    assert_eq!(keys, [("set-green", 1), ("deploy-77", 2), ("deploy-78", 4)]);
    assert_eq!(state.damaged.len(), 0);
}

#[test]
fn the_folder_of_version_0_1_0_is_read_and_migrated() {
    let shown = show(&golden(1)).expect("it is readable");
    assert!(shown.is_old);
    let state = shown.state.expect("it has a state");
    assert_is_golden(&state);
    assert_eq!((state.revision, state.generation), (Revision(0), Generation(4)));
    assert_eq!(state.promotion.services, [name("api")]);
    let folder = tempfile::tempdir().expect("a folder");
    let before = fs::read(golden(1).join(SNAPSHOT)).expect("it is readable");
    fs::write(folder.path().join(SNAPSHOT), &before).expect("copied");
    FileStore::open(folder.path()).expect("it is readable").close();
    let copy = fs::read(folder.path().join("state.jsonl.format-1")).expect("the old file is kept");
    assert_eq!(copy, before);
    let again = show(folder.path()).expect("it is readable");
    assert!(!again.is_old);
    assert_eq!(again.state, Some(state));
}

#[test]
fn the_folder_of_format_2_is_read() {
    let shown = show(&golden(2)).expect("it is readable");
    let state = shown.state.expect("it has a state");
    assert!(!shown.is_old);
    assert!(shown.replayed > 0, "its last changes are in the journal");
    assert_is_golden(&state);
    assert_eq!(state.generation, Generation(5));
    assert_eq!(state.services["shop"].active, Color::Blue);
    assert_eq!(state.promotion.reason.as_deref(), Some("golden"));
    assert_eq!(state.accepted.iter().last().map(|it| it.key.as_str()), Some("deploy-79"));
}

#[test]
fn a_later_format_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let json = r#"{"flipgate":3,"generation":1,"services":[],"last_promotion":[],"accepted":[]}"#;
    let text = format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes()));
    fs::write(folder.path().join(SNAPSHOT), &text).expect("written");
    let error = FileStore::open(folder.path()).expect_err("it is a later one").to_string();
    assert!(error.contains("a later Flipgate (format 3"), "{error}");
    assert_eq!(fs::read_to_string(folder.path().join(SNAPSHOT)).expect("still there"), text);
}

/// Version 0.1.0 reads the first line, and must find a format that it does not know.
#[test]
fn the_first_line_has_the_shape_that_version_0_1_0_refuses_by_its_number() {
    let text = snapshot::write(&State::default(), (1, FileId(1)));
    let first = text.lines().next().expect("a line");
    let json: serde_json::Value = serde_json::from_str(&first[9..]).expect("JSON");
    let fields: Vec<_> = json.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(fields, ["accepted", "flipgate", "generation", "last_promotion", "services"]);
    assert_eq!(json["flipgate"], 2);
}

#[test]
fn entries_and_fields_of_a_newer_kind_are_kept() {
    let disk = Simulated::default();
    let states = super::states(4);
    let mut bench = super::Bench::ready(&disk);
    for state in &states[1..] {
        bench.commit(state.clone()).expect("a disk that is well");
    }
    // A change that a newer version wrote: an entry of its own, and a field more of one that we know.
    let web = serde_json::to_string(&super::super::entry::service_entry(
        &name("web"),
        &states[4].services["web"],
    ));
    let web = web.expect("JSON").replacen("{\"active\"", "{\"canary\":{\"share\":7},\"active\"", 1);
    let json = format!(
        r#"{{"revision":5,"generation":9,"put":[{web},{{"kind":"approval","key":"web.green","value":{{"by":["ada"]}}}}]}}"#
    );
    let delta: Delta<'_> = serde_json::from_str(&json).expect("a change");
    let newer = delta.apply(states[4].clone()).expect("it can be applied");
    bench.commit(newer.clone()).expect("a disk that is well");
    let id = EntryId { kind: "approval".into(), key: "web.green".into() };
    assert_eq!(newer.unknown.get(&id).map(|it| &**it), Some(r#"{"by":["ada"]}"#));
    // Through the journal, through a snapshot, and through changes of everything around them.
    assert_eq!(found(&disk), Ok(newer.clone()));
    let mut bench = super::Bench::ready(&disk);
    let mut state = bench.journal.state().clone();
    for number in 6..12 {
        state = super::step(&state, number);
        bench.commit(state.clone()).expect("a disk that is well");
    }
    let after = found(&disk).expect("readable");
    assert_eq!(after.unknown, newer.unknown);
    let unknown = after.services["web"].unknown.as_deref();
    assert_eq!(unknown, Some(r#"{"canary":{"share":7}}"#));
    assert!(disk.read(SNAPSHOT).is_ok());
}

#[test]
fn one_damaged_service_costs_no_other_and_stays_where_it_is() {
    for lost in ["api", "shop", "web"] {
        for is_line_missing in [false, true] {
            let folder = tempfile::tempdir().expect("a folder");
            let file = folder.path().join(SNAPSHOT);
            fs::copy(golden(1).join(SNAPSHOT), &file).expect("copied");
            FileStore::open(folder.path()).expect("it is readable").close();
            let whole = fs::read_to_string(&file).expect("readable");
            let of_it = |it: &&str| it.contains(&format!("\"key\":\"{lost}\""));
            let line = whole.lines().find(of_it).expect("a line");
            let damaged = match is_line_missing {
                true => whole.replacen(&format!("{line}\n"), "", 1),
                false => whole.replacen(line, &line.replacen("active", "actIve", 1), 1),
            };
            fs::write(&file, &damaged).expect("written");
            let found = show(folder.path()).expect("two are whole").state.expect("a state");
            let names: Vec<_> =
                found.damaged.keys().map(crate::model::ServiceName::as_str).collect();
            assert_eq!(names, [lost]);
            assert_eq!(found.services.len(), 2);
            // It stays damaged however often the others are written, and a copy is kept.
            FileStore::open(folder.path()).expect("two are whole").close();
            let copy = fs::read_to_string(folder.path().join("state.jsonl.damaged"));
            assert_eq!(copy.expect("a copy is kept"), damaged);
            assert_eq!(show(folder.path()).expect("as before").state, Some(found));
        }
    }
}

#[test]
fn a_snapshot_as_a_whole_that_cannot_be_read_is_named_with_the_way_out() {
    for bytes in [&b""[..], b"\n", b"garbage", b"{}", &[0xff; 100], &[0; 4096]] {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join(SNAPSHOT);
        fs::write(&file, bytes).expect("written");
        let error = FileStore::open(folder.path()).expect_err("damaged").to_string();
        assert!(error.contains(&file.display().to_string()) && error.contains("mv "), "{error}");
        assert_eq!(fs::read(&file).expect("still there"), bytes, "nothing is lost");
    }
}
