//! Documents as files of a folder, each replaced by a rename after everything is on the disk.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use super::{Place, Store};
use crate::Error;
use crate::weights::{Document, Take};

/// A [`Store`] in a folder of its own.
#[derive(Debug)]
pub struct FolderStore {
    folder: PathBuf,
}

impl FolderStore {
    /// Opens the store in `folder`, which is made if it is not there.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(folder: &Path) -> std::io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        Ok(Self { folder: folder.to_owned() })
    }

    fn file(&self, place: Place) -> Result<PathBuf, Error> {
        place.index()?;
        Ok(self.folder.join(match place {
            Place::Active => "active".to_owned(),
            Place::Slot => "slot".to_owned(),
            Place::Tuner => "tuner.state".to_owned(),
            Place::Guard => "guard.state".to_owned(),
            Place::Adapter(number) => format!("{number}.adapter"),
        }))
    }
}

impl Store for FolderStore {
    fn put(&mut self, place: Place, document: &impl Document) -> Result<(), Error> {
        let path = self.file(place)?;
        let file = document.to_vec()?;
        replace_file(&path, |out| out.write_all(&file)).map_err(|error| failed(&path, &error))
    }

    fn get(&mut self, place: Place, take: &mut Take<'_>) -> Result<bool, Error> {
        let path = self.file(place)?;
        let mut file = match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            opened => opened.map_err(|error| failed(&path, &error))?,
        };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|error| failed(&path, &error))?;
        take(&bytes)?;
        Ok(true)
    }

    fn remove(&mut self, place: Place) -> Result<(), Error> {
        let path = self.file(place)?;
        let removed = match std::fs::remove_file(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            removed => removed.and_then(|()| sync_folder(&path)),
        };
        removed.map_err(|error| failed(&path, &error))
    }
}

/// What a failure of the file system is to a store; the log has the rest.
pub fn failed(path: &Path, error: &std::io::Error) -> Error {
    log::warn!("{}: {error}", path.display());
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => Error::DiskFull,
        _ => Error::StoreFailed,
    }
}

/// The file that is replaced when `path` is: behind a link the one that it leads to.
///
/// # Errors
/// If something else than a file is there, which a file would take the place of.
pub fn replaceable(path: &Path) -> std::io::Result<PathBuf> {
    match std::fs::metadata(path) {
        Ok(there) if there.is_file() => std::fs::canonicalize(path),
        Ok(_) => Err(std::io::Error::other("is there, and is no file")),
        Err(_) => Ok(path.to_owned()),
    }
}

/// Writes a file so that at any moment there is the old one or the new one, whole: beside it, with `.part` behind its
/// name, to the disk, then renamed.
///
/// # Errors
/// Those of [`replaceable`]; what the file system or `write` says. The old file is as it was then.
pub fn replace_file(
    path: &Path,
    write: impl FnOnce(&mut File) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let path = &replaceable(path)?;
    let part = path.with_added_extension("part");
    let mut file = File::create(&part)?;
    let written = write(&mut file).and_then(|()| file.sync_all());
    if let Err(error) = written.and_then(|()| std::fs::rename(&part, path)) {
        // What is half written is of no use; that it cannot be removed either changes nothing.
        let _ = std::fs::remove_file(&part);
        return Err(error);
    }
    sync_folder(path)
}

/// Makes a file's name in its folder durable.
fn sync_folder(path: &Path) -> std::io::Result<()> {
    if cfg!(not(unix)) {
        return Ok(());
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}
