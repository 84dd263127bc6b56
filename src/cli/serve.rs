//! `stunetd serve`: the daemon.

use crate::audit::{Audit, Event};
use crate::config::{self, Config, LogFormat};
use crate::fault::{Code, Fault};
use crate::intake::commitment::Commitments;
use crate::intake::disks::{Disks, SpaceOf};
use crate::intake::readmit::{Readmitted, readmit};
use crate::intake::reception::Reception;
use crate::intake::scp::Scp;
use crate::intake::select::{self, Rule};
use crate::ledger::{Active, Change, Ledger, Limits, Moment, Opening, Options, Reader, SqliteLedger};
use crate::models::{Generation, Store};
use crate::pipeline::canary;
use crate::pipeline::control::Control;
use crate::pipeline::curation::{Curation, CurationPlan};
use crate::pipeline::line::Counted;
use crate::pipeline::night::{NightPlan, NightWatch};
use crate::pipeline::outbox::{Outbox, OutboxPlan};
use crate::pipeline::reconcile::{self, Depth};
use crate::pipeline::{
    self, EngineFactory, Models, Order, Plan, Reload, Service, ServicePlan, Status, Street, Supervisor, SupervisorPlan, WhenPublished,
    network,
};
use crate::results::Wanted;
use crate::segment::SegmentOptions;
use crate::stunet::runtime::LIBTORCH_VERSION;
use crate::sys::clock::{Clock, SystemClock};
use crate::sys::cores::Cores;
use crate::sys::crash;
use crate::sys::durable::{self, StagingDir};
use crate::sys::hang;
use crate::sys::libtorch;
use crate::sys::machine;
use crate::sys::notify::Notifier;
use crate::sys::shutdown::Shutdown;
use crate::sys::signals::{self, FirstSignal};
use crate::sys::tls;
use crate::telemetry::metrics::Facts;
use crate::telemetry::{Metrics, Post, log};
use crate::volume::decode::{Decoder, DecoderConfig};
use crate::web;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// Watches folders, segments what arrives, and answers with results, until SIGTERM.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration file
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

/// What a test replaces.
pub struct Seams {
    /// Opens the engine.
    pub engine: EngineFactory,
    /// Runs the codecs.
    pub decoder: DecoderConfig,
    /// Who gets which cores.
    pub cores: Cores,
    /// Tells time.
    pub clock: Arc<dyn Clock>,
    /// Ends the daemon.
    pub shutdown: Shutdown,
    /// The service manager.
    pub notifier: Notifier,
    /// How the configuration is read again.
    pub reload: Option<Reload>,
    /// Tells how much room a disk has.
    pub space: SpaceOf,
}

/// Exit code 0 after SIGTERM and a clean end. What the configuration names and can not be used is a mistake of the
/// configuration.
pub fn run(args: Args) -> Result<ExitCode, Fault> {
    let config = config::load(&args.config)?;
    log::start(config.log.format == LogFormat::Json, config.log.level.name());
    libtorch::choose(Some(config.libtorch_dir.as_path()).filter(|d| !d.as_os_str().is_empty()))?;
    let shutdown = Shutdown::default();
    let (hangup, asked) = crossbeam::channel::bounded(1);
    signals::listen(shutdown.clone(), FirstSignal::Drains, Some(hangup)).map_err(super::no_signals)?;
    let choice = &config.model;
    let cores = super::cores(choice.device);
    let decoder = DecoderConfig { workers: cores.rayon, ..DecoderConfig::default() };
    let engine = network(choice.device, choice.precision, cores.torch, config.device_memory.0);
    let reload = Some(Reload { asked, file: args.config });
    let seams = Seams {
        engine,
        decoder,
        cores,
        clock: Arc::new(SystemClock),
        shutdown,
        notifier: Notifier::system(),
        reload,
        space: machine_space(),
    };
    match serve(config, seams) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(fault) => {
            super::report::fault(&fault, false);
            Ok(super::exit_code_as_configured(&fault).into())
        }
    }
}

