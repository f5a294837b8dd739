//! Writes the script that a page loads the library with: `bindgen LIBRARY.wasm FOLDER`. It is what the command
//! `wasm-bindgen --target web --no-typescript` does, of which nothing need be installed.

use std::error::Error;

use wasm_bindgen_cli_support::Bindgen;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(library), Some(folder), None) = (arguments.next(), arguments.next(), arguments.next()) else {
        return Err("usage: bindgen LIBRARY.wasm FOLDER".into());
    };
    let mut bindgen = Bindgen::new();
    bindgen.input_path(library).out_name("electret").web(true)?.typescript(false);
    Ok(bindgen.generate(folder)?)
}
