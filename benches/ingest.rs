//! C-STORE end to end on this machine's disk: instances a second that were acknowledged after file, folder and ledger were synced; and how
//! soon a daemon with a full ledger is ready again.
//!
//! `cargo bench --bench ingest -- [--instances 2000] [--edge 64] [--associations 1,4,16] [--rows 100000] [--dir FOLDER]`
//!
//! `--edge`: rows and columns of an image of 16 bits. Each association sends one instance after the other and waits for every answer, as
//! senders do; each sends a series of its own. `--dir` names a folder on the disk to be measured; without it, `target`.

#[path = "../tests/it/support/full_ledger.rs"]
mod full_ledger;

use dicom_ul::association::{ClientAssociation, ClientAssociationOptions};
use dicom_ul::pdu::{PDataValue, PDataValueType, Pdu};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use stunetd::audit::Audit;
use stunetd::config::{Config, Dimse, Listen};
use stunetd::dicom::Uid;
use stunetd::dicom::command::{CommandSet, CommandWriter};
use stunetd::dicom::ct_image::CtSeries;
use stunetd::intake::disks::Disks;
use stunetd::intake::reception::Reception;
use stunetd::intake::scp::Scp;
use stunetd::ledger::{Limits, Options, SqliteLedger};
use stunetd::sys::clock::{Stopwatch, SystemClock};
use stunetd::telemetry::Metrics;

const CT: &str = "1.2.840.10008.5.1.4.1.1.2";
const EXPLICIT: &str = "1.2.840.10008.1.2.1";
/// What senders propose.
const FRAGMENT: usize = 16 << 10;

fn uid(what: &str) -> Uid {
    use sha2::{Digest, Sha256};
    Uid::from_digest(&Sha256::digest(what).into())
}

