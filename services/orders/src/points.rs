//! Where a test can make this process fail: before and after each commit and each command to a peer.

/// The points before and after one act.
pub(crate) type Around = (&'static str, &'static str);

macro_rules! points {
    ($($name:ident = $text:literal;)+) => {
        $(pub(crate) const $name: Around =
            (concat!("orders.", $text, ".before"), concat!("orders.", $text, ".after"));)+
        /// Every point of this service.
        pub const FAILPOINTS: &[&str] = &[$($name.0, $name.1,)+];
    };
}

points! {
    RESERVE = "reserve";
    VALIDATE = "validate";
    EXTEND = "extend";
    AUTHORIZE = "authorize";
    COMMIT_UNITS = "commit_units";
    CAPTURE = "capture";
    RETURN_UNITS = "return_units";
    VOID = "void";
    RELEASE = "release";
    REFUND = "refund";
    RETURN_REFUNDED = "return_refunded";
    RECORD = "record";
    AWAIT = "await";
    TURN_BACK = "turn_back";
    END = "end";
    CONFIRM = "confirm";
    REST = "rest";
    PUT_OFF = "put_off";
    CLAIM = "claim";
    ASK_CANCEL = "ask_cancel";
    ASK_REFUND = "ask_refund";
    CLOSE_REFUND = "close_refund";
}
