//! Whole purchases through the public door, in every topology.
