//! The status page, the same for scripts and in the terminal.

use crate::need;
use crate::serve::daemon::{Daemon, World};
use crate::serve::program::{Program, Site};
use crate::support::ct::Ct;
use crate::support::{eventually, on_path, schema};
use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;
use stunetd::fault::Code;

/// A daemon that has done a study, parked one and works on a third.
fn busy(world: &World) -> (Daemon<'_>, std::sync::mpsc::Sender<()>) {
    let daemon = Daemon::start(world);
    Ct::new(1, 4).write(&world.incoming());
    daemon.next_result();
    world.engine.next(crate::serve::scripted::Act::Fail(Code::SeriesMissingSlice));
    Ct::new(2, 4).write(&world.incoming());
    daemon.shows("stunetd_jobs{state=\"parked\"}", 1.0);
    let go = world.engine.next_waits();
    Ct::new(3, 4).write(&world.incoming());
    daemon.passes("the engine works", || world.engine.calls() == 3);
    daemon.passes("its progress shows", || daemon.get("/livez").1.contains("1 of 2"));
    (daemon, go)
}

#[test]
fn the_page_says_what_is_going_on() {
    let world = World::new();
    let (daemon, go) = busy(&world);
    let (status, text) = daemon.get("/status.json");
    assert_eq!(status, 200);
    let json: Value = serde_json::from_str(&text).expect("JSON");
    schema::conforms("top", &json);
    assert_eq!(json["fine"]["state"], "ready");
    assert_eq!(json["fine"]["attention"], serde_json::json!(["One study can not be done as it is."]));
    assert_eq!(
        (&json["flow"]["published"], &json["flow"]["jobs"]["parked"], &json["flow"]["jobs"]["working"]),
        (&1.into(), &1.into(), &1.into())
    );
    assert_eq!((&json["work"][0]["stage"], &json["work"][0]["done"], &json["work"][0]["of"]), (&"segment".into(), &1.into(), &2.into()));
    assert_eq!(
        (&json["parked"][0]["job"], &json["parked"][0]["code"], &json["parked"][0]["kind"]),
        (&2.into(), &"series.missing_slice".into(), &"source".into())
    );
    assert_eq!(json["models"][0]["name"], "demo");
    let (status, page) = daemon.get("/");
    assert_eq!(status, 200);
    // What is to be typed is set apart.
    let action = Code::SeriesMissingSlice.action().replacen('`', "<code>", 1).replacen('`', "</code>", 1);
    for said in [
        "needs a look",
        "Is it fine?",
        "Flow",
        "Time",
        "Machine",
        "Edges",
        "Models and failures",
        "job 3 · segment",
        "1 of 2 windows",
        Code::SeriesMissingSlice.meaning(),
        &action,
        "stunetd jobs explain 2",
        "for those at the scanner or the sending system",
    ] {
        assert!(page.contains(said), "{said} is not in {page}");
    }
    for never in ["<script", "CANARY", "http://", "https://"] {
        assert!(!page.contains(never), "{never} is in {page}");
    }
    go.send(()).expect("the engine waits");
    daemon.next_result();
    // The result is there before the stage that published it has ended.
    let work = || serde_json::from_str::<Value>(&daemon.get("/status.json").1).expect("JSON")["work"].clone();
    daemon.passes("nobody works", || work() == serde_json::json!([]));
    daemon.end().expect("a clean end");
}

#[test]
fn those_who_wait_see_their_place() {
    let world = World::new();
    let daemon = Daemon::start(&world);
    Ct::new(1, 4).write(&world.incoming());
    daemon.next_result();
    let go = world.engine.next_waits();
    (2..=12).for_each(|number| Ct::new(number, 4).write(&world.incoming()));
    daemon.shows("stunetd_series_selected_total{rule=\"all\"}", 12.0);
    daemon.passes("the engine works", || world.engine.calls() == 2);
    // The street has some of them in hand; the rest waits, in the order of their numbers.
    let mut json = Value::Null;
    daemon.passes("the street takes no more", || {
        let before = std::mem::replace(&mut json, serde_json::from_str(&daemon.get("/status.json").1).expect("JSON"));
        before["waiting"] == json["waiting"] && json["waiting"].as_array().is_some_and(|line| line.len() >= 3)
    });
    schema::conforms("top", &json);
    let line = json["waiting"].as_array().expect("a list");
    let last = line.len() as u64;
    for (place, one) in line.iter().enumerate() {
        assert_eq!((&one["position"], &one["job"]), (&(place as u64 + 1).into(), &(12 - last + 1 + place as u64).into()), "{json}");
        assert!(one["eta_s"].is_u64(), "{one}");
    }
    let page = daemon.get("/").1;
    assert!(page.contains("<h2>Next</h2>") && page.contains("result in about"), "{page}");
    go.send(()).expect("the engine waits");
    daemon.end().expect("a clean end");
}

/// The daemon itself says that there is no room before it says anything else.
#[test]
fn the_page_says_that_there_is_no_space() {
    let mut world = World::new();
    world.space = std::sync::Arc::new(|_| Ok(stunetd::sys::machine::Space { free: 5, used: 5 }));
    world.configure =
        Box::new(|config| (config.spool.min_free, config.spool.low_free) = (stunetd::config::ByteSize(10), stunetd::config::ByteSize(10)));
    let daemon = Daemon::start(&world);
    let page = daemon.get("/").1;
    assert!(page.contains("<title>stunetd · no space</title>") && page.contains("nothing is taken until there is some"), "{page}");
    daemon.end().expect("a clean end");
}

