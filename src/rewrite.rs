//! The few changes made to what a backend says, each in a file of its own.
//!
//! Bytes in, bytes out: no socket, no clock, no header map.

pub mod card;
pub mod decode;
pub mod endpoint;
pub mod json;
pub mod origin;
pub mod pin;
