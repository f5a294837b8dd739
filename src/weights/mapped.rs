//! Files read through the operating system's page cache: one clean copy for all who open them.

/// Maps a file for reading. A file that is written to while it is mapped changes under its readers, and one that
/// is cut short takes their pages away: replace files by renaming.
pub fn map(file: &std::fs::File) -> std::io::Result<memmap2::Mmap> {
    // SAFETY: bytes are only ever read, and those who write model files and shards replace them by renaming.
    unsafe { memmap2::Mmap::map(file) }
}
