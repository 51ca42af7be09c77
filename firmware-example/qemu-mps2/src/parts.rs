//! What the board has of a lamp: an LED, a serial line for a button, and no thermometer.

use core::convert::Infallible;

use bugle_lamp::Sensor;
use embedded_hal::digital::{ErrorType, OutputPin};
use embedded_hal_async::digital::Wait;

use crate::serial::Serial;

/// The first of the board's LEDs.
pub struct Led(());

impl Led {
    /// Takes it.
    pub fn new() -> Self {
        Self(())
    }

    #[allow(unsafe_code, reason = "a register of the board")]
    fn set(&mut self, is_on: bool) {
        // Safety: the LED register of the board's FPGA IO; only this type writes it.
        unsafe { (0x4002_8000 as *mut u32).write_volatile(is_on.into()) }
    }
}

impl Default for Led {
    fn default() -> Self {
        Self::new()
    }
}

impl ErrorType for Led {
    type Error = Infallible;
}

impl OutputPin for Led {
    fn set_low(&mut self) -> Result<(), Infallible> {
        self.set(false);
        Ok(())
    }

    fn set_high(&mut self) -> Result<(), Infallible> {
        self.set(true);
        Ok(())
    }
}

/// A button that each byte on the serial line presses and releases.
pub struct SerialButton(Serial);

impl SerialButton {
    /// On this line.
    pub fn new(serial: Serial) -> Self {
        Self(serial)
    }

    async fn pressed(&mut self) -> Result<(), Infallible> {
        self.0.byte().await;
        Ok(())
    }
}

impl ErrorType for SerialButton {
    type Error = Infallible;
}

impl Wait for SerialButton {
    async fn wait_for_high(&mut self) -> Result<(), Infallible> {
        Ok(())
    }

    async fn wait_for_low(&mut self) -> Result<(), Infallible> {
        self.pressed().await
    }

    async fn wait_for_rising_edge(&mut self) -> Result<(), Infallible> {
        self.pressed().await
    }

    async fn wait_for_falling_edge(&mut self) -> Result<(), Infallible> {
        self.pressed().await
    }

    async fn wait_for_any_edge(&mut self) -> Result<(), Infallible> {
        self.pressed().await
    }
}

/// A made-up temperature that rises a tenth of a degree with each look.
pub struct Thermometer(i16);

impl Thermometer {
    /// At 21.0 degrees.
    pub fn new() -> Self {
        Self(209)
    }
}

impl Default for Thermometer {
    fn default() -> Self {
        Self::new()
    }
}

impl Sensor for Thermometer {
    async fn measure(&mut self) -> Option<i16> {
        self.0 = self.0.wrapping_add(1);
        Some(self.0)
    }
}
