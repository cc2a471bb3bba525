//! Streams against a pool that is only a model.