/// The machine's own disks.
pub fn machine_space() -> SpaceOf {
    Arc::new(|path| Ok(machine::disk_space(path)?))
}

/// Runs the daemon until the shutdown signal: `stunetd::run`.
pub fn serve(config: Config, seams: Seams) -> Result<(), Fault> {
    crash::arm()?;
    hang::arm(Post::all().map(Post::name))?;
    let limits = Limits { suspect_after: config.jobs.suspect_after, park_after: config.jobs.park_after };
    // Another name for every start.
    let owner = format!("stunetd-{}-{}", std::process::id(), Moment::from(seams.clock.wall()).0);
    let options = Options { state: config.state.clone(), limits, clock: seams.clock.clone(), who: owner.clone() };
    let (ledger, opening) = SqliteLedger::open(&options)?;
    let ledger = Arc::new(ledger);
    let result = serve_from(config, seams, ledger.clone(), &opening, owner);
    // After a fault the next start is to see the jobs that were in work.
    match result {
        Ok(()) => Ok(ledger.close()?),
        Err(fault) => {
            ledger.leave();
            Err(fault)
        }
    }
}

/// Says what the ledger was like, and compares it with the results that were published when the process before this one died.
fn reconcile(config: &Config, ledger: &SqliteLedger, opening: &Opening, metrics: &Metrics, owner: &str) -> Result<(), Fault> {
    let told = |code: Code, text: String| {
        metrics.fault(code);
        tracing::warn!(%code, "{text}");
    };
    if opening.restored {
        told(Code::LedgerRestored, format!("{} {}", Code::LedgerRestored.meaning(), Code::LedgerRestored.action()));
    }
    if opening.parked > 0 {
        told(Code::JobCrashed, format!("{} jobs are parked. {}", opening.parked, Code::JobCrashed.action()));
    }
    if opening.requeued > 0 {
        tracing::info!(jobs = opening.requeued, "were in work when the process before this one died: taken up again");
    }
    let (_, findings) = reconcile::compare(ledger, &config.output.path, Depth::Recent)?;
    for finding in &findings {
        told(Code::ResultsChanged, format!("job {}: {}", finding.job, finding.problem.detail));
    }
    reconcile::mend(ledger, &config.output.path, findings, owner)?;
    ledger.commit(vec![Change::Verified])?;
    Ok(())
}

/// Tells the metrics when the certificates of the configuration end.
fn tell_certificates(config: &Config, metrics: &Metrics) {
    for (key, path) in config.certificates() {
        match tls::ends(&key, path) {
            Ok(ends) => metrics.certificate(&key, ends),
            // Whoever uses it has the last word on whether it can be used.
            Err(fault) => tracing::warn!("nobody knows when it ends: {}", fault.detail),
        }
    }
}

/// Labels that a destination takes and that no model has are a mistake of the configuration.
fn labels_known(config: &Config, rules: &[Rule]) -> Result<(), Fault> {
    let known = |name: &String| rules.iter().filter_map(|r| r.model.as_ref()).any(|m| m.manifest.labels.iter().any(|l| l.name == *name));
    for destination in &config.destination {
        if let Some(name) = destination.labels.iter().find(|name| !known(name)) {
            let detail = format!("`destination.labels` of `{}`: no model has a label `{name}`.", destination.name);
            return Err(Fault::new(Code::ConfigInvalid, detail));
        }
    }
    Ok(())
}

/// The street with its first model, and what the rules choose from.
struct Served {
    street: Street,
    model: Arc<Generation>,
    rules: Vec<Rule>,
    active: Vec<Active>,
}

