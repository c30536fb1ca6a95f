//! The generated gRPC contracts; the sources, with their comments, are in `/proto`.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    reason = "generated code"
)]

/// Declares `<name>::v1`, the generated code of the package `holdfast.<name>.v1`.
macro_rules! package {
    ($($name:ident),+ $(,)?) => {$(
        pub mod $name {
            pub mod v1 {
                include!(concat!(env!("OUT_DIR"), "/holdfast.", stringify!($name), ".v1.rs"));
            }
        }
    )+};
}

package!(
    auth,
    catalog,
    events,
    inventory,
    money,
    notifications,
    orders,
    page,
    payments,
    reviews,
    saga,
    users,
    webhooks
);

/// Every contract as an encoded `FileDescriptorSet`, for reflection and for tests over all calls.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/holdfast_descriptor.bin"));
