//! A network whose parameters can be changed, and their gradients.

use crate::stunet::layers::{Layers, Probe};
use crate::stunet::{Architecture, Error, Precision, shim, tensor_file};
use std::collections::HashMap;
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// A STU-Net that learns, in f32, f64 or bf16. In bf16 parameters, their gradients, norms' statistics and logits are f32 all the same: only
/// activations and the weights that a convolution sees are rounded, in stages that are wide enough ([`Precision::Bf16`]). Belongs to the thread that runs the device.
pub struct Trainable {
    architecture: Architecture,
    device: Device,
    precision: Precision,
    /// In checkpoint order.
    names: Vec<String>,
    parameters: Vec<Tensor>,
    /// Place of each name.
    index: HashMap<String, usize>,
}

/// What a loss makes of one head's logits: its gradient by them, or none if the head is not trained.
pub type HeadGradients = Vec<Option<Tensor>>;

impl Trainable {
    /// From parameters by checkpoint name, of any floating kind; each must have the shape that the architecture asks for.
    pub fn new(
        mut tensors: HashMap<String, Tensor>,
        architecture: &Architecture,
        device: Device,
        precision: Precision,
    ) -> Result<Trainable, Error> {
        architecture.validate()?;
        architecture.check_tensors(&tensors.iter().map(|(name, t)| (name.clone(), t.size())).collect::<Vec<_>>())?;
        if !matches!(precision, Precision::F32 | Precision::F64 | Precision::Bf16) {
            return Err(Error::Unsupported(format!("networks are trained in f32, f64 or bf16, not in {precision}")));
        }
        precision.resolve(device)?;
        shim::allow_tf32(false)?;
        shim::let_waiting_threads_sleep();
        let names: Vec<String> = architecture.state_dict().into_iter().map(|(name, _)| name).collect();
        let own = |name: &String| {
            let tensor = tensors.remove(name).ok_or_else(|| Error::Input(format!("parameter {name} is missing")))?;
            // A copy: the parameters change in place.
            let mut copy = Tensor::f_empty(tensor.size(), (precision.wide_kind(), device))?;
            copy.f_copy_(&tensor.f_detach()?)?;
            Ok(copy.f_set_requires_grad(true)?)
        };
        let parameters = names.iter().map(own).collect::<Result<_, Error>>()?;
        let index = names.iter().enumerate().map(|(i, name)| (name.clone(), i)).collect();
        Ok(Trainable { architecture: architecture.clone(), device, precision, names, parameters, index })
    }

    /// From a safetensors file with exactly the architecture's tensors.
    pub fn open(weights: &Path, architecture: &Architecture, device: Device, precision: Precision) -> Result<Trainable, Error> {
        let tensors = tensor_file::read(weights, |found| architecture.check_tensors(found))?;
        Trainable::new(tensors, architecture, device, precision)
    }

    /// The network's shape.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// Where it learns.
    pub fn device(&self) -> Device {
        self.device
    }

    /// What it computes with.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Names of the parameters, in checkpoint order.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// The parameters, in the order of [`names`](Self::names).
    pub fn parameters(&self) -> &[Tensor] {
        &self.parameters
    }

    /// The parameters, to be changed in place.
    pub fn parameters_mut(&mut self) -> &mut [Tensor] {
        &mut self.parameters
    }

    /// Runs the network and gives the logits of its heads to `loss`, full resolution first, `[N, K, X, Y, Z]`, f32 or f64,
    /// without a history. `loss` answers with its gradient by each. Returns the gradient of every parameter; none for those
    /// that no trained head depends on.
    pub fn gradients<E: From<Error>>(
        &self,
        input: &Tensor,
        loss: impl FnOnce(&[Tensor]) -> Result<HeadGradients, E>,
    ) -> Result<Vec<Option<Tensor>>, E> {
        let logits = self.run(input)?;
        let plain: Vec<Tensor> = logits.iter().map(|t| t.f_detach()).collect::<Result<_, _>>().map_err(Error::from)?;
        let gradients = loss(&plain)?;
        drop(plain);
        Ok(self.backward(logits, gradients)?)
    }

