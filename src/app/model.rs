//! A model that owns its memory.

use std::fs::{File, Metadata};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use self_cell::self_cell;

use super::ElectretError;
use super::spans::{Span, Spans};
use super::tuner::open_store;
use crate::tasks::Pooling;
use crate::text::Input;
use crate::tune::store::{Place, Store};
use crate::weights::{AlignedBytes, map};
use crate::{Adapter, Error, HeadKind, Plan, Session, kernels};

type View<'m> = crate::Model<'m>;

self_cell!(
    struct Opened {
        owner: Bytes,
        #[covariant]
        dependent: View,
    }
);

self_cell!(
    struct Learned {
        owner: AlignedBytes,
        #[covariant]
        dependent: Adapter,
    }
);

/// Where a model file's bytes are.
enum Bytes {
    Owned(AlignedBytes),
    Mapped { map: memmap2::Mmap, file: File, path: PathBuf, opened: Metadata },
}

impl Bytes {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Owned(bytes) => bytes.as_slice(),
            Self::Mapped { map, .. } => map,
        }
    }

    /// Whether the file is what it was when it was opened; asked before and after each answer, which reads its pages
    /// in place.
    fn check(&self) -> Result<(), ElectretError> {
        let Self::Mapped { file, path, opened, .. } = self else { return Ok(()) };
        let now = file.metadata().map_err(|error| ElectretError::file(path, &error))?;
        let same = now.len() == opened.len() && now.modified().ok() == opened.modified().ok();
        if same { Ok(()) } else { Err(ElectretError::Changed { path: path.display().to_string() }) }
    }
}

/// What is shared by all handles of one file.
struct Base {
    opened: Opened,
    /// What the file is without an adapter, read while it was as it was opened.
    description: Description,
    /// Arenas that no answer is using.
    arenas: Mutex<Vec<AlignedBytes>>,
}

/// An opened model, perhaps with something learned on top of it. It may be asked from any number of threads.
#[cfg_attr(feature = "uniffi", derive(uniffi::Object))]
pub struct Model {
    base: Arc<Base>,
    learned: Option<Arc<Learned>>,
    truncate: bool,
}

/// What a model is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "uniffi", derive(uniffi::Record))]
pub struct Description {
    /// Its name.
    pub name: String,
    /// Its licence.
    pub licence: String,
    /// Bytes of the file.
    pub bytes: u64,
    /// Longest sequence in tokens, special tokens included.
    pub tokens: u32,
    /// Bytes of the memory that one answer works in.
    pub arena_bytes: u64,
    /// Values of an embedding.
    pub hidden_size: u32,
    /// What it answers: `detect`, `fill-mask`, `classify`, `regress`, `tag`, `answer`.
    pub heads: Vec<String>,
    /// Labels of its classes or tags, the adapter's before its own.
    pub labels: Vec<String>,
    /// Which instructions it runs on.
    pub kernels: String,
}

/// A token and how likely it is to be a replacement.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "uniffi", derive(uniffi::Record))]
pub struct Detection {
    /// The token.
    pub text: String,
    /// Where it stands.
    pub span: Span,
    /// Probability that it was replaced.
    pub replaced: f32,
}

/// A label and its probability.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "uniffi", derive(uniffi::Record))]
pub struct Score {
    /// The label.
    pub label: String,
    /// Its probability.
    pub probability: f32,
}

/// A word and its label.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "uniffi", derive(uniffi::Record))]
pub struct Tag {
    /// The word.
    pub text: String,
    /// Where it stands.
    pub span: Span,
    /// Its likeliest label.
    pub tag: String,
    /// That label's probability.
    pub score: f32,
}

/// A part of a context that answers a question.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "uniffi", derive(uniffi::Record))]
pub struct Answer {
    /// The answer.
    pub text: String,
    /// Where it stands in the context.
    pub span: Span,
    /// Sum of the logits of its first and last token.
    pub score: f32,
}

#[cfg_attr(feature = "uniffi", uniffi::export)]
impl Model {
    /// Maps an `.electret` file. Whoever replaces the file meanwhile must do so by renaming; a file that was written
    /// to in place is refused from then on ([`ElectretError::Changed`]).
    ///
    /// # Errors
    /// [`ElectretError::File`], [`ElectretError::Model`].
    #[cfg_attr(feature = "uniffi", uniffi::constructor)]
    pub fn open(path: &str) -> Result<Arc<Self>, ElectretError> {
        let path = Path::new(path);
        let failed = |error| ElectretError::file(path, &error);
        let file = File::open(path).map_err(failed)?;
        let opened = file.metadata().map_err(failed)?;
        if !opened.is_file() {
            return Err(failed(std::io::Error::other("not a file")));
        }
        if opened.len() == 0 {
            return Err(Error::NotAnElectretFile.into());
        }
        let map = map(&file).map_err(failed)?;
        Self::of(Bytes::Mapped { map, file, path: path.to_owned(), opened })
    }

