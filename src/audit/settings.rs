//! How large the audit files may become.

/// The settings of the audit log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AuditSettings {
    /// The size, in bytes, from which on the next line begins a new file.
    pub file_bytes_max: u64,
    /// How many full files are kept besides the current one. The oldest is removed first.
    pub full_files_max: usize,
}

// === impl AuditSettings ===

impl Default for AuditSettings {
    fn default() -> Self {
        Self { file_bytes_max: 16 << 20, full_files_max: 9 }
    }
}
