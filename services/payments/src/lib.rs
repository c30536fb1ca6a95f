//! Payment methods, intents, captures and refunds; the sandbox provider.
