//! The ledger: pools, holds, movements. What can run out is taken here and nowhere else.
