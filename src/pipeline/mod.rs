//! Runs the street: stages on threads joined by bounded channels, a byte budget, one outcome for every job.

mod board;
pub mod budget;
pub mod canary;
pub mod channels;
mod choice;
mod clinic;
pub mod control;
pub mod curation;
mod engine;
mod estimate;
mod jobs;
pub mod line;
pub mod night;
pub mod outbox;
pub mod promotion;
pub mod purge;
pub mod reconcile;
mod service;
mod stages;
pub mod status;
mod street;
mod studies;
mod supervisor;
mod work;

pub use board::{Beat, Board, Seat};
pub use clinic::{Clinic, Visit};
pub use engine::network;
pub use service::{Models, Reload, Service, ServicePlan, serving, take_out, tell};
pub use stages::{Input, Order, WhenPublished};
pub use status::{Snapshot, Status};
pub use street::{End, EngineFactory, EngineFacts, Next, Opened, Outcome, Plan, Street};
pub use supervisor::{Supervisor, SupervisorPlan};
pub use work::{Envelope, JobId, Ticket, Times, Token, Work};
