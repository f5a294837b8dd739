/* electret: ELECTRA that stays on the device.
 *
 * An app takes electret_model and electret_tuner, which own their memory. Firmware takes electret_session and
 * electret_learner, which live in memory that the caller provides and need no end. Both give the same bits.
 *
 * - Every function returns a status and writes what was wrong into `error`, unless that is NULL. On an error nothing
 *   else is written, but where an answer has more values than there is room for, then `count` is how many, and those
 *   that there is room for may be there; and but for the memory that a session or a learner was to begin in.
 * - A text is UTF-8, given by its first byte and its length, which may be ELECTRET_NUL_TERMINATED. Offsets are bytes.
 * - Other pointers are refused if they are NULL, unless a function says otherwise.
 * - Models and tuners are numbers: one that was destroyed is refused. They may be used from many threads at once; a
 *   session or learner by one thread at a time.
 *
 * Written from src/ffi by `ELECTRET_BLESS=1 cargo test --release --manifest-path boards/c/Cargo.toml`. */

#ifndef ELECTRET_H
#define ELECTRET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The length of a text that ends at its first NUL. */
#define ELECTRET_NUL_TERMINATED SIZE_MAX

// Bytes of a message, the last one NUL.
#define ELECTRET_MESSAGE_BYTES 256



// What became of a call.
typedef enum {
  // Done.
  ELECTRET_STATUS_OK = 0,
  // A file or folder cannot be read or written.
  ELECTRET_STATUS_FILE = 1,
  // A model file was written to while it was open.
  ELECTRET_STATUS_CHANGED = 2,
  // The model file is unusable.
  ELECTRET_STATUS_MODEL = 3,
  // A text is empty, too long, or not UTF-8.
  ELECTRET_STATUS_TEXT = 4,
  // The model has no such head.
  ELECTRET_STATUS_NO_SUCH_HEAD = 5,
  // The adapter or the learner's state is unusable, or belongs to another model.
  ELECTRET_STATUS_ADAPTER = 6,
  // What is to be learned, or how, contradicts itself or the model.
  ELECTRET_STATUS_LESSON = 7,
  // An argument has no meaning, or is NULL.
  ELECTRET_STATUS_ARGUMENT = 8,
  // A disk failed or is full.
  ELECTRET_STATUS_STORE = 9,
  // The tuner is learning already.
  ELECTRET_STATUS_BUSY = 10,
  // The round was cancelled.
  ELECTRET_STATUS_CANCELLED = 11,
  // The memory is too small or misaligned.
  ELECTRET_STATUS_MEMORY = 12,
  // The model or tuner was destroyed, or never was.
  ELECTRET_STATUS_HANDLE = 13,
  // The answer has more values than there is room for; `count` says how many.
  ELECTRET_STATUS_ROOM = 14,
} electret_status;

// An answer goes through one of the heads.
typedef enum {
  // Which of the labels has a text?
  ELECTRET_KIND_CLASSIFY = 0,
  // What value has a text?
  ELECTRET_KIND_REGRESS = 1,
  // Which of the labels has each word?
  ELECTRET_KIND_TAG = 2,
  // Where in a context does the answer stand?
  ELECTRET_KIND_ANSWER = 3,
  // Which words were replaced?
  ELECTRET_KIND_DETECT = 4,
} electret_kind;

// A model that learns in the caller's memory. It needs no end.
typedef struct electret_learner electret_learner;

// A model at work in the caller's memory. It needs no end: the memory may be used for something else when no
// function will be called with it any more.
typedef struct electret_session electret_session;

// What was wrong, in a sentence that a user can act on.
typedef struct {
  // Which kind.
  electret_status status;
  // UTF-8, ended by NUL; a longer message loses its end.
  char message[ELECTRET_MESSAGE_BYTES];
} electret_error;

// A token and how likely it is to be a replacement.
typedef struct {
  // First byte in the text.
  uint32_t start;
  // One past the last byte.
  uint32_t end;
  // Probability that it was replaced.
  float replaced;
} electret_detection;

// A word and its label.
typedef struct {
  // First byte in the text.
  uint32_t start;
  // One past the last byte.
  uint32_t end;
  // Number of its likeliest label.
  uint32_t label;
  // That label's probability.
  float score;
} electret_tag;

