//! The conformance suite of pools; see below.
fn main() {}
