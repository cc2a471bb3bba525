//! The worker against a pool that is only a model.
