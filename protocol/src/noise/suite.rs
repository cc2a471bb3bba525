//! The two cipher suites. Next: [`super::handshake`] runs Noise with one of them.

use snow::params::NoiseParams;

/// A cipher suite, as named in F0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Suite {
    /// `Noise_XK_25519_AESGCM_SHA256`: for CPUs with AES instructions.
    AesGcmSha256 = 1,
    /// `Noise_XK_25519_ChaChaPoly_BLAKE2s`: for the others.
    ChaChaPolyBlake2s = 2,
}

impl Suite {
    /// The suite of a byte of F0.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::AesGcmSha256),
            2 => Some(Self::ChaChaPolyBlake2s),
            _ => None,
        }
    }

    /// The Noise protocol name.
    #[must_use]
    pub const fn noise_name(self) -> &'static str {
        match self {
            Self::AesGcmSha256 => "Noise_XK_25519_AESGCM_SHA256",
            Self::ChaChaPolyBlake2s => "Noise_XK_25519_ChaChaPoly_BLAKE2s",
        }
    }

    pub(super) fn params(self) -> Result<NoiseParams, snow::Error> {
        self.noise_name().parse()
    }

    /// The faster suite on this machine: AES where the CPU has instructions for it.
    #[must_use]
    pub fn fastest() -> Self {
        #[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
        let aes = std::arch::is_x86_feature_detected!("aes")
            && std::arch::is_x86_feature_detected!("pclmulqdq");
        #[cfg(target_arch = "aarch64")]
        let aes = std::arch::is_aarch64_feature_detected!("aes");
        #[cfg(not(any(target_arch = "x86_64", target_arch = "x86", target_arch = "aarch64")))]
        let aes = false;
        if aes {
            Self::AesGcmSha256
        } else {
            Self::ChaChaPolyBlake2s
        }
    }
}
