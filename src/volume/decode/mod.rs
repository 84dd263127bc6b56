//! Stored pixel values of DICOM files: where they lie, what compresses them, and the child processes that run the codecs.
//!
//! Uncompressed, RLE and deflated frames are decoded in this process by code without `unsafe`. JPEG, JPEG-LS and JPEG 2000 go to
//! [`Decoder`]: child processes of the same binary that share memory with the daemon, are limited in memory, time and system calls,
//! and can crash without harm.

mod arena;
mod child;
mod codec;
mod convert;
mod jpeg;
mod jpeg2000;
mod jpegls;
mod planes;
mod pool;
mod protocol;
mod sandbox;
mod worker;

pub use codec::{Codec, CodecError, FrameSpec, decode};
pub use convert::{Conversion, LayoutError};
pub use planes::{PlaneJob, decode_planes, layout, plane_digest};
pub use pool::{DecodeError, Decoder, DecoderConfig, EncodedFrame};
pub use worker::worker_main;
