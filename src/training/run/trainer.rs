//! Network, optimiser and what keeps the old knowledge, one step after the other.

use super::RunSettings;
use crate::stunet::learning::{Trainable, Truth, distil};
use crate::stunet::{Device, Network};
use crate::training::data::{Batch, head_weights};
use crate::training::{Error, Sgd, loss, poly_learning_rate};
use std::collections::HashMap;
use tch::{Kind, Tensor};

/// A run's state and what changes it. Belongs to the thread that runs the device.
pub struct Trainer {
    settings: RunSettings,
    network: Trainable,
    optimizer: Sgd,
    /// The start, for L2-SP.
    start: Option<Vec<Tensor>>,
    /// The moving average.
    average: Option<Vec<Tensor>>,
    teacher: Option<Network>,
    /// Steps that are done.
    step: u64,
}

/// What one step did.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct StepReport {
    /// Steps that are done, this one too.
    pub step: u64,
    /// Sum over the heads, weighted.
    pub loss: f64,
    /// Of the full resolution.
    pub entropy: f64,
    /// Of the full resolution: minus the mean soft Dice.
    pub dice: f64,
    /// Weighted cross-entropy with the teacher.
    pub distillation: f64,
    /// Of all gradients, before clipping.
    pub norm: f64,
    /// The learning rate.
    pub rate: f64,
}

impl Trainer {
    /// At the start of a run. `teacher` is needed where the settings distil.
    pub fn new(settings: RunSettings, start: HashMap<String, Tensor>, teacher: Option<Network>, device: Device) -> Result<Trainer, Error> {
        settings.check()?;
        let forget = settings.against_forgetting.clone();
        if forget.distillation > 0.0 && teacher.is_none() {
            return Err(Error::Settings("distillation needs a teacher".into()));
        }
        let network = Trainable::new(start, &settings.architecture, device, settings.precision()?)?;
        let copies = || -> Result<Vec<Tensor>, Error> { network.parameters().iter().map(copy).collect() };
        Ok(Trainer {
            optimizer: Sgd::new(settings.optimizer, network.names().len()),
            start: if forget.l2_sp > 0.0 { Some(copies()?) } else { None },
            average: if forget.average > 0.0 { Some(copies()?) } else { None },
            teacher: teacher.filter(|_| forget.distillation > 0.0),
            settings,
            network,
            step: 0,
        })
    }

    /// Steps that are done.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// The settings.
    pub fn settings(&self) -> &RunSettings {
        &self.settings
    }

    /// Takes one step with a batch.
    ///
    /// # Errors
    /// A loss or norm that is not finite: nothing has changed then.
    pub fn learn(&mut self, batch: &Batch) -> Result<StepReport, Error> {
        let (settings, forget) = (&self.settings, &self.settings.against_forgetting);
        let [a, b, c] = settings.patch.map(|edge| edge as i64);
        let size = [settings.batch as i64, settings.architecture.in_channels as i64, a, b, c];
        if batch.image.len() as i64 != size.iter().product::<i64>() || batch.levels.len() != settings.heads() {
            return Err(Error::Settings("the batch does not fit the run's settings".into()));
        }
        let image = Tensor::f_from_slice(&batch.image)?.f_reshape(size)?;
        let rate = poly_learning_rate(settings.learning_rate, self.step / settings.iterations, settings.epochs);
        let recipe = settings.loss();
        let mut report = StepReport { step: self.step + 1, loss: 0.0, entropy: 0.0, dice: 0.0, distillation: 0.0, norm: 0.0, rate };
        let teacher = self.teacher.as_ref().filter(|_| batch.allowed.iter().any(|a| a.len() < settings.architecture.num_classes));
        let taught = teacher.map(|teacher| teacher.forward(&image)).transpose()?;
        let mut gradients = self.network.gradients(&image, |logits| {
            let mut heads: Vec<Option<Tensor>> = Vec::with_capacity(logits.len());
            for (i, ((logits, level), weight)) in logits.iter().zip(&batch.levels).zip(head_weights(settings.heads())).enumerate() {
                let truth = Truth { labels: level.labels.clone(), allowed: batch.allowed.clone() };
                if weight == 0.0 {
                    heads.push(None);
                    continue;
                }
                let (value, mut gradient) = loss(&recipe, logits, &truth, weight)?;
                report.loss += weight * value.total();
                if i == 0 {
                    (report.entropy, report.dice) = (value.entropy, value.dice);
                    if let Some(taught) = &taught {
                        let distilled = distil(logits, taught, &truth, &forget.targets, forget.distillation)?;
                        report.distillation = distilled.value;
                        gradient = gradient.f_add(&distilled.gradient)?;
                    }
                }
                heads.push(Some(gradient));
            }
            Ok::<_, Error>(heads)
        })?;
        if !report.loss.is_finite() || !report.distillation.is_finite() {
            return Err(Error::NotFinite(format!("the loss of step {}", report.step)));
        }
        if let Some(start) = &self.start {
            let all = self.network.names().iter().zip(&mut gradients).zip(self.network.parameters()).zip(start);
            tch::no_grad(|| {
                for (((_, gradient), parameter), start) in all.filter(|(((name, _), _), _)| !name.starts_with("seg_outputs.")) {
                    if let Some(gradient) = gradient {
                        let _ = gradient.f_add_(&parameter.f_sub(start)?.f_mul_scalar(forget.l2_sp)?)?;
                    }
                }
                Ok::<_, Error>(())
            })?;
        }
        report.norm = self.optimizer.step(self.network.parameters_mut(), gradients, rate)?;
        if let Some(average) = &mut self.average {
            // The first steps count for more, so that the average does not lag behind a short run.
            let decay = forget.average.min((1.0 + self.step as f64) / (10.0 + self.step as f64));
            tch::no_grad(|| {
                for (average, parameter) in average.iter_mut().zip(self.network.parameters()) {
                    let _ = average.f_mul_scalar_(decay)?.f_add_(&parameter.f_mul_scalar(1.0 - decay)?)?;
                }
                Ok::<_, Error>(())
            })?;
        }
        self.step += 1;
        Ok(report)
    }

