//! stunetd: a daemon that segments incoming CT and PET studies with STU-Net and answers with DICOM Segmentation objects.
//!
//! `docs/architecture.md` describes the house: which room does what, and what may know what.

pub mod audit;
pub mod cli;
pub mod config;
pub mod delivery;
pub mod dicom;
pub mod fault;
pub mod intake;
pub mod ledger;
pub mod models;
pub mod pipeline;
pub mod results;
pub mod segment;
pub mod series;
pub mod stunet;
pub mod sys;
pub mod telemetry;
pub mod training;
pub mod volume;
pub mod web;

pub use cli::serve::{Seams, machine_space, serve as run};
