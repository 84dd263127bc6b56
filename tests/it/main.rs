//! The one integration binary: every module tests one room or one story against the real thing.

mod support;

mod aggregation;
mod bad_input;
mod character_sets;
mod checkpoint;
mod cli;
mod corpus;
mod decode;
mod delivery;
mod dicom_input;
mod docs;
mod engine;
mod first_steps;
mod gpu;
mod jobs;
mod json_outputs;
mod ledger;
mod models;
mod network;
mod nifti;
mod pairs;
mod pipeline_e2e;
mod preprocessing;
mod real_series;
mod receive;
mod resampling;
mod results;
mod seg_object;
mod segmentation;
mod selection;
mod serve;
mod service_unit;
mod supervision;
mod tilted;
