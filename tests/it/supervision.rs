//! What the service manager hears, hangs that it is to notice, and a configuration that changes while the daemon runs.

use crate::serve::daemon::{Daemon, World};
use crate::serve::program::{Program, Site};
use crate::support::ct::Ct;
use crate::support::{eventually, http_get};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use stunetd::config::HumanDuration;
use stunetd::sys::notify::Notifier;
use stunetd::telemetry::Post;

/// The socket of a service manager.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn new(folder: &std::path::Path) -> Manager {
        let path = folder.join("notify");
        let socket = UnixDatagram::bind(&path).expect("socket");
        socket.set_read_timeout(Some(Duration::from_secs(120))).expect("timeout");
        Manager { socket, path }
    }

    /// The next message that is no sign of life and no status line.
    fn hears(&self) -> String {
        loop {
            let message = self.next();
            if !["WATCHDOG=1", "STATUS="].iter().any(|start| message.starts_with(start)) {
                return message;
            }
        }
    }

    fn next(&self) -> String {
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).expect("a message");
        String::from_utf8(buffer[..length].to_vec()).expect("UTF-8").trim_end().to_owned()
    }

    /// Whether nothing comes for some time.
    fn is_silent(&self) -> bool {
        self.socket.set_read_timeout(Some(Duration::from_secs(1))).expect("timeout");
        let error = self.socket.recv(&mut [0; 4096]).err();
        self.socket.set_read_timeout(Some(Duration::from_secs(120))).expect("timeout");
        error.is_some_and(|e| matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut))
    }

    /// Reads until such a message.
    fn awaits(&self, start: &str) -> String {
        loop {
            let message = self.next();
            if message.starts_with(start) {
                return message;
            }
        }
    }
}

fn program_log(site: &Site) -> String {
    std::fs::read_to_string(site.dir.path().join("log")).expect("log")
}

const RELOADED: &str = "stunetd_config_last_reload_successful";

#[test]
fn the_service_manager_hears_what_happens() {
    let site = Site::new("[[select]]\nname = \"long\"\nslices = { min = 100 }");
    let file = site.dir.path().join("stunetd.toml");
    let first = std::fs::read_to_string(&file).expect("configuration");
    let manager = Manager::new(site.dir.path());
    let environment = [("NOTIFY_SOCKET", manager.path.as_os_str()), ("WATCHDOG_USEC", "300000".as_ref())];
    let program = Program::start_with(&site, &environment);
    assert_eq!(manager.hears(), "READY=1");
    assert_eq!(http_get(site.address, "/readyz").map(|(status, _)| status), Some(200));
    for _ in 0..3 {
        manager.awaits("WATCHDOG=1");
    }
    program.shows(RELOADED, 1.0);

    // A study that no rule wants, then the same kind after the rules were changed.
    Ct::new(1, 8).write(&site.incoming());
    program.shows("stunetd_series_refused_total{code=\"select.no_rule\"}", 1.0);
    let second = first.replace("min = 100", "min = 4").replace("drain = \"5 min\"", "drain = \"4 min\"");
    std::fs::write(&file, second.clone() + "[log]\nlevel = \"debug\"\n[dimse]\nae_title = \"ELSE\"\n").expect("written");
    program.signal("HUP");
    let reloading = manager.hears();
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert_eq!(manager.hears(), "READY=1");
    program.shows(RELOADED, 1.0);
    let log = program.log();
    for said in ["drain, select, log.level", "after the next start", "dimse.ae_title"] {
        assert!(log.contains(said), "{said} is not in {log}");
    }
    Ct::new(2, 8).write(&site.incoming());
    eventually("a result", || site.results().len() == 1);

    // Mistakes change nothing, and all of them are told.
    let taken = program.metric("stunetd_config_last_reload_success_timestamp_seconds").expect("a time");
    std::fs::write(&file, second.replace("min = 4", "min = 400").replace("drain = ", "drian = ") + "[logs]\n").expect("written");
    program.signal("HUP");
    assert!(manager.hears().starts_with("RELOADING=1"));
    assert_eq!(manager.hears(), "READY=1");
    program.shows(RELOADED, 0.0);
    assert_eq!(program.metric("stunetd_config_last_reload_success_timestamp_seconds"), Some(taken));
    let log = program.log();
    assert!(log.contains("`drian`") && log.contains("`logs`"), "{log}");
    Ct::new(3, 8).write(&site.incoming());
    eventually("a result", || site.results().len() == 2);

    program.signal("TERM");
    // The drain time of the second file, and what is given up stops within another minute.
    assert_eq!(manager.hears(), "STOPPING=1\nEXTEND_TIMEOUT_USEC=300000000");
    assert_eq!(program.ended(), Some(0));
}