// A part of a context that answers a question.
typedef struct {
  // First byte in the context.
  uint32_t start;
  // One past the last byte.
  uint32_t end;
  // Sum of the logits of its first and last token.
  float score;
} electret_answer;

// What is to be learned, and how. Zero or NULL stands for a default where one is named.
typedef struct {
  // Which head learns: one of `electret_kind`.
  uint32_t kind;
  // Names of the classes or tags, each ended by NUL; NULL for the other kinds.
  const char *const *labels;
  // How many they are.
  size_t label_count;
  // What is trained, as for `electret tune`, ended by NUL; NULL for `head+lora:8:4`.
  const char *strategy;
  // Longest sequence in tokens; what is longer loses its end. 0 for 128, or the model's longest.
  uint32_t tokens;
  // Examples a step; 0 for 16.
  uint32_t batch_size;
  // Largest learning rate; 0 for 0.001.
  float learning_rate;
  // Seed of the order and of what starts at random.
  uint64_t seed;
} electret_lesson;

// A text, perhaps a pair, and what it teaches: that one of the last fields which the lesson's kind asks for.
typedef struct {
  // The text; a question.
  const char *text;
  // Its bytes.
  size_t text_bytes;
  // The second text, or the context of a question; NULL if there is none.
  const char *pair;
  // Its bytes.
  size_t pair_bytes;
  // Numbers of labels: one for classes, one a word for tags, 0 or 1 a word for detection. Words are what whitespace
  // separates.
  const uint16_t *labels;
  // How many they are.
  size_t label_count;
  // For regression: the value.
  float value;
  // For answers: the first byte in the context.
  uint32_t start;
  // One past the last byte.
  uint32_t end;
} electret_example;

// An opened model, perhaps with something learned on top of it. 0 is none.
typedef struct {
  // Its number.
  uint64_t number;
} electret_model;

// A learner on top of a model. 0 is none.
typedef struct {
  // Its number.
  uint64_t number;
} electret_tuner;

// Is called after each step of a round, on the thread that learns: `done` of `of` steps are taken, with the mean loss of
// the last one's examples. `false` cancels the round.
typedef bool (*electret_progress)(void *user, uint32_t done, uint32_t of, float loss);

// What a round did.
typedef struct {
  // Mean loss of the last epoch, in nats.
  float loss;
  // Steps of the round.
  uint32_t steps;
  // Examples of an epoch that taught nothing: no token, or an answer that was cut off.
  uint32_t left_out;
} electret_round;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Bytes of memory that a session for sequences of up to `tokens` tokens needs, at a multiple of 64.
electret_status electret_session_bytes(const uint8_t *model,
                                       size_t model_bytes,
                                       uint32_t tokens,
                                       size_t *bytes,
                                       electret_error *error);

// Opens a model in place and puts a session for sequences of up to `tokens` tokens into `memory`. The model's bytes
// start at a multiple of 64, in flash or in memory, and stay. What was in `memory` before is gone, also where this is
// refused.
electret_status electret_session_begin(uint8_t *memory,
                                       size_t memory_bytes,
                                       const uint8_t *model,
                                       size_t model_bytes,
                                       uint32_t tokens,
                                       electret_session **session,
                                       electret_error *error);

// Answers with an adapter of the model from now on; with NULL as the model was. The adapter's bytes start at a multiple
// of 4 and stay.
electret_status electret_session_use(electret_session *session,
                                     const uint8_t *adapter,
                                     size_t adapter_bytes,
                                     electret_error *error);

// How likely each token of a text is to be a replacement, in order. Of a text that does not fit, `truncate` drops the
// end; else it is refused.
electret_status electret_session_detect(electret_session *session,
                                        const char *text,
                                        size_t text_bytes,
                                        bool truncate,
                                        electret_detection *found,
                                        size_t capacity,
                                        size_t *count,
                                        electret_error *error);

// The probability of each label of a text, or of a pair of texts unless `pair` is NULL.
electret_status electret_session_classify(electret_session *session,
                                          const char *text,
                                          size_t text_bytes,
                                          const char *pair,
                                          size_t pair_bytes,
                                          bool truncate,
                                          float *probabilities,
                                          size_t capacity,
                                          size_t *count,
                                          electret_error *error);

