//! The public door: REST over every service, problems, idempotent replies.
