//! The same for a web page: JavaScript classes, with places in UTF-16 units as JavaScript counts.

use std::sync::Arc;

use js_sys::Function;
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;

use super::{ElectretError, Example, Lesson, Model, Truth, Tuner};

/// A token and how likely it is to be a replacement.
#[wasm_bindgen(js_name = Detection, getter_with_clone, inspectable)]
#[derive(Debug)]
pub struct WebDetection {
    /// The token.
    pub text: String,
    /// Its first UTF-16 unit.
    pub start: u32,
    /// One past its last.
    pub end: u32,
    /// Probability that it was replaced.
    pub replaced: f32,
}

/// A label and its probability.
#[wasm_bindgen(js_name = Score, getter_with_clone, inspectable)]
#[derive(Debug)]
pub struct WebScore {
    /// The label.
    pub label: String,
    /// Its probability.
    pub probability: f32,
}

/// A model, perhaps with something learned on top of it. What does not fit of a long text loses its end.
#[wasm_bindgen(js_name = Model)]
#[derive(Debug)]
pub struct WebModel(Arc<Model>);

#[wasm_bindgen(js_class = Model)]
impl WebModel {
    /// Opens a copy of the bytes of an `.electret` file.
    ///
    /// # Errors
    /// As [`Model::from_bytes`]; errors are the message, as a string.
    #[wasm_bindgen(constructor)]
    pub fn new(bytes: &[u8]) -> Result<Self, String> {
        Ok(Self(Model::from_bytes(bytes).map_err(said)?.truncating()))
    }

    /// The model's name.
    #[wasm_bindgen(getter)]
    pub fn name(&self) -> String {
        self.0.describe().name
    }

    /// Which instructions it runs on: `wasm-simd128` or `scalar`.
    #[wasm_bindgen(getter)]
    pub fn kernels(&self) -> String {
        self.0.describe().kernels
    }

    /// Whether the model gives the bits here that it gave where it was made.
    ///
    /// # Errors
    /// As [`Model::self_test`].
    #[wasm_bindgen(js_name = selfTest)]
    pub fn self_test(&self) -> Result<bool, String> {
        self.0.self_test().map_err(said)
    }

    /// How likely each token of the text is to be a replacement, in order.
    ///
    /// # Errors
    /// As [`Model::detect`].
    pub fn detect(&self, text: &str) -> Result<Vec<WebDetection>, String> {
        let found = self.0.detect(text).map_err(said)?.into_iter();
        let web = |found: super::Detection| WebDetection {
            start: found.span.utf16_start,
            end: found.span.utf16_end,
            text: found.text,
            replaced: found.replaced,
        };
        Ok(found.map(web).collect())
    }

    /// The labels of a text, the likeliest first.
    ///
    /// # Errors
    /// As [`Model::classify`].
    pub fn classify(&self, text: &str) -> Result<Vec<WebScore>, String> {
        let scores = self.0.classify(text).map_err(said)?.into_iter();
        Ok(scores.map(|score| WebScore { label: score.label, probability: score.probability }).collect())
    }

    /// The text as a vector of length 1.
    ///
    /// # Errors
    /// As [`Model::embed`].
    pub fn embed(&self, text: &str) -> Result<Vec<f32>, String> {
        self.0.embed(text).map_err(said)
    }

    /// The same model with what was learned on top of it.
    ///
    /// # Errors
    /// As [`Model::with_adapter`].
    #[wasm_bindgen(js_name = withAdapter)]
    pub fn with_adapter(&self, adapter: Vec<u8>) -> Result<Self, String> {
        self.0.with_adapter(adapter).map(Self).map_err(said)
    }
}

/// A learner of classes on top of a model.
#[wasm_bindgen(js_name = Tuner)]
#[derive(Debug)]
pub struct WebTuner(Arc<Tuner>);

#[wasm_bindgen(js_class = Tuner)]
impl WebTuner {
    /// A tuner of `labels` that goes on from a state of before, or begins anew without one.
    ///
    /// # Errors
    /// As [`Tuner::from_state`].
    #[wasm_bindgen(constructor)]
    pub fn new(
        model: &WebModel,
        labels: Vec<String>,
        strategy: &str,
        state: Option<Vec<u8>>,
    ) -> Result<Self, String> {
        let lesson = Lesson { strategy: strategy.to_owned(), ..Lesson::classify(labels) };
        let model = model.0.clone();
        let tuner = match state {
            Some(state) => Tuner::from_state(model, lesson, state),
            None => Tuner::new(model, lesson),
        };
        tuner.map(Self).map_err(said)
    }

    /// Learns `texts`, each with the label of the same place, `epochs` times. `progress(done, of, loss)`, if there is
    /// one, is called after each step; `false` cancels. Returns the mean loss of the last epoch.
    ///
    /// # Errors
    /// As [`Tuner::learn_watched`].
    pub fn learn(
        &self,
        texts: Vec<String>,
        labels: Vec<String>,
        epochs: u32,
        progress: Option<Function>,
    ) -> Result<f32, String> {
        if texts.len() != labels.len() {
            return Err(format!("labels: {} for {} texts", labels.len(), texts.len()));
        }
        let example = |(text, label): (String, String)| Example::new(&text, Truth::Label { label });
        let examples: Vec<_> = texts.into_iter().zip(labels).map(example).collect();
        // A callback that throws or returns nothing lets the round go on.
        let watch = |done: u32, of: u32, loss: f32| {
            let said =
                progress.as_ref().map(|f| f.call3(&JsValue::NULL, &done.into(), &of.into(), &loss.into()));
            said.and_then(Result::ok).and_then(|said| said.as_bool()).unwrap_or(true)
        };
        Ok(self.0.round(&examples, epochs, &watch).map_err(said)?.loss)
    }

    /// The `.adapter` file of what was learned.
    pub fn adapter(&self) -> Vec<u8> {
        self.0.adapter()
    }

    /// All that is needed to go on from here.
    pub fn state(&self) -> Vec<u8> {
        self.0.state()
    }
}

fn said(error: ElectretError) -> String {
    error.to_string()
}
