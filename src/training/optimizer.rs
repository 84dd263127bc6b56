//! Stochastic gradient descent as PyTorch's `SGD` with Nesterov's momentum does it, with its state in our hands.

use super::Error;
use tch::{Kind, Tensor};

/// Added to the norm before the clipping factor is computed, as PyTorch does.
const CLIP_EPSILON: f64 = 1e-6;

/// Settings of the optimiser; the default is nnU-Net's.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SgdSettings {
    /// Nesterov momentum.
    pub momentum: f64,
    /// Of all parameters, norms and biases too.
    pub weight_decay: f64,
    /// Largest L2 norm of all gradients together.
    pub clip: f64,
    /// Whether parameters without a gradient decay all the same (nnU-Net 2's lowest head).
    pub decay_untrained: bool,
}

impl Default for SgdSettings {
    fn default() -> SgdSettings {
        SgdSettings { momentum: 0.99, weight_decay: 3e-5, clip: 12.0, decay_untrained: true }
    }
}

/// The optimiser and its momentum.
pub struct Sgd {
    settings: SgdSettings,
    /// One for each parameter; none until its first gradient.
    momentum: Vec<Option<Tensor>>,
}

impl Sgd {
    /// For this many parameters, at rest.
    pub fn new(settings: SgdSettings, parameters: usize) -> Sgd {
        Sgd { settings, momentum: (0..parameters).map(|_| None).collect() }
    }

    /// With momentum from a checkpoint, one for each parameter.
    pub fn with_momentum(settings: SgdSettings, momentum: Vec<Option<Tensor>>) -> Sgd {
        Sgd { settings, momentum }
    }

    /// The momentum of each parameter.
    pub fn momentum(&self) -> &[Option<Tensor>] {
        &self.momentum
    }

    /// Clips the gradients and takes one step in place. Returns their norm before clipping.
    ///
    /// # Errors
    /// A norm that is not finite: nothing has been changed then.
    pub fn step(&mut self, parameters: &mut [Tensor], mut gradients: Vec<Option<Tensor>>, rate: f64) -> Result<f64, Error> {
        if parameters.len() != self.momentum.len() || gradients.len() != parameters.len() {
            return Err(Error::Settings(format!(
                "{} gradients and {} momenta for {} parameters",
                gradients.len(),
                self.momentum.len(),
                parameters.len()
            )));
        }
        tch::no_grad(|| {
            let norms: Vec<Tensor> = gradients.iter().flatten().map(|g| g.f_norm()).collect::<Result<_, _>>()?;
            if norms.is_empty() {
                return Err(Error::Settings("there is no gradient".into()));
            }
            let norm = Tensor::f_stack(&norms, 0)?.f_norm()?;
            let value = norm.f_to_kind(Kind::Double)?.f_double_value(&[])?;
            if !value.is_finite() {
                return Err(Error::NotFinite("the norm of the gradients".into()));
            }
            // In the parameters' own precision, as the reference computes it.
            let factor = norm.f_add_scalar(CLIP_EPSILON)?.f_reciprocal()?.f_mul_scalar(self.settings.clip)?.f_clamp_max(1.0)?;
            for ((parameter, gradient), momentum) in parameters.iter_mut().zip(&mut gradients).zip(&mut self.momentum) {
                let decayed = match gradient {
                    Some(gradient) => gradient.f_mul_(&factor)?.f_add_(&parameter.f_detach()?.f_mul_scalar(self.settings.weight_decay)?)?,
                    None if self.settings.decay_untrained => parameter.f_detach()?.f_mul_scalar(self.settings.weight_decay)?,
                    None => continue,
                };
                let buffer = match momentum.take() {
                    Some(mut old) => old.f_mul_scalar_(self.settings.momentum)?.f_add_(&decayed)?,
                    None => {
                        let mut first = decayed.f_zeros_like()?;
                        first.f_copy_(&decayed)?;
                        first
                    }
                };
                let step = buffer.f_mul_scalar(self.settings.momentum)?.f_add_(&decayed)?.f_mul_scalar(-rate)?;
                let _ = parameter.f_add_(&step)?;
                *momentum = Some(buffer);
            }
            Ok(value)
        })
    }
}
