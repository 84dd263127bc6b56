//! What is not the daemon's own: a destination that is down, slow or refuses, and a ledger that was damaged or set back by somebody. And the
//! removal of what nobody waits for any more, killed in the middle.

use crate::Dice;
use crate::daemon::Program;
use crate::disk::Names;
use crate::scp::{Act, Scp};
use crate::world::World;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use stunetd::ledger::FILE;
use stunetd::sys::clock::Stopwatch;

/// For a run without a fault, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longer than any pause after a failure.
const LATER: i64 = 86_400;

/// Kills and power cuts of a daemon whose PACS is down, slow, refuses, or dies while it is sent to: in the end that has every result once.
pub fn bad_destinations(kills: u32, dice: &mut Dice) -> String {
    let Some(mut world) = World::on_a_disk() else { return "skipped: needs a C compiler (`cc`)".into() };
    let mut scp = Scp::new(port(dice));
    world.pacs = Some(scp.port);
    let (mut down, mut slow, mut refused, mut died) = (0, 0, 0, 0);
    for kill in 0..kills {
        world.feed_folder(1 + dice.below(2) as u32);
        scp.state().pause = Duration::ZERO;
        scp.state().script.clear();
        match kill % 4 {
            0 => {
                scp.down();
                down += 1;
            }
            1 => {
                up_again(&mut scp);
                scp.state().pause = Duration::from_millis(300);
                slow += 1;
            }
            2 => {
                up_again(&mut scp);
                // Out of resources, and a failure that says nothing.
                scp.script(&[Act::Answer(0xA700), Act::Answer(0x0110), Act::Answer(0xA700)]);
                refused += 1;
            }
            _ => {
                up_again(&mut scp);
                scp.script(&[Act::DieDuring, Act::DieAfter, Act::Answer(0), Act::DieAfter]);
                died += 1;
            }
        }
        // Pauses after failures are over with every start.
        world.disk.as_mut().expect("a disk").faults.clock = i64::from(kill + 1) * LATER;
        let mut running = world.start(None);
        running.dies_within(Duration::from_millis(1000 + dice.below(2000)));
        let done = world.done();
        running.kill();
        world.look();
        if dice.below(3) == 0 {
            let names = if dice.below(2) == 0 { Names::Lost } else { Names::Kept };
            world.cut(names, &done).unwrap_or_else(|broken| panic!("{names:?}: {broken}\n{}", world.log()));
        }
    }
    up_again(&mut scp);
    scp.state().pause = Duration::ZERO;
    scp.state().script.clear();
    world.disk.as_mut().expect("a disk").faults.clock = i64::from(kills + 1) * LATER;
    world.finish();
    let kept = scp.times_kept();
    assert_eq!(kept.len(), world.expected().len(), "results at the PACS");
    assert!(kept.iter().all(|times| *times == 1), "sent again although it was there: {kept:?}");
    format!(
        "{kills} kills with a PACS that was down ({down}), slow ({slow}), refused ({refused}), died ({died}); it has {} results once each: {}",
        kept.len(),
        world.tally()
    )
}

