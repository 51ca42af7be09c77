//! What the codec accepts, refuses and writes: by vectors (`vectors.txt`) and by random packets.

mod packets;
mod round_trip;
mod vectors;
