//! The network on a tensor in a file: `stunetd model forward`.

use super::{ArchitectureError, Error, Network, tensor_file};
use std::path::Path;

/// Runs the network on the tensor `input` `[N, C, X, Y, Z]` of a safetensors file (any floating kind; network axis order)
/// and writes its raw logits to another: `output.0` at full resolution, with `all_heads` also `output.1` … `output.4`, f32
/// or f64 as the network computes.
pub fn forward_file(network: &Network, input: &Path, output: &Path, all_heads: bool) -> Result<(), Error> {
    let only_input = |found: &[(String, Vec<i64>)]| match found {
        [(name, shape)] if name == "input" && shape.len() == 5 => Ok(()),
        _ => Err(ArchitectureError(format!("one tensor `input` of five axes was expected, found {}", list(found)))),
    };
    let tensors = tensor_file::read(input, only_input).map_err(|error| match error {
        Error::Weights { path, detail } => Error::Input(format!("{}: {detail}", path.display())),
        other => other,
    })?;
    let Some(tensor) = tensors.get("input") else {
        return Err(Error::Input(format!("{}: no tensor `input`", input.display())));
    };
    let outputs = if all_heads { network.forward_all(tensor)? } else { vec![network.forward(tensor)?] };
    let named: Vec<_> = outputs.into_iter().enumerate().map(|(i, t)| (format!("output.{i}"), t)).collect();
    tensor_file::write(output, &named, None)
}

/// The first few tensors of a file, for a message.
fn list(found: &[(String, Vec<i64>)]) -> String {
    let shown: Vec<_> = found.iter().take(3).map(|(name, shape)| format!("{name:?} {shape:?}")).collect();
    let more = if found.len() > 3 { format!(" and {} more", found.len() - 3) } else { String::new() };
    if shown.is_empty() { "none".into() } else { shown.join(", ") + &more }
}
