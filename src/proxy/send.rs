//! Getting a request to a backend: its route, the wait for one, attempts, retries.
//!
//! Ends with the headers of a response; never reads or writes a response body.

pub mod attempt;
pub mod hold;
pub mod reroute;
pub mod resolve;
pub mod retry;
