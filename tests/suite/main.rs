//! Tests of the real binary.

mod config;