    /// The logits of all heads, full resolution first, without a history.
    pub fn forward(&self, input: &Tensor) -> Result<Vec<Tensor>, Error> {
        tch::no_grad(|| self.run(input))
    }

    fn run(&self, input: &Tensor) -> Result<Vec<Tensor>, Error> {
        let &[n, c, x, y, z] = input.size().as_slice() else {
            return Err(Error::Input(format!("shape {:?}; five axes [N, C, X, Y, Z] were expected", input.size())));
        };
        if n < 1 || c != self.architecture.in_channels as i64 {
            return Err(Error::Input(format!("shape {:?}; this network takes {} channels", input.size(), self.architecture.in_channels)));
        }
        self.architecture.check_patch([x, y, z].map(|edge| edge as usize)).map_err(|e| Error::Input(e.to_string()))?;
        let input = input.f_to_device(self.device)?.f_to_kind(self.precision.wide_kind())?;
        let mut source = |name: &str, _: &[i64]| {
            let parameter = self.index.get(name).and_then(|&i| self.parameters.get(i));
            let parameter = parameter.ok_or_else(|| Error::Input(format!("parameter {name} is missing")))?;
            Ok(parameter.shallow_clone())
        };
        let mut layers = Layers::build(&self.architecture, &mut source)?;
        if self.precision == Precision::Bf16 {
            layers.cast(&self.architecture, self.precision)?;
        }
        let mut logits = Vec::with_capacity(5);
        let mut head = |u: usize, features: &Tensor, probe: &mut Probe| {
            logits.push(layers.head(u, features, probe)?);
            Ok(())
        };
        drop(layers.features(&input, &mut Probe(None), &mut head)?);
        logits.reverse();
        Ok(logits)
    }

    fn backward(&self, logits: Vec<Tensor>, gradients: HeadGradients) -> Result<Vec<Option<Tensor>>, Error> {
        let trained: Vec<bool> = self.names.iter().map(|name| is_trained(name, &gradients)).collect();
        // A number whose gradient by the logits is the one given. Where both lie alike a dot product has it without a product
        // of their size in memory.
        let root = |z: Tensor, gradient: Tensor| match z.is_contiguous() && gradient.is_contiguous() {
            true => z.f_reshape([-1])?.f_dot(&gradient.f_reshape([-1])?),
            false => z.f_mul(&gradient)?.f_sum(None::<Kind>),
        };
        let pairs = logits.into_iter().zip(gradients).filter_map(|(z, gradient)| Some((z, gradient?)));
        let roots = pairs.map(|(z, gradient)| root(z, gradient)).collect::<Result<Vec<_>, _>>()?;
        if roots.is_empty() {
            return Err(Error::Input("no head is trained".into()));
        }
        let inputs: Vec<&Tensor> = self.parameters.iter().zip(&trained).filter(|(_, trained)| **trained).map(|(t, _)| t).collect();
        let mut found = Tensor::f_run_backward(&roots, &inputs, false, false)?.into_iter();
        Ok(trained.iter().map(|&trained| if trained { found.next() } else { None }).collect())
    }
}

/// Whether a parameter has a part in a trained head: decoder steps below the coarsest trained head serve the finer ones.
fn is_trained(name: &str, gradients: &HeadGradients) -> bool {
    let head = name.strip_prefix("seg_outputs.").and_then(|rest| rest.split('.').next()).and_then(|u| u.parse::<usize>().ok());
    let finest = gradients.iter().position(Option::is_some).unwrap_or(0);
    let step = ["upsample_layers.", "conv_blocks_localization."]
        .iter()
        .find_map(|prefix| name.strip_prefix(prefix)?.split('.').next()?.parse::<usize>().ok());
    match (head, step) {
        (Some(head), _) => head <= 4 && gradients.get(4 - head).is_some_and(Option::is_some),
        (_, Some(step)) => step + finest <= 4,
        _ => true,
    }
}
