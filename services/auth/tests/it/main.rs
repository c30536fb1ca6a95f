//! The auth service at its door, on a real database.

mod accounts;
mod guessing;
mod keys;
mod login;
mod operator;
mod password;
mod refresh;
mod register;
mod sealing;
mod sessions;
mod statements;
mod world;
