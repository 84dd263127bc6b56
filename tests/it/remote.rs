//! The status page, metrics and STOW-RS for other machines: over TLS, to those who know the token.

use crate::need;
use crate::receive::dimse::certificates;
use crate::serve::daemon::{Daemon, World, free_port};
use crate::support::on_path;
use std::path::Path;
use std::process::Command;
use stunetd::config::{self, Config, Listen};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// Configures a daemon for other machines, with the keys of a folder.
fn remote(config: &mut Config, folder: &Path, port: u16) {
    config.http.remote = Listen(Some(([127, 0, 0, 1], port).into()));
    (config.http.tls_certificate, config.http.tls_key) = (folder.join("server.pem"), folder.join("server.key"));
    config.http.token = folder.join("token");
}

fn token(folder: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.join("token");
    std::fs::write(&path, text).expect("written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("mode");
}

#[test]
fn others_need_tls_and_the_token() {
    for program in ["openssl", "curl"] {
        need!(on_path(program), "openssl or curl is not here");
    }
    let folder = tempfile::tempdir().expect("folder");
    certificates(folder.path(), &["server"]);
    token(folder.path(), &format!("{TOKEN}\n"));
    let (mut world, port, place) = (World::new(), free_port(), folder.path().to_owned());
    world.configure = Box::new(move |config| {
        remote(config, &place, port);
        config.stow.enabled = true;
    });
    let daemon = Daemon::start(&world);
    let ask = |arguments: &[&str]| {
        let output = Command::new("curl").args(["-s", "-S", "-w", "\n%{http_code}"]).args(arguments).output().expect("curl");
        let (said, failed) = (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned());
        let (body, status) = said.rsplit_once('\n').expect("a status");
        (status.to_owned(), body.to_owned(), failed)
    };
    let authority = folder.path().join("ca.pem");
    let authority = authority.to_str().expect("UTF-8");
    let (knows, guesses) = (format!("Authorization: Bearer {TOKEN}"), format!("Authorization: Bearer {TOKEN}0"));
    let https = |path: &str| format!("https://localhost:{port}{path}");
    for path in ["/", "/status.json", "/metrics", "/livez", "/readyz"] {
        let url = https(path);
        assert_eq!(ask(&["--cacert", authority, &url]).0, "401", "{path}");
        assert_eq!(ask(&["--cacert", authority, "-H", &guesses, &url]).0, "401", "{path}");
        let (status, body, said) = ask(&["--cacert", authority, "-H", &knows, &url]);
        assert_eq!(status, "200", "{path}: {said}");
        assert!(!body.is_empty());
    }
    let stow = https("/dicom-web/studies");
    let post = ["--cacert", authority, "-X", "POST", "-H", "Content-Type: text/plain", "--data", "x", &stow];
    assert_eq!(ask(&post).0, "401");
    assert_eq!(ask(&[&post[..], &["-H", &knows]].concat()).0, "415");
    // Without TLS nothing is answered, and whoever does not know the authority trusts nobody.
    assert_eq!(ask(&["-H", &knows, &format!("http://localhost:{port}/metrics")]).0, "000");
    assert_eq!(ask(&["-H", &knows, &https("/metrics")]).0, "000");
    // A caller that says nothing keeps nobody waiting.
    let _silent = std::net::TcpStream::connect(("127.0.0.1", port)).expect("connected");
    assert_eq!(ask(&["--cacert", authority, "-H", &knows, &https("/readyz")]).0, "200");
    // This machine needs neither.
    assert_eq!(daemon.get("/readyz").0, 200);
    daemon.end().expect("a clean end");
}

#[test]
fn a_token_that_can_not_be_used_ends_the_start() {
    need!(on_path("openssl"), "openssl is not here");
    let folder = tempfile::tempdir().expect("folder");
    certificates(folder.path(), &["server"]);
    token(folder.path(), "short");
    let place = folder.path().to_owned();
    let mut world = World::new();
    world.configure = Box::new(move |config| remote(config, &place, free_port()));
    let fault = world.fails_to_start();
    assert!(fault.code.name() == "config.invalid" && fault.detail.contains("`http.token`"), "{fault}");
}

#[test]
fn tls_and_token_are_given_together() {
    let mistakes = config::parse("[http]\nremote = \"0.0.0.0:9443\"\ntls_key = \"k\"\n").expect_err("mistakes");
    let said: Vec<String> = mistakes.iter().map(|m| m.to_string()).collect();
    assert_eq!(
        said,
        ["2: `http.remote`: `http.tls_certificate` has to be given too", "2: `http.remote`: `http.token` has to be given too"]
    );
}