    /// Opens a copy of the bytes of an `.electret` file.
    ///
    /// # Errors
    /// [`ElectretError::Model`].
    #[cfg_attr(feature = "uniffi", uniffi::constructor)]
    pub fn from_bytes(bytes: &[u8]) -> Result<Arc<Self>, ElectretError> {
        Self::of(Bytes::Owned(AlignedBytes::copy_of(bytes)))
    }

    /// The same model with what was learned on top of it; both can be used side by side, and share their memory.
    ///
    /// # Errors
    /// [`ElectretError::Adapter`] if the bytes are no adapter of this model.
    pub fn with_adapter(&self, adapter: Vec<u8>) -> Result<Arc<Self>, ElectretError> {
        self.with_learned(AlignedBytes::copy_of(&adapter))
    }

    /// The same with the adapter that is active in a tuner's folder; `None` if nothing was learned there yet.
    ///
    /// # Errors
    /// [`ElectretError::File`], [`ElectretError::Store`], [`ElectretError::Adapter`].
    pub fn with_adapter_of(&self, folder: &str) -> Result<Option<Arc<Self>>, ElectretError> {
        let path = Path::new(folder);
        if !path.exists() {
            return Ok(None);
        }
        let mut store = open_store(path)?;
        let Some(number) = store.active()? else { return Ok(None) };
        let mut file = Vec::new();
        let there = store.get(Place::Adapter(number), &mut |piece| {
            file.extend_from_slice(piece);
            Ok(())
        })?;
        if !there {
            return Err(Error::StoreDamaged.into());
        }
        self.with_adapter(file).map(Some)
    }

    /// The same model for texts of any length: what does not fit loses its end, where it would else be refused.
    pub fn truncating(&self) -> Arc<Self> {
        Arc::new(Self { base: self.base.clone(), learned: self.learned.clone(), truncate: true })
    }

    /// What the model is.
    pub fn describe(&self) -> Description {
        let mut description = self.base.description.clone();
        if let Some(adapter) = self.adapter() {
            let own = std::mem::take(&mut description.heads);
            let answers =
                |kind: &HeadKind| *kind == adapter.kind || own.iter().any(|name| name == kind.name());
            description.heads = names(HeadKind::ALL.into_iter().filter(answers));
            description.labels = adapter.labels.iter().map(str::to_owned).collect();
        }
        description
    }

    /// How likely each token of the text is to be a replacement, in order.
    ///
    /// # Errors
    /// [`ElectretError::Text`] for an empty text, or one of more tokens than [`Description::tokens`]
    /// ([`Model::truncating`]); [`ElectretError::NoSuchHead`], [`ElectretError::Changed`].
    pub fn detect(&self, text: &str) -> Result<Vec<Detection>, ElectretError> {
        self.ask(|session| {
            let mut spans = Spans::new(text);
            let found = session.detect(self.input(text, None))?;
            let detections = found.map(|found| {
                let (span, text) = spans.span(found.token.start, found.token.end);
                Detection { text, span, replaced: found.replaced }
            });
            Ok(detections.collect())
        })
    }

    /// The labels of a text, the likeliest first.
    ///
    /// # Errors
    /// As [`Model::detect`].
    pub fn classify(&self, text: &str) -> Result<Vec<Score>, ElectretError> {
        self.scores(self.input(text, None))
    }

    /// The labels of a pair of texts, the likeliest first.
    ///
    /// # Errors
    /// As [`Model::detect`].
    pub fn classify_pair(&self, text: &str, pair: &str) -> Result<Vec<Score>, ElectretError> {
        self.scores(self.input(text, Some(pair)))
    }

    /// The value of a text.
    ///
    /// # Errors
    /// As [`Model::detect`].
    pub fn value(&self, text: &str) -> Result<f32, ElectretError> {
        self.ask(|session| Ok(session.regress(self.input(text, None))?))
    }

    /// The value of a pair of texts.
    ///
    /// # Errors
    /// As [`Model::detect`].
    pub fn value_pair(&self, text: &str, pair: &str) -> Result<f32, ElectretError> {
        self.ask(|session| Ok(session.regress(self.input(text, Some(pair)))?))
    }

    /// The likeliest label of each word.
    ///
    /// # Errors
    /// As [`Model::detect`].
    pub fn tag(&self, text: &str) -> Result<Vec<Tag>, ElectretError> {
        self.ask(|session| {
            let labels: Vec<&str> = session.label_names(HeadKind::Tag)?.collect();
            let mut spans = Spans::new(text);
            let words = session.tag(self.input(text, None))?.map(|word| {
                let (span, text) = spans.span(word.start, word.end);
                let tag = labels.get(word.label).copied().unwrap_or_default().to_owned();
                Tag { text, span, tag, score: word.score }
            });
            Ok(words.collect())
        })
    }