/// A data set, with the UID in it.
fn image(series: &str, number: usize, edge: u16) -> (String, Vec<u8>) {
    let instance = uid(&format!("{series} {number}"));
    let ct = CtSeries {
        patient_name: "BENCH",
        patient_id: "BENCH",
        patient_age: "042Y",
        study_uid: uid(&format!("{series} study")),
        series_uid: uid(series),
        frame_of_reference_uid: uid(&format!("{series} frame")),
        study_description: "bench",
        series_description: "bench",
        body_part: "ABDOMEN",
        date: "20260102",
        time: "030405",
        size: [edge; 2],
        pixel_spacing: [1.0; 2],
        slice_thickness: 1.0,
        orientation: [1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
    };
    let hu: Vec<i16> = (0..usize::from(edge).pow(2)).map(|i| (i % 1999) as i16 - 1000).collect();
    let file = ct.image(&instance, number as u32 + 1, [0.0, 0.0, number as f64], &hu);
    let meta = 132 + 12 + u32::from_le_bytes(file[140..144].try_into().expect("four bytes")) as usize;
    (instance.to_string(), file[meta..].to_vec())
}

struct Sender(ClientAssociation<TcpStream>);

impl Sender {
    fn new(address: SocketAddr) -> Sender {
        let options = ClientAssociationOptions::new().calling_ae_title("BENCH").called_ae_title("STUNETD");
        let mut association = options.with_presentation_context(CT, vec![EXPLICIT]).establish(address).expect("an association");
        // As senders do: otherwise an image of one packet waits 40 ms for its command to be acknowledged.
        association.inner_stream().set_nodelay(true).expect("an option");
        Sender(association)
    }

    /// Waits for the answer.
    fn store(&mut self, message: u16, instance: &str, data: &[u8]) {
        let presentation_context_id = self.0.presentation_contexts()[0].id;
        let mut command = CommandWriter::default();
        command.uid(0x0002, CT).number(0x0100, 1).number(0x0110, message).number(0x0700, 0).number(0x0800, 1).uid(0x1000, instance);
        let mut send = |value_type, is_last, data: &[u8]| {
            let value = PDataValue { presentation_context_id, value_type, is_last, data: data.to_vec() };
            self.0.send(&Pdu::PData { data: vec![value] }).expect("sent");
        };
        send(PDataValueType::Command, true, &command.bytes());
        let pieces = data.chunks(FRAGMENT).count();
        data.chunks(FRAGMENT).enumerate().for_each(|(i, piece)| send(PDataValueType::Data, i + 1 == pieces, piece));
        let Ok(Pdu::PData { data }) = self.0.receive() else { panic!("no answer") };
        let status = CommandSet::read(&data[0].data).and_then(|command| command.number(0x0900)).expect("a status");
        assert_eq!(status, 0, "not stored");
    }
}

/// Receives `count` instances over so many associations; instances a second, and milliseconds from request to answer: half, and all but one of
/// a hundred.
fn receive(dir: &Path, count: usize, edge: u16, associations: usize) -> (f64, f64, f64) {
    let mut config = Config { state: dir.join("state"), ..Config::default() };
    config.output.path = dir.join("results");
    config.spool.path = dir.join("spool");
    (config.spool.min_free, config.spool.low_free) = (stunetd::config::ByteSize(0), stunetd::config::ByteSize(0));
    let any: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
    config.dimse = Dimse { listen: Listen(Some(any)), ..Dimse::default() };
    let clock = Arc::new(SystemClock);
    let metrics = Arc::new(Metrics::new().expect("metrics"));
    let options = Options { state: config.state.clone(), limits: Limits::default(), clock: clock.clone(), who: "bench".into() };
    let ledger = Arc::new(SqliteLedger::open(&options).expect("a ledger").0);
    std::fs::create_dir_all(&config.output.path).expect("folder");
    let disks = Arc::new(Disks::watch(&config, stunetd::machine_space(), clock, metrics.clone()).expect("disks"));
    let reception = Arc::new(Reception::open(&config.spool, ledger, disks, metrics, Audit::none()).expect("a spool"));
    let scp = Scp::start(&config.dimse, reception, None).expect("starts").expect("listens");
    let each = count / associations;
    let series: Vec<Vec<(String, Vec<u8>)>> =
        (0..associations).map(|a| (0..each).map(|n| image(&format!("{associations} {a}"), n, edge)).collect()).collect();
    let mut senders: Vec<Sender> = series.iter().map(|_| Sender::new(scp.address())).collect();
    let watch = Stopwatch::start();
    let mut times: Vec<Duration> = std::thread::scope(|scope| {
        let run = |(sender, series): (&mut Sender, &Vec<(String, Vec<u8>)>)| {
            let one = |(n, (instance, data)): (usize, &(String, Vec<u8>))| {
                let watch = Stopwatch::start();
                sender.store(n as u16, instance, data);
                watch.elapsed()
            };
            series.iter().enumerate().map(one).collect::<Vec<_>>()
        };
        let threads: Vec<_> = senders.iter_mut().zip(&series).map(|pair| scope.spawn(move || run(pair))).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a sender")).collect()
    });
    let seconds = watch.seconds();
    times.sort();
    let quantile = |q: usize| times[(times.len() - 1) * q / 100].as_secs_f64() * 1000.0;
    let all = (each * associations) as f64 / seconds;
    (all, quantile(50), quantile(99))
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let option = |name: &str| args.iter().position(|a| a == name).and_then(|i| args.get(i + 1));
    let number = |name: &str, default: u64| option(name).map_or(default, |v| v.parse().expect("a number"));
    let parent = option("--dir").map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let (count, edge) = (number("--instances", 2000) as usize, number("--edge", 64) as u16);
    let list = option("--associations").cloned().unwrap_or_else(|| "1,4,16".into());
    println!("{count} instances of {edge} × {edge} pixels, {} cores", std::thread::available_parallelism().map_or(1, usize::from));
    println!("{:<14} {:>14} {:>10} {:>10}", "associations", "instances/s", "ms (50 %)", "ms (99 %)");
    for associations in list.split(',').map(|n| n.parse::<usize>().expect("a number")) {
        let dir = tempfile::tempdir_in(&parent).expect("folder");
        let (rate, half, most) = receive(dir.path(), count, edge, associations);
        println!("{associations:<14} {rate:>14.0} {half:>10.2} {most:>10.2}");
    }
    let rows = number("--rows", 100_000);
    if rows > 0 {
        let dir = tempfile::tempdir_in(&parent).expect("folder");
        full_ledger::fill(&dir.path().join("state"), rows);
        let (seconds, parked) = full_ledger::ready_after(Path::new(env!("CARGO_BIN_EXE_stunetd")), dir.path());
        assert_eq!(parked, Some(1000.0), "parked jobs");
        println!("\nready {seconds:.2} s after its start, with {rows} jobs in the ledger, 1000 of them parked and 8 in work at a crash");
    }
}
