//! The durable store of the process, in SQLite. The contract is `bugle_core::store`.
//!
//! What is here: [`schema`] are the tables and how they are migrated, [`pending`] folds the operations of batches into
//! changes, [`apply`] writes these in one transaction, [`fetch`] reads queues, [`rows`] is how a message stands in a row,
//! [`settings`] what the operator decides.
//!
//! Not yet here: the thread that takes batches from shards and commits them, the reading at the start, and what makes a
//! full disk bearable. Until then no file is written.
//!
//! Nothing here knows what a session or a receipt is: records and queue entries are texts of the hub's making.

mod apply;
mod fetch;
mod pending;
mod rows;
mod schema;
mod settings;
#[cfg(test)]
mod tests;
