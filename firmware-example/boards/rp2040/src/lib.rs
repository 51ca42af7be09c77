//! What boards with an RP2040 have in common: the thermometer, a unique number, and, in memory.x, where memory is.
#![no_std]

use bugle_lamp::Sensor;
use embassy_rp::Peri;
use embassy_rp::adc::{Adc, Async, Channel, Config, InterruptHandler};
use embassy_rp::flash::Flash;
use embassy_rp::interrupt::typelevel::{ADC_IRQ_FIFO, Binding};
use embassy_rp::peripherals::{ADC, ADC_TEMP_SENSOR, FLASH};

/// Bytes of flash that these boards have.
const FLASH_SIZE: usize = 2 << 20;

/// A number that differs between boards: the RP2040 has none, but the flash beside it has.
pub fn seed(flash: Peri<'static, FLASH>) -> u32 {
    let mut unique = [0; 8];
    if let Err(error) = Flash::<_, _, FLASH_SIZE>::new_blocking(flash).blocking_unique_id(&mut unique) {
        defmt::warn!("the flash has no unique id: {}", error);
    }
    bugle_board::seed(&unique)
}

/// The thermometer of the chip itself.
pub struct Thermometer {
    converter: Adc<'static, Async>,
    sensor: Channel<'static>,
}

impl Thermometer {
    /// On the analog-to-digital converter.
    pub fn new(
        converter: Peri<'static, ADC>,
        sensor: Peri<'static, ADC_TEMP_SENSOR>,
        interrupts: impl Binding<ADC_IRQ_FIFO, InterruptHandler>,
    ) -> Self {
        Self {
            converter: Adc::new(converter, interrupts, Config::default()),
            sensor: Channel::new_temp_sensor(sensor),
        }
    }
}

impl Sensor for Thermometer {
    async fn measure(&mut self) -> Option<i16> {
        let raw = self.converter.read(&mut self.sensor).await.ok()?;
        // 12 bits of 3.3 V. By the datasheet 27 degrees are 0.706 V, and each degree less is 1.721 mV more.
        let microvolts = i32::from(raw) * 3_300_000 / 4_096;
        i16::try_from(270 - (microvolts - 706_000) / 172).ok()
    }
}
