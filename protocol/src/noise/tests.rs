//! Handshakes and sealing, attacked.
