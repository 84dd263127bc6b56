//! `stunetd serve`: the daemon.

use crate::config::{self, Config, LogFormat};
use crate::fault::{Code, Fault};
use crate::intake::reception::Reception;
use crate::intake::scp::Scp;
use crate::models::Generation;
use crate::pipeline::{EngineFactory, Order, Plan, Service, ServicePlan, Street, WhenPublished, network};
use crate::segment::SegmentOptions;
use crate::stunet::runtime::LIBTORCH_VERSION;
use crate::sys::clock::{Clock, SystemClock};
use crate::sys::cores::Cores;
use crate::sys::durable::{self, StagingDir};
use crate::sys::libtorch;
use crate::sys::shutdown::Shutdown;
use crate::sys::signals::{self, FirstSignal};
use crate::telemetry::metrics::Facts;
use crate::telemetry::{Metrics, log};
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
}

/// Exit code 0 after SIGTERM and a clean end. What the configuration names and can not be used is a mistake of the
/// configuration.
pub fn run(args: Args) -> Result<ExitCode, Fault> {
    let config = config::load(&args.config)?;
    log::start(config.log.format == LogFormat::Json, config.log.level.name());
    libtorch::choose(Some(config.libtorch_dir.as_path()).filter(|d| !d.as_os_str().is_empty()))?;
    let shutdown = Shutdown::default();
    signals::listen(shutdown.clone(), FirstSignal::Drains).map_err(super::no_signals)?;
    let choice = &config.model;
    let cores = super::cores(choice.device);
    let decoder = DecoderConfig { workers: cores.rayon, ..DecoderConfig::default() };
    let engine = network(choice.path.clone(), choice.device, choice.precision, cores.torch);
    match serve(config, Seams { engine, decoder, cores, clock: Arc::new(SystemClock), shutdown }) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(fault) => {
            super::report::fault(&fault, false);
            Ok(super::exit_code_as_configured(&fault).into())
        }
    }
}

/// Runs the daemon until the shutdown signal: `stunetd::run`.
pub fn serve(config: Config, seams: Seams) -> Result<(), Fault> {
    let Seams { engine, decoder, cores, clock, shutdown } = seams;
    let metrics = Arc::new(Metrics::new().map_err(|e| Fault::new(Code::InternalBug, e.to_string()))?);
    let model = Arc::new(Generation::open(&config.model.path)?);
    // Told now, not after the first study.
    durable::create_dir_all(&config.output.path)?;
    durable::remove_leftovers(&config.output.path)?;
    drop(StagingDir::new_in(&config.output.path)?);
    let reception = config.receives().then(|| Reception::open(&config.spool, metrics.clone())).transpose()?.map(Arc::new);

    cores.start_rayon();
    let decoder = Arc::new(Decoder::new(decoder)?);
    let choice = &config.model;
    let street = Street::start(Plan {
        order: Order {
            model: model.clone(),
            options: SegmentOptions { step: choice.step.get(), mirror: choice.mirror },
            irregular: config.intake.irregular,
            formats: config.output.formats.clone(),
            output: config.output.path.clone(),
            published: WhenPublished::Done,
            decoder: decoder.clone(),
            host_memory: config.host_memory.0,
        },
        engine,
        cores,
        clock: clock.clone(),
        metrics: metrics.clone(),
        shutdown: shutdown.clone(),
    })?;
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
        libtorch: LIBTORCH_VERSION.into(),
        device: facts.device.clone(),
        model: model.manifest.name.clone(),
        model_version: model.manifest.version.clone(),
        model_digest: model.digest.clone(),
    });
    let status =
        web::Status { metrics: metrics.clone(), board: street.board().clone(), oldest: Arc::new(street.oldest()), clock: clock.clone() };
    let stow = reception.clone().filter(|_| config.stow.enabled).map(|reception| (reception, &config.stow));
    let server = web::serve(config.http.listen.get(), status, stow)?;
    tracing::info!(address = %server.address(), "metrics and health");
    let scp = reception.clone().and_then(|reception| Scp::start(&config.dimse, reception).transpose()).transpose()?;
    if let Some(scp) = &scp {
        tracing::info!(address = %scp.address(), title = %config.dimse.ae_title, "DICOM");
    }
    let result = Service::new(ServicePlan { street, config, reception, model, decoder, clock, metrics, shutdown })?.run();
    drop((server, scp));
    result
}
