//! A file that is whole or as before.
