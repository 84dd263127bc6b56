//! Reading PyTorch checkpoints: every container variant, every opcode, and files made to do harm.

mod containers;
pub mod forge;
mod hostile;
mod pickles;