/// Starts with the generations that serve in place of the configured models. One that can not be used is taken out of service, told, and
/// what served before serves again.
fn serve_what_can(
    config: &Config,
    ledger: &SqliteLedger,
    store: &Store,
    configured: &[Rule],
    metrics: &Metrics,
    owner: &str,
    start: impl Fn(Arc<Generation>) -> Result<Street, Fault>,
) -> Result<Served, Fault> {
    loop {
        let active = ledger.active()?;
        let (generation, fault) = match pipeline::serving(configured, &active, store, config) {
            Err(unusable) => *unusable,
            Ok(rules) => {
                let first = rules.iter().find_map(|rule| rule.model.clone());
                let model = first.ok_or_else(|| Fault::new(Code::ConfigInvalid, "No rule segments anything."))?;
                match start(model.clone()) {
                    Ok(street) => return Ok(Served { street, model, rules, active }),
                    Err(fault) if fault.code == Code::ModelCanary => (model.digest.clone(), fault),
                    Err(fault) => return Err(fault),
                }
            }
        };
        metrics.fault(fault.code);
        tracing::error!(code = %fault.code, generation, "it serves no more: {} {}", fault.detail, fault.code.action());
        if !pipeline::take_out(ledger, &generation, owner, &fault)? {
            return Err(fault);
        }
    }
}