#[test]
fn a_second_signal_ends_at_once() {
    let site = Site::new("precision = \"f32\"\nmirror = true\nstep = 0.1");
    let program = Program::start(&site);
    Ct::new(1, 60).write(&site.incoming());
    eventually("the study is in work", || program.get("/livez").contains("segment"));
    program.signal("TERM");
    program.shows("stunetd_draining", 1.0);
    program.signal("TERM");
    assert_eq!(program.ended(), Some(128 + 15));
    assert_eq!(site.results().len(), 0);
    // What was in work is taken up again, not parked for what the end did to it.
    assert!(!program_log(&site).contains("parked"), "{}", program_log(&site));
    let program = Program::start(&site);
    program.shows("stunetd_jobs{state=\"working\"}", 1.0);
}

#[test]
fn a_hang_gives_no_more_signs_of_life_until_it_goes_on() {
    let told = Arc::new(Mutex::new(Vec::<String>::new()));
    let mut world = World::new();
    world.notifier = {
        let told = told.clone();
        Notifier::to(Some(Duration::from_secs(9)), move |text| told.lock().expect("list").push(text.to_owned()))
    };
    world.configure = Box::new(|config| config.stage_deadline = HumanDuration(Duration::from_secs(60)));
    let signs = || told.lock().expect("list").iter().filter(|text| *text == "WATCHDOG=1").count();
    let (go, hang) = (world.engine.next_waits(), world.engine.next_hangs());
    let daemon = Daemon::start(&world);
    Ct::new(1, 4).write(&world.incoming());
    daemon.passes("the engine works", || world.engine.calls() == 1);
    // As long as it gets ahead it may take any time.
    let (stalls, before) = ("stunetd_watchdog_stage_stalls_total{stage=\"segment\"}", signs());
    let mut seconds = 0;
    daemon.passes("ten minutes", || {
        seconds += 1;
        seconds == 600
    });
    assert_eq!(daemon.metric(stalls), 0.0);
    assert!(signs() >= before + 100, "{} signs in ten minutes", signs() - before);
    go.send(()).expect("the engine waits");
    daemon.next_result();

    Ct::new(2, 4).write(&world.incoming());
    daemon.passes("the engine hangs", || world.engine.calls() == 2);
    daemon.shows(stalls, 1.0);
    let json: serde_json::Value = serde_json::from_str(&daemon.get("/status.json").1).expect("JSON");
    assert_eq!(json["fine"]["attention"], serde_json::json!(["`segment` gets no further with job 2."]));
    let silent = signs();
    let mut seconds = 0;
    daemon.passes("a minute", || {
        seconds += 1;
        seconds == 60
    });
    assert_eq!(signs(), silent);
    assert!(told.lock().expect("list").iter().any(|text| text.contains("segment gets no further with job 2")), "{told:?}");
    hang.send(()).expect("the engine hangs");
    daemon.next_result();
    daemon.passes("signs of life", || signs() > silent);
    assert_eq!(daemon.metric(stalls), 1.0);
    daemon.end().expect("a clean end");
    assert!(told.lock().expect("list").iter().any(|text| text.starts_with("STOPPING=1")));
}

