//! What lasts (S8, S10, S12): the contract between shards and the durable store.
//!
//! A shard yields [`StoreBatch`]es and takes [`StoreEvent`]s; what carries them out is the process's, or a
//! simulator's. No shard waits for a disk.

mod memory;
mod operation;

pub use memory::MemoryStore;
pub use operation::{
    BatchNumber, MessageNumber, QueuedMessage, RecordKind, Restored, Sequence, Stage, StoreBatch, StoreEvent,
    StoreOperation, WallTime,
};
