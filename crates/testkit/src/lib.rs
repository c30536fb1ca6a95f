//! What tests stand on: a fake clock, a PostgreSQL of their own, scripted peers. Knows no service.
