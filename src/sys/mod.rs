//! See the house plan in docs/architecture.md.

pub mod durable;
