//! The kernel programs of Nightjar.
#![no_std]
#![no_main]
