//! Orders, their lines, status machine and audit events; the checkout saga.
