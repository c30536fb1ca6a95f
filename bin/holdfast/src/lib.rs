//! One binary: every service, and the commands that run, seed and audit them.
