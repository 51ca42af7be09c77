//! Log lines, to defmt and log as their features say, and to nowhere without them.

macro_rules! notice {
    ($level:ident, $text:literal $(, $value:expr)* $(,)?) => {{
        #[cfg(feature = "defmt")]
        ::defmt::$level!($text $(, $value)*);
        #[cfg(feature = "log")]
        ::log::$level!($text $(, $value)*);
        #[cfg(not(any(feature = "defmt", feature = "log")))]
        { $(let _ = &$value;)* }
    }};
}

macro_rules! debug {
    ($($arg:tt)*) => { notice!(debug, $($arg)*) };
}

macro_rules! warning {
    ($($arg:tt)*) => { notice!(warn, $($arg)*) };
}
