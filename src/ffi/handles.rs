//! Models and tuners by number. No number is given twice, so that one which was destroyed is known for good.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::refusal::Refusal;
use crate::app;

enum Owned {
    Model(Arc<app::Model>),
    Tuner(Arc<app::Tuner>),
}

struct Handles {
    last: u64,
    owned: BTreeMap<u64, Owned>,
}

static HANDLES: RwLock<Handles> = RwLock::new(Handles { last: 0, owned: BTreeMap::new() });

fn keep(owned: Owned) -> u64 {
    let mut handles = HANDLES.write().unwrap_or_else(PoisonError::into_inner);
    handles.last += 1;
    let number = handles.last;
    handles.owned.insert(number, owned);
    number
}

pub fn keep_model(model: Arc<app::Model>) -> u64 {
    keep(Owned::Model(model))
}

pub fn keep_tuner(tuner: Arc<app::Tuner>) -> u64 {
    keep(Owned::Tuner(tuner))
}

pub fn model(number: u64) -> Result<Arc<app::Model>, Refusal> {
    let handles = HANDLES.read().unwrap_or_else(PoisonError::into_inner);
    match handles.owned.get(&number) {
        Some(Owned::Model(model)) => Ok(model.clone()),
        _ => Err(Refusal::Destroyed("model")),
    }
}

pub fn tuner(number: u64) -> Result<Arc<app::Tuner>, Refusal> {
    let handles = HANDLES.read().unwrap_or_else(PoisonError::into_inner);
    match handles.owned.get(&number) {
        Some(Owned::Tuner(tuner)) => Ok(tuner.clone()),
        _ => Err(Refusal::Destroyed("tuner")),
    }
}

/// Forgets a model or tuner; calls under way finish with it.
pub fn destroy(number: u64) {
    let gone = HANDLES.write().unwrap_or_else(PoisonError::into_inner).owned.remove(&number);
    drop(gone);
}
