//! coordinator

fn main() {}