fn serve_from(config: Config, seams: Seams, ledger: Arc<SqliteLedger>, opening: &Opening, owner: String) -> Result<(), Fault> {
    let Seams { engine, decoder, cores, clock, shutdown, notifier, reload, space } = seams;
    let metrics = super::metrics()?;
    let configured = select::rules(&config)?;
    if configured.iter().all(|rule| rule.model.is_none()) {
        return Err(Fault::new(Code::ConfigInvalid, "No rule segments anything."));
    }
    // Told now, not after the first study.
    labels_known(&config, &configured)?;
    durable::create_dir_all(&config.output.path)?;
    durable::remove_leftovers(&config.output.path)?;
    drop(StagingDir::new_in(&config.output.path)?);
    reconcile(&config, &ledger, opening, &metrics, &owner)?;
    let told = metrics.clone();
    ledger.tell_commits(move |took| told.ledger_commit(took));
    let disks = Arc::new(Disks::watch(&config, space, clock.clone(), metrics.clone())?);
    // Dropped last: it sends what the others told.
    let (audit, courier) = Audit::start(&config, clock.clone(), metrics.clone())?;
    let open = || Reception::open(&config.spool, ledger.clone(), disks.clone(), metrics.clone(), audit.clone()).map(Arc::new);
    let reception = config.receives().then(open).transpose()?;

    cores.start_rayon();
    let program = decoder.program.clone();
    let readmitted = readmit(&*ledger, &config.spool.path, config.spool.max_instance.0)?;
    if readmitted != Readmitted::default() {
        let Readmitted { taken, foreign } = readmitted;
        tracing::warn!(taken, foreign, "files in the spool were not in the ledger; those that are instances are now");
    }
    let decoder = Arc::new(Decoder::new(decoder)?);
    let choice = &config.model;
    let store = Store::of(&config.state);
    let engine = canary::guarded(engine, store.clone());
    let start = |model: Arc<Generation>| {
        Street::start(Plan {
            model,
            host_memory: config.host_memory.0,
            ledger: Some(ledger.clone()),
            disks: Some(disks.clone()),
            engine: engine.clone(),
            cores,
            clock: clock.clone(),
            metrics: metrics.clone(),
            shutdown: shutdown.clone(),
        })
    };
    let Served { street, model, rules, active } = serve_what_can(&config, &ledger, &store, &configured, &metrics, &owner, start)?;
    let order = Order {
        model: model.clone(),
        options: SegmentOptions { step: choice.step.get(), mirror: choice.mirror, skip_air: choice.skip_air },
        irregular: config.intake.irregular,
        assume_mbq: config.intake.assume_mbq,
        formats: config.output.formats.clone(),
        wanted: Arc::new(Wanted::by(&config.destination)),
        output: config.output.path.clone(),
        published: WhenPublished::Done,
        decoder: decoder.clone(),
        host_memory: config.host_memory.0,
    };
    let facts = street.facts();
    tracing::info!(
        model = model.manifest.name,
        version = model.manifest.version,
        device = facts.device,
        precision = facts.precision,
        "model loaded"
    );
    metrics.facts(&Facts {
        version: env!("CARGO_PKG_VERSION"),
        revision: option_env!("STUNETD_REVISION").unwrap_or("unknown"),
        libtorch: LIBTORCH_VERSION.into(),
        cuda: libtorch::cuda(&config.libtorch_dir).unwrap_or_else(|| "none".into()),
        device: facts.device.clone(),
        precision: facts.precision.clone(),
    });
    tell_certificates(&config, &metrics);
    pipeline::tell(&metrics, &rules, &active, &store);
    let models = Models::new(configured, active, store.clone());
    let stow = reception.clone().filter(|_| config.stow.enabled).map(|reception| (reception, &config.stow));
    let asks = config.destination.iter().any(|d| d.commitment);
    let commitments = asks.then(|| Commitments::new(ledger.clone(), metrics.clone()));
    let scp = reception.clone().and_then(|reception| Scp::start(&config.dimse, reception, commitments).transpose()).transpose()?;
    let status = Status {
        metrics: metrics.clone(),
        board: street.board().clone(),
        ledger: ledger.clone(),
        disks: disks.clone(),
        engine: street.facts().clone(),
        folders: config.watch.len(),
        dicom: scp.as_ref().map(|scp| scp.address().to_string()),
        deadline: config.stage_deadline.0,
        counted: Counted::from_here(&*ledger)?,
        started: clock.monotonic(),
        clock: clock.clone(),
    };
    let server = web::serve(&config.http, status.clone(), stow, audit.clone())?;
    tracing::info!(address = %server.address(), "status, metrics and health");
    if let Some(address) = server.remote() {
        tracing::info!(%address, "the same for other machines");
    }
    if let Some(scp) = &scp {
        tracing::info!(address = %scp.address(), title = %config.dimse.ae_title, "DICOM");
    }
    let outbox_plan = OutboxPlan {
        ledger: ledger.clone(),
        output: config.output.path.clone(),
        owner: owner.clone(),
        board: street.board().clone(),
        clock: clock.clone(),
        metrics: metrics.clone(),
        audit: audit.clone(),
        shutdown: shutdown.clone(),
    };
    let (control, commands) = Control::listen(&config.state, ledger.clone(), store, status, audit.clone())?;
    let outbox = Outbox::start(&outbox_plan, &config.destination)?;
    let supervisor = Supervisor::start(SupervisorPlan {
        board: street.board().clone(),
        deadline: config.stage_deadline.0,
        notifier: notifier.clone(),
        disks: disks.clone(),
        clock: clock.clone(),
        metrics: metrics.clone(),
    })?;
    let watch = || {
        NightWatch::start(NightPlan {
            training: config.training.clone(),
            state: config.state.clone(),
            base: Arc::new(Generation::open(&config.model.path)?),
            options: order.options,
            libtorch: config.libtorch_dir.clone(),
            program: program.clone(),
            ledger: ledger.clone(),
            owner: owner.clone(),
            clinic: street.clinic().clone(),
            bell: control.bell(),
            clock: clock.clone(),
            metrics: metrics.clone(),
            shutdown: shutdown.clone(),
        })
    };
    let night = config.training.enabled.then(watch).transpose()?;
    let plan = CurationPlan { ledger: ledger.clone(), owner: owner.clone(), clock: clock.clone(), shutdown: shutdown.clone(), program };
    let curation = config.training.enabled.then(|| Curation::start(plan, &config)).transpose()?;
    let doors = scp.as_ref().map(|scp| scp.doors().clone());
    let plan = ServicePlan {
        street,
        ledger,
        owner,
        commands,
        outbox,
        config,
        reload,
        doors,
        notifier,
        disks,
        reception,
        rules,
        models,
        order,
        decoder,
        audit: audit.clone(),
        clock,
        metrics,
        shutdown,
    };
    audit.record(&Event::Started);
    let result = Service::new(plan).run();
    drop((night, curation, supervisor, control, server, scp));
    audit.record(&Event::Stopped);
    drop(courier);
    result
}
