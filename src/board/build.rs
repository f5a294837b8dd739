//! Builds a board's firmware with whichever toolchain has its target, and weighs it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use object::{Object, ObjectSection, SectionKind};

use super::Board;

/// What was built.
#[derive(Clone, Debug)]
pub struct Firmware {
    /// The ELF file.
    pub path: PathBuf,
    /// Code and constants, which lie in flash.
    pub flash: u64,
    /// Variables, without the stack.
    pub ram: u64,
}

/// Builds the firmware in `boards/NAME`; with a key, 64 hexadecimal digits, it takes only updates that are signed
/// by its owner.
///
/// # Errors
/// As [`compile`].
pub fn build(board: &Board, boards: &Path, key: Option<&str>) -> Result<Firmware> {
    weigh(compile(board, boards, board.name, key, &[])?)
}

/// Builds one binary of a board's package, with more arguments for cargo: the ELF file.
///
/// # Errors
/// If no toolchain has the target, with how to get one; if it does not build.
pub fn compile(
    board: &Board,
    boards: &Path,
    binary: &str,
    key: Option<&str>,
    more: &[&str],
) -> Result<PathBuf> {
    let package = boards.join(board.name);
    ensure!(
        package.join("Cargo.toml").is_file(),
        "{}: no such package; run this in a clone of electret, or say --boards",
        package.display()
    );
    let target = boards.canonicalize()?.join("../target/boards");
    let mut command = cargo(board.target)?;
    command.args(["build", "--release", "--quiet", "--bin", binary]).args(more);
    match key {
        Some(key) => command.args(["--features", "signatures"]).env("ELECTRET_PUBLIC_KEY", key),
        None => command.env_remove("ELECTRET_PUBLIC_KEY"),
    };
    // Cargo would take them in the place of those of the package, which name its linker script.
    for flags in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS"] {
        command.env_remove(flags);
    }
    command.arg("--target-dir");
    let status = command.arg(&target).current_dir(&package).status().context("cargo")?;
    ensure!(status.success(), "{binary} of {} does not build", board.name);
    Ok(target.join(board.target).join("release").join(binary))
}

/// A cargo that has a target's library: rustup's, or Debian's, which brings no linker for a board without Linux.
fn cargo(target: &str) -> Result<Command> {
    let output = |program: &str, arguments: &[&str]| {
        let output =
            Command::new(program).args(arguments).output().ok().filter(|output| output.status.success());
        output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let linux = target.contains("linux");
    if linux && cfg!(not(target_arch = "aarch64")) {
        let linker = "aarch64-linux-gnu-gcc";
        ensure!(
            output(linker, &["--version"]).is_some(),
            "no toolchain here has {linker}: install gcc-aarch64-linux-gnu"
        );
    }
    let installed = output("rustup", &["target", "list", "--installed"]).unwrap_or_default();
    if installed.lines().any(|line| line == target) {
        return Ok(Command::new("cargo"));
    }
    let debian = output("rustc", &["+debian", "--print", "sysroot"]).map(|root| PathBuf::from(root.trim()));
    if debian.is_some_and(|root| root.join("lib/rustlib").join(target).is_dir()) {
        let mut command = Command::new("cargo");
        command.arg("+debian");
        if !linux {
            let name = target.to_uppercase().replace(['-', '.'], "_");
            let linker = (15..40).rev().map(|version| format!("ld.lld-{version}"));
            let linker = linker.into_iter().find(|linker| output(linker, &["--version"]).is_some());
            command.env(format!("CARGO_TARGET_{name}_LINKER"), linker.context("no ld.lld: install lld")?);
        }
        return Ok(command);
    }
    bail!("no toolchain here has {target}: rustup target add {target}")
}

/// Sums a firmware's sections.
fn weigh(path: PathBuf) -> Result<Firmware> {
    let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
    let file = object::File::parse(&*bytes).with_context(|| path.display().to_string())?;
    let (mut flash, mut ram) = (0, 0);
    for section in file.sections() {
        match section.kind() {
            SectionKind::Text | SectionKind::ReadOnlyData | SectionKind::ReadOnlyString => {
                flash += section.size()
            }
            SectionKind::Data => {
                flash += section.size();
                ram += section.size();
            }
            SectionKind::UninitializedData => ram += section.size(),
            _ => {}
        }
    }
    Ok(Firmware { path, flash, ram })
}
