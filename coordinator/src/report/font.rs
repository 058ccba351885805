//! The one font of the pictures, which comes with a library instead of the system.

use std::sync::Once;

use plotters::style::{FontStyle, register_font};

static REGISTERED: Once = Once::new();

/// Makes the family "sans-serif" known to plotters.
pub(super) fn register() {
    REGISTERED.call_once(|| {
        // It fails for bytes that are no font only, and then drawing the text says so.
        let _ = register_font(
            "sans-serif",
            FontStyle::Normal,
            epaint_default_fonts::UBUNTU_LIGHT,
        );
    });
}
