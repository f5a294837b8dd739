//! Writes the Kotlin, Swift or Python source that calls a library built with the feature `uniffi`:
//! `bindgen LIBRARY kotlin|swift|python FOLDER`.

use std::error::Error;

use uniffi_bindgen::bindings::{GenerateOptions, TargetLanguage, generate};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [library, language, folder] = &arguments[..] else {
        return Err("usage: bindgen LIBRARY kotlin|swift|python FOLDER".into());
    };
    let languages = vec![match language.as_str() {
        "kotlin" => TargetLanguage::Kotlin,
        "swift" => TargetLanguage::Swift,
        "python" => TargetLanguage::Python,
        other => return Err(format!("{other}: a language is kotlin, swift or python").into()),
    }];
    Ok(generate(GenerateOptions {
        languages,
        source: library.into(),
        out_dir: folder.into(),
        ..Default::default()
    })?)
}
