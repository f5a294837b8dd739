//! Files read through the operating system's page cache: one clean copy for all who open them.

/// Maps a file for reading. A file that is written to while it is mapped changes under its readers, and one that
/// is cut short takes their pages away: replace files by renaming.
pub fn map(file: &std::fs::File) -> std::io::Result<memmap2::Mmap> {
    // SAFETY: bytes are only ever read, and those who write model files and shards replace them by renaming.
    unsafe { memmap2::Mmap::map(file) }
}

/// Lets the system take back the pages of a mapping that were read; they are read again where they are needed.
#[cfg(feature = "convert")]
pub(crate) fn release(map: &memmap2::Mmap) {
    #[cfg(unix)]
    // SAFETY: the mapping is a file's and is only ever read: what is dropped is what the file still says.
    let advised = unsafe { map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
    #[cfg(unix)]
    if let Err(error) = advised {
        log::debug!("pages were kept: {error}");
    }
    #[cfg(not(unix))]
    let _ = map;
}
