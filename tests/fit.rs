//! A model that has to fit: as much in int4 as makes it so, and no more.
#![cfg(feature = "convert")]

use electret::import::Checkpoint;
use electret::quantize::{Recipe, fit, quantize, quantize_by};
use electret::weights::AlignedBytes;
use electret::{Model, TINY};

#[test]
fn a_model_is_made_to_fit() {
    let checkpoint = Checkpoint::random("fit", TINY, 3);
    let int8 = quantize(&checkpoint, "", "").unwrap().len();
    let all = Recipe::all_int4(&checkpoint);
    let int4 = quantize_by(&checkpoint, "", "", &all).unwrap().len();
    println!("int4 {int4}, int8 {int8} bytes");
    assert!(int4 * 100 <= int8 * 62);
    let count = |budget: usize| {
        let fitted = fit(&checkpoint, "", "", &[], budget).unwrap();
        assert!(fitted.file.len() <= budget);
        let file = AlignedBytes::copy_of(&fitted.file);
        let model = Model::open(file.as_slice()).unwrap();
        let marked = fitted.matrices.iter().filter(|matrix| matrix.int4).count();
        assert_eq!(model.linears().filter(|linear| linear.is_int4()).count(), marked);
        marked
    };
    assert_eq!(count(int8), 0);
    assert!((1..all.int4.len()).contains(&count(int8 - 1000)));
    assert_eq!(count(int4), all.int4.len());
    let error = fit(&checkpoint, "", "", &[], int4 - 1000).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("{} bytes are too few: with all in int4 the file has {int4}", int4 - 1000)
    );
}

#[test]
fn a_model_says_what_of_it_is_int4() {
    let checkpoint = Checkpoint::random("fit", TINY, 3);
    let mut recipe = Recipe::all_int4(&checkpoint);
    recipe.int4.remove("electra.encoder.layer.3.output.dense");
    for recipe in [Recipe::default(), recipe] {
        let file = AlignedBytes::copy_of(&quantize_by(&checkpoint, "", "", &recipe).unwrap());
        assert_eq!(Recipe::of_model(&Model::open(file.as_slice()).unwrap()).int4, recipe.int4);
    }
    let recipe = Recipe { int4: ["classifier.dense".to_owned()].into(), ..Recipe::default() };
    let error = quantize_by(&checkpoint, "", "", &recipe).unwrap_err();
    assert_eq!(error.to_string(), "classifier.dense: no matrix that may become int4");
}
