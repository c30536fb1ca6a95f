//! What the API refuses, operation by operation as it describes itself: a route is covered here from the moment it is
//! described, or fails the test that says what to add.
//!
//! Read in this order: [`table`] (what each asker is told, the one thing kept by hand), [`stage`] (an installation with
//! something to ask for, and its books), [`places`] (where in a body
//! something stands), then the tests.

mod authorization;
mod mass_assignment;
mod methods;
mod places;
mod problems;
mod secrets;
mod stage;
mod table;