/// Whoever stands still, wherever: it is told of, the service manager hears nothing more and ends the process, and the next one does the work
/// once. A destination that hangs holds up nobody else.
#[test]
fn a_hang_at_any_post_ends_with_a_new_process_that_does_the_work() {
    for post in Post::all().map(Post::name) {
        let site = Site::with_rules("[[destination]]\nname = \"archive\"\nkind = \"folder\"\naccepts = \"research\"\npath = \"delivered\"");
        let (file, delivered) = (site.dir.path().join("stunetd.toml"), site.dir.path().join("delivered"));
        std::fs::create_dir(&delivered).expect("folder");
        let text = std::fs::read_to_string(&file).expect("configuration");
        std::fs::write(&file, format!("stage_deadline = \"3 s\"\n{text}")).expect("written");
        let manager = Manager::new(site.dir.path());
        // The intake thread begins again and again; anybody else has one study.
        let visit = if post == "intake" { format!("{post}:3") } else { post.to_owned() };
        let environment = [
            ("NOTIFY_SOCKET", manager.path.as_os_str()),
            ("WATCHDOG_USEC", "300000".as_ref()),
            (stunetd::sys::hang::VARIABLE, visit.as_ref()),
        ];
        let program = Program::start_with(&site, &environment);
        Ct::new(1, 8).write(&site.incoming());
        // Read while it is written: the supervisor waits for a socket that is full.
        let status = loop {
            let status = manager.awaits("STATUS=");
            if status.contains("gets no further") {
                break status;
            }
        };
        assert!(status.contains(&format!("{post} gets no further")), "{status}");
        assert_eq!(program.metric(&format!("stunetd_watchdog_stage_stalls_total{{stage=\"{post}\"}}")), Some(1.0));
        if post == "outbox" {
            manager.awaits("WATCHDOG=1");
            Ct::new(2, 8).write(&site.incoming());
            eventually("another result", || site.results().len() == 2);
        } else {
            assert!(manager.is_silent(), "signs of life while `{post}` hangs");
        }
        // As systemd does when it hears nothing.
        program.signal("ABRT");
        assert_eq!(program.ended(), None, "it was ended by a signal");
        let studies = if post == "outbox" { 2 } else { 1 };
        let program = Program::start(&site);
        let count = || {
            std::fs::read_dir(&delivered)
                .expect("folder")
                .filter(|e| !e.as_ref().expect("entry").file_name().as_encoded_bytes().starts_with(b"."))
                .count()
        };
        eventually("all is delivered", || (site.results().len(), count()) == (studies, studies));
        assert_eq!(program.metric("stunetd_jobs{state=\"parked\"}"), Some(0.0));
        assert_eq!(program.terminate(), Some(0));
    }
}

/// The configuration is read again and again while studies come in, every third time with a mistake in it: no study is lost, and no mistake is
/// ever taken. `STUNETD_RELOADS` sets how often.
#[test]
fn reloads_under_load_lose_nothing() {
    let reloads = std::env::var("STUNETD_RELOADS").map_or(20, |n| n.parse::<u32>().expect("a number"));
    let site = Site::new("");
    let file = site.dir.path().join("stunetd.toml");
    let good = std::fs::read_to_string(&file).expect("configuration");
    let manager = Manager::new(site.dir.path());
    let program = Program::start_with(&site, &[("NOTIFY_SOCKET", manager.path.as_os_str())]);
    assert_eq!(manager.hears(), "READY=1");
    let (mut studies, mut invalid) = (0, 0);
    for reload in 0..reloads {
        if reload % 4 == 0 {
            studies += 1;
            Ct::new(studies, 6).write(&site.incoming());
        }
        let text = match reload % 3 {
            0 => good.replace("drain = \"5 min\"", &format!("drain = \"{} min\"", 5 + reload % 7)),
            1 => good.clone(),
            // It would refuse every study, if it were taken.
            _ => good.replace("quiet = \"1 s\"", "quiet = \"1 s\"\nmin_slices = 1000\nquite = \"1 s\""),
        };
        let is_valid = reload % 3 != 2;
        invalid += u32::from(!is_valid);
        std::fs::write(&file, text).expect("written");
        program.signal("HUP");
        let reloading = manager.hears();
        assert!(reloading.starts_with("RELOADING=1"), "{reloading}");
        assert_eq!(manager.hears(), "READY=1");
        program.shows(RELOADED, f64::from(u8::from(is_valid)));
    }
    eventually("every study has its result", || site.results().len() == studies as usize);
    let refused = program.get("/metrics");
    let refused = refused.lines().filter(|line| line.starts_with("stunetd_series_refused_total") && !line.ends_with(" 0"));
    assert_eq!(refused.collect::<Vec<_>>(), Vec::<&str>::new());
    assert_eq!(program.terminate(), Some(0));
    println!("tally R12 reloads under load: {reloads}, {invalid} of them invalid, {studies} studies each with its result");
}
