//! What the store kept, given to a shard before it serves anybody.

use super::Shard;
use crate::model::Instant;
use crate::store::Restored;

impl Shard {
    pub(super) fn restore(&mut self, restored: Restored, _now: Instant) {
        if let Restored::End { next_message } = restored {
            self.store.set_next_message(next_message);
        }
    }
}
