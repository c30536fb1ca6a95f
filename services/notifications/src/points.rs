//! Where a test can make this process fail: before and after each commit of the mail worker.

/// The points before and after one act.
pub(crate) type Around = (&'static str, &'static str);

macro_rules! points {
    ($($name:ident = $text:literal;)+) => {
        $(pub(crate) const $name: Around =
            (concat!("notifications.", $text, ".before"), concat!("notifications.", $text, ".after"));)+
        /// Every point of this service.
        pub const FAILPOINTS: &[&str] = &[$($name.0, $name.1,)+];
    };
}

points! {
    CLAIM = "claim";
    SETTLE = "settle";
}