/// A destination that nobody answers at is named, on the page, in the terminal's words and for scripts.
#[test]
fn the_page_says_where_results_can_not_go() {
    let mut world = World::new();
    let port = crate::serve::daemon::free_port();
    world.configure = Box::new(move |config| {
        config.destination = vec![stunetd::config::Destination {
            name: "pacs".into(),
            accepts: stunetd::config::Accepts::Research,
            address: format!("127.0.0.1:{port}"),
            ae_title: Some("PACS".parse().expect("title")),
            ..stunetd::config::Destination::default()
        }];
    });
    let daemon = Daemon::start(&world);
    Ct::new(1, 4).write(&world.incoming());
    daemon.next_result();
    daemon.shows("stunetd_destination_up{destination=\"pacs\"}", 0.0);
    daemon.shows("stunetd_outbox_objects{destination=\"pacs\",state=\"waiting\"}", 1.0);
    let json: Value = serde_json::from_str(&daemon.get("/status.json").1).expect("JSON");
    schema::conforms("top", &json);
    let pacs = &json["edges"]["destinations"][0];
    assert_eq!((&pacs["name"], &pacs["up"], &pacs["results"]["waiting"]), (&"pacs".into(), &false.into(), &1.into()));
    assert_eq!(json["fine"]["attention"], serde_json::json!(["The destination `pacs` can not be reached."]));
    let page = daemon.get("/").1;
    assert!(page.contains("The destination <code>pacs</code> can not be reached.") && page.contains("1 wait"), "{page}");
    daemon.end().expect("a clean end");
}

/// A browser lays it out for a screen and a phone, light and dark. `STUNETD_BLESS=1` keeps the picture of docs/.
#[test]
fn a_browser_shows_the_page() {
    let browser = need!(on_path("chromium"), "chromium is not here");
    let world = World::new();
    let (daemon, go) = busy(&world);
    let dir = tempfile::tempdir().expect("folder");
    let picture = |name: &str, size: &str, more: &[&str]| {
        let file = dir.path().join(name);
        let mut command = Command::new(&browser);
        command.args(["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--force-device-scale-factor=1"]);
        command.arg(format!("--window-size={size}")).arg(format!("--screenshot={}", file.display()));
        command.arg(format!("--user-data-dir={}", dir.path().join("profile").display())).args(more);
        let output = command.arg(format!("http://{}/", daemon.address())).output().expect("chromium");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let bytes = std::fs::read(&file).unwrap_or_else(|e| panic!("no picture: {e}: {said}"));
        let reader = png::Decoder::new(std::io::Cursor::new(&bytes)).read_info().expect("PNG");
        (reader.info().width, bytes)
    };
    let (width, wide) = picture("wide.png", "1180,1290", &[]);
    assert_eq!(width, 1180);
    assert!((10_000..300_000).contains(&wide.len()), "{} bytes", wide.len());
    let (_, dark) = picture("dark.png", "1180,1290", &["--blink-settings=preferredColorScheme=0", "--force-dark-mode"]);
    let (_, phone) = picture("phone.png", "500,1900", &[]);
    assert!(dark != wide && phone.len() > 10_000);
    if let Some(folder) = std::env::var_os("STUNETD_PICTURES").map(PathBuf::from) {
        for (name, bytes) in [("wide.png", &wide), ("dark.png", &dark), ("phone.png", &phone)] {
            std::fs::write(folder.join(name), bytes).expect("written");
        }
    }
    go.send(()).expect("the engine waits");
    daemon.next_result();
    daemon.end().expect("a clean end");
}

fn stunetd(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_stunetd")).args(arguments).output().expect("runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn top_shows_the_same_in_a_terminal() {
    let site = Site::new("");
    let file = site.dir.path().join("stunetd.toml");
    let config = file.to_str().expect("UTF-8");
    let (code, _, said) = stunetd(&["top", "--config", config]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("daemon.not_running"), "{said}");
    let program = Program::start(&site);
    Ct::new(1, 8).write(&site.incoming());
    eventually("a result", || site.results().len() == 1);
    program.shows("stunetd_jobs_ended_total{result=\"published\"}", 1.0);
    let (code, page, said) = stunetd(&["top", "--once", "--config", config]);
    assert_eq!(code, Some(0), "{said}");
    for part in ["READY", "fine ", "flow ", "time ", "machine ", "edges ", "models ", "1 published", "demo"] {
        assert!(page.contains(part), "{part} is not in {page}");
    }
    assert!(!page.contains('\u{1b}'), "colours without a terminal: {page}");
    let (code, json, said) = stunetd(&["top", "--json", "--config", config]);
    assert_eq!(code, Some(0), "{said}");
    let json: Value = serde_json::from_str(&json).expect("JSON");
    schema::conforms("top", &json);
    assert_eq!(json["flow"]["published"], 1);
    assert_eq!(program.terminate(), Some(0));
}
