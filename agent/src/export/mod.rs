//! Where events go.

pub mod file;
pub mod hub;
mod json_file;

pub use json_file::JsonFile;