    /// The part of a context that answers a question best. A context that does not fit is read in windows ([`Session::answer`]).
    ///
    /// # Errors
    /// As [`Model::detect`].
    pub fn answer(&self, question: &str, context: &str) -> Result<Answer, ElectretError> {
        self.ask(|session| {
            let found = session.answer(question, context)?;
            let (span, text) = Spans::new(context).span(found.start as u32, found.end as u32);
            Ok(Answer { text, span, score: found.score })
        })
    }

    /// The text as a vector of [`Description::hidden_size`] values and length 1: the mean of its tokens.
    ///
    /// # Errors
    /// As [`Model::detect`].
    pub fn embed(&self, text: &str) -> Result<Vec<f32>, ElectretError> {
        self.ask(|session| Ok(session.embed(self.input(text, None), Pooling::Mean)?.to_vec()))
    }

    /// Whether the model gives the bits here that it gave where it was made.
    ///
    /// # Errors
    /// [`ElectretError::Changed`].
    pub fn self_test(&self) -> Result<bool, ElectretError> {
        self.ask(|session| Ok(session.self_test()?.1))
    }
}

impl core::fmt::Debug for Model {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Model({})", self.base.description.name)
    }
}

impl Model {
    fn of(bytes: Bytes) -> Result<Arc<Self>, ElectretError> {
        let opened = Opened::try_new(bytes, |bytes| View::open(bytes.as_slice()))?;
        let description = description(opened.borrow_dependent());
        Ok(Arc::new(Self {
            base: Arc::new(Base { opened, description, arenas: Mutex::default() }),
            learned: None,
            truncate: false,
        }))
    }

    fn with_learned(&self, file: AlignedBytes) -> Result<Arc<Self>, ElectretError> {
        self.check()?;
        let learned = Learned::try_new(file, |file| Adapter::open(file.as_slice(), &self.view()))
            .map_err(ElectretError::adapter)?;
        Ok(Arc::new(Self {
            base: self.base.clone(),
            learned: Some(Arc::new(learned)),
            truncate: self.truncate,
        }))
    }

    fn input<'t>(&self, text: &'t str, pair: Option<&'t str>) -> Input<'t> {
        Input { text, pair, truncate: self.truncate }
    }

    fn scores(&self, input: Input<'_>) -> Result<Vec<Score>, ElectretError> {
        self.ask(|session| {
            let labels = session.label_names(HeadKind::Classify)?;
            let scores = labels.zip(session.classify(input)?);
            let score = |(label, &probability): (&str, _)| Score { label: label.to_owned(), probability };
            let mut scores: Vec<Score> = scores.map(score).collect();
            scores.sort_by(|a, b| b.probability.total_cmp(&a.probability));
            Ok(scores)
        })
    }

    /// The model, in place.
    pub(super) fn view(&self) -> View<'_> {
        *self.base.opened.borrow_dependent()
    }

    /// Whether its file is what it was.
    pub(super) fn check(&self) -> Result<(), ElectretError> {
        self.base.opened.borrow_owner().check()
    }

    fn adapter(&self) -> Option<Adapter<'_>> {
        self.learned.as_ref().map(|learned| *learned.borrow_dependent())
    }

    /// Hands over a session in an arena of its own.
    pub(crate) fn ask<R, E: From<Error> + From<ElectretError>>(
        &self,
        answer: impl FnOnce(&mut Session<'_, '_>) -> Result<R, E>,
    ) -> Result<R, E> {
        self.check()?;
        let arenas = || self.base.arenas.lock().unwrap_or_else(PoisonError::into_inner);
        let plan = plan(&self.view());
        let free = arenas().pop();
        let mut arena = free.unwrap_or_else(|| AlignedBytes::zeroed(plan.bytes()));
        let session = Session::with(self.view(), arena.as_mut_slice(), plan, kernels::best());
        let session = session.and_then(|session| session.with_adapter(self.adapter()));
        let answered = session.map_err(E::from).and_then(|mut session| answer(&mut session));
        arenas().push(arena);
        self.check()?;
        answered
    }
}

/// What answers need: sequences as long as the model takes.
fn plan(model: &View<'_>) -> Plan {
    Plan::inference(model.config(), model.config().max_position_embeddings).for_model(model)
}

/// What a model is by itself.
fn description(model: &View<'_>) -> Description {
    let provenance = &model.root().provenance;
    Description {
        name: provenance.name.as_str().to_owned(),
        licence: provenance.licence.as_str().to_owned(),
        bytes: model.bytes() as u64,
        tokens: model.config().max_position_embeddings as u32,
        arena_bytes: plan(model).bytes() as u64,
        hidden_size: model.config().hidden_size as u32,
        heads: names(HeadKind::ALL.into_iter().filter(|&kind| model.head(kind).is_ok())),
        labels: model.label_names().map(str::to_owned).collect(),
        kernels: kernels::best().name.to_owned(),
    }
}

fn names(kinds: impl Iterator<Item = HeadKind>) -> Vec<String> {
    kinds.map(|kind| kind.name().to_owned()).collect()
}
