//! What teaching a network needs of libtorch: gradients of all parameters, and losses that work on logits as they lie in
//! memory. `crate::training` knows the recipe; this module knows the tensors.

mod distillation;
mod plain;
mod real;
mod regions;
mod softmax;
mod tensors;
mod trainable;

pub use distillation::{Distilled, distil};
pub use regions::{region_gradient, region_sums};
pub use softmax::{IGNORED, Slopes, Sums, Truth, softmax_gradient, softmax_sums};
pub use tensors::{read_notes, read_tensors, write_tensors};
pub use trainable::Trainable;