/// A port that stays free while nobody listens: none that the system gives to those who connect.
fn port(dice: &mut Dice) -> u16 {
    loop {
        let port = 20_000 + dice.below(12_000) as u16;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// It listens, whether or not it did before.
fn up_again(scp: &mut Scp) {
    scp.down();
    scp.up();
}

/// A ledger that an older copy of itself was put in the place of, and one with bytes of something else in it: no result is made twice, lost, or
/// delivered twice.
pub fn damaged_ledgers(rounds: u32, dice: &mut Dice) -> String {
    let mut world = World::new(Program::Scripted);
    world.set_back = true;
    let (mut restored, mut repaired) = (0, 0);
    for _ in 0..rounds {
        work(&mut world, 2);
        let (state, backup) = (world.folder("state"), world.path("backup"));
        // The daemon is not running: its folder can be copied as it is.
        copy(&state, &backup);
        work(&mut world, 2);
        std::fs::remove_dir_all(&state).expect("removed");
        copy(&backup, &state);
        std::fs::remove_dir_all(&backup).expect("removed");
        work(&mut world, 1);
        restored += 1;

        let ledger = world.folder("state").join(FILE);
        let mut bytes = std::fs::read(&ledger).expect("read");
        // The first page says what the file is; anything behind it may be hit too.
        let from = if dice.below(2) == 0 { 0 } else { dice.below(bytes.len() as u64 / 2) as usize };
        let to = (from + 8192).min(bytes.len());
        bytes[from..to].fill(0x5a);
        std::fs::write(&ledger, bytes).expect("written");
        world.feed_folder(1);
        let mut running = world.start(None);
        let watch = Stopwatch::start();
        let code = loop {
            if let Some(code) = running.exit_code() {
                break code;
            }
            assert!(watch.elapsed() < PATIENCE, "it works with a damaged ledger\n{}", world.log());
            std::thread::sleep(Duration::from_millis(20));
        };
        assert_eq!(code, 74, "{}", world.log());
        // What the code's action says.
        let mut doctor = Command::new(env!("CARGO_BIN_EXE_stunetd"));
        doctor.args(["doctor", "--repair", "--config"]).arg(world.path("stunetd.toml")).stdin(Stdio::null());
        let said = doctor.output().expect("runs");
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(said.contains("ledger"), "{said}");
        work(&mut world, 1);
        repaired += 1;
    }
    world.finish();
    format!("{restored} older copies, {repaired} damaged files: {}", world.tally())
}

/// Some more series, until all is done, and a clean end.
fn work(world: &mut World, count: u32) {
    world.feed_folder(count);
    let mut running = world.start(None);
    let sending = world.send(1);
    let watch = Stopwatch::start();
    while !world.all_done() {
        let waits = watch.elapsed() < PATIENCE && !running.dies_within(Duration::from_millis(20));
        assert!(waits, "not done: {}\n{}", world.tally(), world.log());
    }
    drop(sending);
    running.ask_to_end();
    assert!(running.wait().success(), "{}", world.log());
    world.look();
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).expect("folder");
    for entry in std::fs::read_dir(from).expect("folder") {
        let entry = entry.expect("entry");
        // A socket is not copied.
        if entry.file_type().expect("type").is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
        }
    }
}

/// What was received goes as soon as its study is done; the daemon is killed while it goes. What is there is whole, what is gone has its result.
pub fn killed_removals(kills: u32, dice: &mut Dice) -> String {
    let mut world = World::new(Program::Scripted);
    world.retention = "0 s";
    if !world.can_send() {
        return "skipped: needs storescu (Debian package dcmtk)".into();
    }
    // The points that a removal passes among others.
    const POINTS: [&str; 4] = ["ledger.changed", "ledger.committed", "ledger.answered", "folder.synced"];
    let mut at_points = 0;
    for kill in 0..kills {
        let armed = (kill % 3 != 0).then(|| format!("{}:{}", POINTS[dice.below(4) as usize], 1 + dice.below(6)));
        // What was done before is removed at the start.
        let mut running = world.start(armed.as_deref());
        let sending = world.send(1);
        let patience = Duration::from_millis(if armed.is_some() { 3000 } else { 200 + dice.below(1500) });
        let watch = Stopwatch::start();
        while !running.dies_within(Duration::from_millis(20)) && watch.elapsed() < patience && !world.all_done() {}
        at_points += u32::from(running.dies_within(Duration::ZERO));
        running.kill();
        drop(sending);
        world.look();
    }
    world.finish();
    // One start more: everything is done, so everything goes.
    let mut running = world.start(None);
    let watch = Stopwatch::start();
    while world.spooled() > 0 {
        let waits = watch.elapsed() < PATIENCE && !running.dies_within(Duration::from_millis(20));
        assert!(waits, "{} files are left\n{}", world.spooled(), world.log());
    }
    running.ask_to_end();
    assert!(running.wait().success(), "{}", world.log());
    world.look();
    format!(
        "{kills} kills while what was received is removed ({at_points} at a point of the code), nothing is left in the end: {}",
        world.tally()
    )
}