// The value of a text, or of a pair of texts unless `pair` is NULL.
electret_status electret_session_value(electret_session *session,
                                       const char *text,
                                       size_t text_bytes,
                                       const char *pair,
                                       size_t pair_bytes,
                                       bool truncate,
                                       float *value,
                                       electret_error *error);

// The likeliest label of each word.
electret_status electret_session_tag(electret_session *session,
                                     const char *text,
                                     size_t text_bytes,
                                     bool truncate,
                                     electret_tag *words,
                                     size_t capacity,
                                     size_t *count,
                                     electret_error *error);

// The part of a context that answers a question best. A context that does not fit is read in windows, each from the middle of the
// one before.
electret_status electret_session_answer(electret_session *session,
                                        const char *question,
                                        size_t question_bytes,
                                        const char *context,
                                        size_t context_bytes,
                                        electret_answer *found,
                                        electret_error *error);

// The text as a vector of length 1, as many values as the model's hidden size.
electret_status electret_session_embed(electret_session *session,
                                       const char *text,
                                       size_t text_bytes,
                                       bool truncate,
                                       float *values,
                                       size_t capacity,
                                       size_t *count,
                                       electret_error *error);

// The name of class or tag `number`, in UTF-8 without a NUL.
electret_status electret_session_label(electret_session *session,
                                       size_t number,
                                       uint8_t *name,
                                       size_t capacity,
                                       size_t *count,
                                       electret_error *error);

// Whether the model gives the bits here that it gave where it was made.
electret_status electret_session_self_test(electret_session *session,
                                           bool *passed,
                                           electret_error *error);

// Bytes of memory that a learner needs, at a multiple of 64.
electret_status electret_learner_bytes(const uint8_t *model,
                                       size_t model_bytes,
                                       const electret_lesson *lesson,
                                       size_t *bytes,
                                       electret_error *error);

// Opens a model in place and puts a learner into `memory`. The model's bytes start at a multiple of 64 and stay; so do
// the names of the lesson's labels. The learning rate stays what it is. What was in `memory` before is gone, also where
// this is refused.
electret_status electret_learner_begin(uint8_t *memory,
                                       size_t memory_bytes,
                                       const uint8_t *model,
                                       size_t model_bytes,
                                       const electret_lesson *lesson,
                                       electret_learner **learner,
                                       electret_error *error);

// Learns from one example; `loss` in nats, unless NULL. The parameters move at the next step. What is longer than the
// lesson's tokens loses its end.
electret_status electret_learner_learn(electret_learner *learner,
                                       const electret_example *example,
                                       float *loss,
                                       electret_error *error);

// Moves the parameters by the mean gradient of the examples since the last step. `taken` says whether they moved, unless
// NULL: not if there was nothing to learn from, or the gradient was not finite.
electret_status electret_learner_step(electret_learner *learner,
                                      bool *taken,
                                      electret_error *error);

// The `.adapter` file of what was learned so far, for `electret_session_use`; with capacity 0 only its length.
electret_status electret_learner_adapter(electret_learner *learner,
                                         uint8_t *bytes,
                                         size_t capacity,
                                         size_t *count,
                                         electret_error *error);

// The learner's state as of the last step, for `electret_learner_restore`; with capacity 0 only its length.
electret_status electret_learner_state(electret_learner *learner,
                                       uint8_t *bytes,
                                       size_t capacity,
                                       size_t *count,
                                       electret_error *error);

// Goes on from a state, to the same bits. One of another lesson or model is refused, and nothing is changed.
electret_status electret_learner_restore(electret_learner *learner,
                                         const uint8_t *state,
                                         size_t state_bytes,
                                         electret_error *error);

// Maps an `.electret` file, whose name ends with a NUL. Whoever replaces the file must do so by renaming.
electret_status electret_model_open(const char *path,
                                    electret_model *model,
                                    electret_error *error);

// Opens a copy of the bytes of an `.electret` file.
electret_status electret_model_from_bytes(const uint8_t *bytes,
                                          size_t length,
                                          electret_model *model,
                                          electret_error *error);

// Another handle of the same model, with the adapter whose bytes are given on top of it.
electret_status electret_model_with_adapter(electret_model model,
                                            const uint8_t *adapter,
                                            size_t adapter_bytes,
                                            electret_model *adapted,
                                            electret_error *error);

// Another handle of the same model, with what a tuner saved in a folder on top of it; number 0 if nothing was learned
// there yet.
electret_status electret_model_with_adapter_of(electret_model model,
                                               const char *folder,
                                               electret_model *adapted,
                                               electret_error *error);

