//! Nearly valid packets: valid bytes with one thing changed. They stay whole: however long a packet says that it is, as many bytes
//! come, so that no broker waits for more and the question "what did that cause?" has an answer.

use bugle_core::mqtt::{PacketType, Version, frame_length};

use super::dice::Dice;

/// Longest that a spoiled packet may say it is.
const LONGEST: usize = 400;
/// Keep-alive's place in the body of a CONNECT that begins as most do.
const KEEP_ALIVE: std::ops::Range<usize> = 8..10;

/// Properties as bytes, for where they don't belong or a second time.
const PROPERTIES: [&[u8]; 33] = [
    &[0x01, 0],
    &[0x01, 2],
    &[0x02, 0, 0, 3, 232],
    &[0x03, 0, 1, b't'],
    &[0x08, 0, 1, b'r'],
    &[0x08, 0, 1, b'#'],
    &[0x08, 0, 0],
    &[0x09, 0, 1, 1],
    &[0x0B, 5],
    &[0x0B, 0],
    &[0x11, 0, 0, 3, 232],
    &[0x12, 0, 1, b'i'],
    &[0x13, 0, 9],
    &[0x16, 0, 1, b'd'],
    &[0x17, 0],
    &[0x17, 2],
    &[0x18, 0, 0, 3, 232],
    &[0x19, 1],
    &[0x19, 3],
    &[0x1F, 0, 1, b'x'],
    &[0x21, 0, 0],
    &[0x21, 0, 5],
    &[0x22, 0, 5],
    &[0x23, 0, 0],
    &[0x23, 0, 1],
    &[0x23, 255, 255],
    &[0x24, 1],
    &[0x25, 1],
    &[0x26, 0, 1, b'k', 0, 1, b'v'],
    &[0x27, 0, 0, 0, 0],
    &[0x2A, 1],
    &[0x05],
    &[0xFF],
];

/// Changes one thing in a packet. None where this can't be done with this packet.
pub fn spoil(packet: &[u8], version: Version, dice: &mut Dice) -> Option<Vec<u8>> {
    let (first, mut body) = (packet[0], packet[2..].to_vec());
    if packet[1] > 0x7F {
        return None;
    }
    let kind = PacketType::of_first_byte(first)?;
    let mut first = first;
    match dice.below(12) {
        0 => first ^= 1 << dice.below(4),
        1 | 2 => *place(&mut body, dice)? = dice.byte(),
        3 => *place(&mut body, dice)? = dice.of(&[0, b'+', b'#', b'/', b'$', 0x01, 0x7F, 0x80, 0xC3, 0xFF]),
        4 => *place(&mut body, dice)? ^= 1 << dice.below(8),
        5 => {
            let cut = 1 + dice.below(3);
            let rest = body.len().checked_sub(cut)?;
            body.truncate(rest);
        }
        6 => {
            for _ in 0..=dice.below(3) {
                body.push(dice.of(&[0, 1, b'a', 0xFF]));
            }
        }
        7 => {
            // Longer than need be.
            let mut long = vec![first, packet[1] | 0x80, 0];
            long.extend(body);
            return Some(long);
        }
        _ if version == Version::V5 => {
            let property = dice.of(&PROPERTIES);
            match (kind, body.len()) {
                (PacketType::Disconnect, 0) => body = vec![0, 0],
                (PacketType::PubAck | PacketType::PubRec | PacketType::PubRel | PacketType::PubComp, 2) => {
                    body.extend([0, 0]);
                }
                _ => {}
            }
            let at = properties_at(kind, first, &body)?;
            let length = body.get_mut(at)?;
            *length = length.checked_add(property.len() as u8).filter(|length| *length < 0x80)?;
            body.splice(at + 1..at + 1, property.iter().copied());
        }
        _ => return None,
    }
    if kind == PacketType::Connect {
        // Nobody is to be timed out while a sequence lasts.
        if let Some(keep_alive) = body.get_mut(KEEP_ALIVE)
            && keep_alive[0] < 2
        {
            keep_alive[0] = 2;
        }
    }
    let mut spoiled = vec![first];
    let length = body.len();
    if length > 0x7F {
        spoiled.push((length & 0x7F) as u8 | 0x80);
        spoiled.push((length >> 7) as u8);
    } else {
        spoiled.push(length as u8);
    }
    spoiled.extend(body);
    whole(&spoiled).then_some(spoiled)
}

fn place<'a>(body: &'a mut [u8], dice: &mut Dice) -> Option<&'a mut u8> {
    let length = body.len();
    if length == 0 { None } else { body.get_mut(dice.below(length)) }
}

/// Where the length of a packet's properties is. An acknowledgement gets a reason and room for them.
fn properties_at(kind: PacketType, first: u8, body: &[u8]) -> Option<usize> {
    match kind {
        PacketType::Connect => Some(KEEP_ALIVE.end),
        PacketType::Subscribe | PacketType::Unsubscribe => Some(2),
        PacketType::Publish => {
            let topic = usize::from(*body.first()?) << 8 | usize::from(*body.get(1)?);
            Some(2 + topic + if first & 0b110 == 0 { 0 } else { 2 })
        }
        PacketType::Disconnect => Some(1),
        _ => Some(3),
    }
}

/// Whether it is exactly one packet by its own account.
fn whole(bytes: &[u8]) -> bool {
    bytes.len() <= LONGEST && frame_length(bytes).ok().flatten() == Some(bytes.len())
}
