//! The training room: its numbers against the reference's, its choices against the recipe.

mod curated;
mod evaluating;
mod gates;
mod losses;
mod runs;
mod sampling;
mod steps;
mod store;
mod transferring;
mod windows;

use crate::support::Tensors;
use std::collections::HashMap;
use tch::{Kind, Tensor};

/// The array of a golden file as an f64 tensor.
fn tensor(file: &Tensors, name: &str) -> Tensor {
    let array = file.get(name);
    let shape: Vec<i64> = array.shape.iter().map(|&n| n as i64).collect();
    Tensor::from_slice(&array.values).reshape(shape)
}

fn values(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.to_kind(Kind::Double).contiguous().reshape([-1])).expect("numbers")
}

fn labels(file: &Tensors, name: &str) -> Vec<u16> {
    file.get(name).values.iter().map(|&v| v as u16).collect()
}

/// All tensors below a prefix, by the rest of their names.
fn params(file: &Tensors, prefix: &str) -> HashMap<String, Tensor> {
    file.names().iter().filter_map(|name| Some((name.strip_prefix(prefix)?.to_string(), tensor(file, name)))).collect()
}

fn shapes(params: &HashMap<String, Tensor>) -> Vec<(String, Vec<i64>)> {
    params.iter().map(|(name, t)| (name.clone(), t.size())).collect()
}