// Forgets the model; calls under way finish. A number that is forgotten already, or 0, is no mistake.
void electret_model_destroy(electret_model model);

// How likely each token of a text is to be a replacement, in order. Of a text that does not fit, `truncate` drops the
// end; else it is refused.
electret_status electret_model_detect(electret_model model,
                                      const char *text,
                                      size_t text_bytes,
                                      bool truncate,
                                      electret_detection *found,
                                      size_t capacity,
                                      size_t *count,
                                      electret_error *error);

// The probability of each label of a text, or of a pair of texts unless `pair` is NULL.
electret_status electret_model_classify(electret_model model,
                                        const char *text,
                                        size_t text_bytes,
                                        const char *pair,
                                        size_t pair_bytes,
                                        bool truncate,
                                        float *probabilities,
                                        size_t capacity,
                                        size_t *count,
                                        electret_error *error);

// The value of a text, or of a pair of texts unless `pair` is NULL.
electret_status electret_model_value(electret_model model,
                                     const char *text,
                                     size_t text_bytes,
                                     const char *pair,
                                     size_t pair_bytes,
                                     bool truncate,
                                     float *value,
                                     electret_error *error);

// The likeliest label of each word.
electret_status electret_model_tag(electret_model model,
                                   const char *text,
                                   size_t text_bytes,
                                   bool truncate,
                                   electret_tag *words,
                                   size_t capacity,
                                   size_t *count,
                                   electret_error *error);

// The part of a context that answers a question best. A context that does not fit is read in windows, each from the middle of the
// one before.
electret_status electret_model_answer(electret_model model,
                                      const char *question,
                                      size_t question_bytes,
                                      const char *context,
                                      size_t context_bytes,
                                      electret_answer *found,
                                      electret_error *error);

// The text as a vector of length 1, as many values as the model's hidden size.
electret_status electret_model_embed(electret_model model,
                                     const char *text,
                                     size_t text_bytes,
                                     bool truncate,
                                     float *values,
                                     size_t capacity,
                                     size_t *count,
                                     electret_error *error);

// The name of class or tag `number`, in UTF-8 without a NUL.
electret_status electret_model_label(electret_model model,
                                     size_t number,
                                     uint8_t *name,
                                     size_t capacity,
                                     size_t *count,
                                     electret_error *error);

// Whether the model gives the bits here that it gave where it was made.
electret_status electret_model_self_test(electret_model model, bool *passed, electret_error *error);

// A tuner that goes on from what `folder` holds of the same lesson, or begins anew; with NULL one that forgets when it is
// destroyed. The lesson is copied. The learning rate rises during a tenth of a round and falls to 0 at its end.
electret_status electret_tuner_open(electret_model model,
                                    const electret_lesson *lesson,
                                    const char *folder,
                                    electret_tuner *tuner,
                                    electret_error *error);

// Learns every example `epochs` times and returns when that is done. `progress` may be NULL; it gets `user` as it is, and
// may call every function but `electret_tuner_learn` of the same tuner, which is busy. After an error, and when it was
// cancelled, all is as it was before the round. `round` may be NULL.
electret_status electret_tuner_learn(electret_tuner tuner,
                                     const electret_example *examples,
                                     size_t example_count,
                                     uint32_t epochs,
                                     electret_progress progress,
                                     void *user,
                                     electret_round *round,
                                     electret_error *error);

// Cancels the round under way, if there is one, after its next step. To be called from another thread.
electret_status electret_tuner_cancel(electret_tuner tuner,
                                      electret_error *error);

// The `.adapter` file of what was learned in all finished rounds; with capacity 0 only its length.
electret_status electret_tuner_adapter(electret_tuner tuner,
                                       uint8_t *bytes,
                                       size_t capacity,
                                       size_t *count,
                                       electret_error *error);

// Keeps what was learned in the tuner's folder. Whatever happens meanwhile, the folder holds the old adapter or the new
// one, whole.
electret_status electret_tuner_save(electret_tuner tuner,
                                    electret_error *error);

// Forgets the tuner, and all that was not saved; a round under way finishes. A number that is forgotten already, or 0, is
// no mistake.
void electret_tuner_destroy(electret_tuner tuner);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* ELECTRET_H */
