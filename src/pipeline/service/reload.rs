//! Reading the configuration again while the daemon runs: checked whole, then taken whole, or left.

use super::{Service, print, quiet};
use crate::config::{self, Config};
use crate::fault::{Code, Fault};
use crate::intake::select::{Rule, rules};
use crate::pipeline::stages::Order;
use crate::series::Policy;
use crate::telemetry::log;
use crossbeam::channel::Receiver;
use std::path::PathBuf;

/// How a configuration is read again.
pub struct Reload {
    /// Says that it is to be.
    pub asked: Receiver<()>,
    /// The file.
    pub file: PathBuf,
}

impl Service {
    /// Reads the file and takes what may change while the daemon runs; the rest is named. With any mistake in it everything stays as it is.
    pub(super) fn read_again(&mut self) {
        self.notifier.reloading();
        match self.fresh() {
            Ok((config, rules, restart)) => {
                let changed = self.config.differences(&config);
                self.change_to(config, rules);
                self.metrics.config_read(Some(self.clock.wall()));
                tracing::info!(changed = changed.join(", "), "the configuration was read again");
                if !restart.is_empty() {
                    tracing::warn!(keys = restart.join(", "), "these changes count after the next start");
                }
            }
            Err(fault) => {
                self.metrics.config_read(None);
                self.metrics.fault(fault.code);
                tracing::error!(code = %fault.code, "the configuration stays as it was: {}", fault.detail);
            }
        }
        self.notifier.ready();
    }

    /// The configuration to change to, its rules with their models, and the keys that wait for the next start.
    fn fresh(&mut self) -> Result<(Config, Vec<Rule>, Vec<String>), Fault> {
        let Some(reload) = &self.reload else { return Err(Fault::new(Code::ConfigUnreadable, "no file")) };
        let written = config::load(&reload.file)?;
        let config = self.config.reloaded(written.clone());
        let rules = rules(&config)?;
        if rules.iter().all(|rule| rule.model.is_none()) {
            return Err(Fault::new(Code::ConfigInvalid, "No rule segments anything."));
        }
        let rules = self.models.configure(rules, &config)?;
        let restart = config.differences(&written);
        Ok((config, rules, restart))
    }

    fn change_to(&mut self, config: Config, rules: Vec<Rule>) {
        log::set_level(config.log.level.name());
        if let Some(doors) = &self.doors {
            doors.set(&config.dimse);
        }
        self.policy = Policy::of(&config);
        self.settle.set_quiet(quiet(&config));
        self.order = Order {
            irregular: config.intake.irregular,
            assume_mbq: config.intake.assume_mbq,
            formats: config.output.formats.clone(),
            ..self.order.clone()
        };
        self.models.tell(&self.metrics, &rules);
        self.choice.change(rules, &self.order, config.intake.study_quiet.0);
        self.jobs.serve_with(self.choice.first_model());
        self.rules = print(&self.policy, &self.choice);
        // Which rule chose them counts no more.
        self.kept.clear();
        self.config = config;
    }
}