    /// The weights that the run has come to: the moving average, or the last ones. Finite, or an error.
    pub fn result(&self) -> Result<Vec<(String, Tensor)>, Error> {
        let weights = self.average.as_deref().unwrap_or(self.network.parameters());
        let named = self.network.names().iter().zip(weights).map(|(name, tensor)| {
            let tensor = tensor.f_detach()?.f_to_kind(Kind::Float)?.f_to_device(Device::Cpu)?;
            match tensor.f_isfinite()?.f_all()?.f_int64_value(&[])? {
                0 => Err(Error::NotFinite(format!("the weight {name}"))),
                _ => Ok((name.clone(), tensor)),
            }
        });
        named.collect()
    }

    /// Everything that the next steps depend on, by name.
    pub(super) fn state(&self) -> Result<Vec<(String, Tensor)>, Error> {
        let mut state = Vec::new();
        for (i, name) in self.network.names().iter().enumerate() {
            state.push((format!("parameter.{name}"), self.network.parameters()[i].f_detach()?));
            if let Some(momentum) = &self.optimizer.momentum()[i] {
                state.push((format!("momentum.{name}"), momentum.shallow_clone()));
            }
            if let Some(average) = &self.average {
                state.push((format!("average.{name}"), average[i].shallow_clone()));
            }
        }
        Ok(state)
    }

    /// Takes up a state that [`state`](Self::state) gave; `step` steps were done.
    pub(super) fn restore(&mut self, mut state: HashMap<String, Tensor>, step: u64) -> Result<(), Error> {
        let device = self.network.device();
        let mut take = |name: String, shape: &[i64]| -> Result<Option<Tensor>, Error> {
            match state.remove(&name) {
                Some(tensor) if tensor.size() == shape => Ok(Some(copy(&tensor.f_to_device(device)?)?)),
                Some(tensor) => {
                    Err(Error::Settings(format!("{name} of the checkpoint has shape {:?} instead of {shape:?}", tensor.size())))
                }
                None => Ok(None),
            }
        };
        let missing = |name: &str| Error::Settings(format!("the checkpoint has no {name}"));
        let names = self.network.names().to_vec();
        let shapes: Vec<Vec<i64>> = self.network.parameters().iter().map(Tensor::size).collect();
        let (mut parameters, mut momentum, mut average) = (Vec::new(), Vec::new(), Vec::new());
        for (name, shape) in names.iter().zip(&shapes) {
            parameters.push(take(format!("parameter.{name}"), shape)?.ok_or_else(|| missing(name))?);
            momentum.push(take(format!("momentum.{name}"), shape)?);
            if self.average.is_some() {
                average.push(take(format!("average.{name}"), shape)?.ok_or_else(|| missing(name))?);
            }
        }
        tch::no_grad(|| self.network.parameters_mut().iter_mut().zip(&parameters).try_for_each(|(own, saved)| own.f_copy_(saved)))?;
        self.optimizer = Sgd::with_momentum(self.settings.optimizer, momentum);
        if let Some(own) = &mut self.average {
            *own = average;
        }
        self.step = step;
        Ok(())
    }
}

/// A copy without history that shares nothing.
fn copy(tensor: &Tensor) -> Result<Tensor, Error> {
    let mut copy = tensor.f_detach()?.f_empty_like()?;
    tch::no_grad(|| copy.f_copy_(&tensor.f_detach()?))?;
    Ok(copy)
}
