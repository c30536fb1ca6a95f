//! Mechanisms every service stands on: settings, faults, transport, identity, database, messages.
