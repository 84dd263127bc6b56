//! From the weights of one task to the start of another.

use super::Error;
use crate::stunet::Architecture;
use std::collections::HashMap;
use tch::Tensor;

/// The start of fine-tuning: every parameter of `pretrained` but the heads (`seg_outputs.*`), which come from `fresh`, the new
/// network's own start. With `keep_heads`, which is for a new task with the very same labels, the heads are taken over too.
///
/// A network of one input channel becomes one of several by repeating the first block's `conv1` and `conv3` weights along
/// the input axis, undivided, as STU-Net's fine-tuning does. The strides do not take part: they have no weights.
///
/// # Errors
/// A tensor that is missing or has another shape; heads to be kept that do not fit.
pub fn transfer(
    pretrained: &HashMap<String, Tensor>,
    mut fresh: HashMap<String, Tensor>,
    target: &Architecture,
    keep_heads: bool,
) -> Result<HashMap<String, Tensor>, Error> {
    let mut result = HashMap::new();
    for (name, shape) in target.state_dict() {
        let missing = |whose: &str| Error::Settings(format!("{whose} have no tensor {name}"));
        let tensor = if name.starts_with("seg_outputs.") && !keep_heads {
            fresh.remove(&name).ok_or_else(|| missing("the fresh weights"))?
        } else {
            let tensor = pretrained.get(&name).ok_or_else(|| missing("the pretrained weights"))?;
            let first = ["conv_blocks_context.0.0.conv1.weight", "conv_blocks_context.0.0.conv3.weight"].contains(&name.as_str());
            let found = tensor.size();
            if first && found != shape && found.get(1) == Some(&1) {
                tensor.f_repeat([1, shape[1], 1, 1, 1])?
            } else {
                tensor.shallow_clone()
            }
        };
        if tensor.size() != shape {
            return Err(Error::Settings(format!("{name} has shape {:?}; the new network has {shape:?}", tensor.size())));
        }
        result.insert(name, tensor);
    }
    Ok(result)
}
