/* Detects, learns and classifies by both ways of the C ABI, and prints every bit: `agree MODEL TRAIN.tsv FOLDER`. The same
 * lines come from agree.py, Agree.kt and agree.sh, the last of them from the electret command. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "electret.h"

enum { EXAMPLES = 512, TOKENS = 128, LINE = 1024 };

static const char *TEXT = "He opened the door and walked table the room.";
static const char *QUESTION = "free prize! call now";
static const char *LABELS[] = {"ham", "spam"};

static electret_error error;

static void must(electret_status status) {
  if (status != ELECTRET_STATUS_OK) {
    printf("refused: %s\n", error.message);
    exit(1);
  }
}

static unsigned bits(float value) {
  unsigned bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

static void show_detection(const electret_detection *found, size_t count) {
  for (size_t i = 0; i < count; i++) printf("detect %u %u %08x\n", found[i].start, found[i].end, bits(found[i].replaced));
}

static void show_classes(const float *probabilities) {
  for (size_t i = 0; i < 2; i++) printf("classify %s %08x\n", LABELS[i], bits(probabilities[i]));
}

/* The caller's memory, at a multiple of 64. */
static void *memory(size_t bytes) { return aligned_alloc(64, (bytes + 63) / 64 * 64); }

static unsigned char *whole_file(const char *path, size_t *length) {
  FILE *file = fopen(path, "rb");
  if (!file || fseek(file, 0, SEEK_END)) exit(2);
  *length = (size_t)ftell(file);
  rewind(file);
  unsigned char *bytes = memory(*length);
  if (fread(bytes, 1, *length, file) != *length) exit(2);
  fclose(file);
  return bytes;
}

static size_t read_examples(const char *path, electret_example *examples) {
  static const uint16_t NUMBERS[] = {0, 1};
  static char lines[EXAMPLES][LINE];
  FILE *file = fopen(path, "r");
  if (!file || !fgets(lines[0], LINE, file)) exit(2);
  size_t count = 0;
  while (count < EXAMPLES && fgets(lines[count], LINE, file)) {
    char *text = strchr(lines[count], '\t');
    *text++ = 0;
    text[strcspn(text, "\n")] = 0;
    examples[count] = (electret_example){
        .text = text, .text_bytes = strlen(text), .labels = &NUMBERS[strcmp(lines[count], "spam") == 0], .label_count = 1};
    count++;
  }
  fclose(file);
  return count;
}

static bool progress(void *user, uint32_t done, uint32_t of, float loss) {
  *(uint32_t *)user = done;
  return done <= of && loss >= 0;
}

int main(int count, char **arguments) {
  if (count != 4) return 2;
  electret_detection found[TOKENS];
  size_t tokens;
  float probabilities[2];

  /* With memory of its own. */
  electret_model model, mine;
  must(electret_model_open(arguments[1], &model, &error));
  must(electret_model_detect(model, TEXT, strlen(TEXT), false, found, TOKENS, &tokens, &error));
  show_detection(found, tokens);

  static electret_example examples[EXAMPLES];
  size_t taught = read_examples(arguments[2], examples);
  electret_lesson lesson = {.kind = ELECTRET_KIND_CLASSIFY, .labels = LABELS, .label_count = 2};
  electret_tuner tuner;
  electret_round round;
  uint32_t steps = 0;
  must(electret_tuner_open(model, &lesson, arguments[3], &tuner, &error));
  must(electret_tuner_learn(tuner, examples, taught, 2, progress, &steps, &round, &error));
  if (steps != round.steps) return 3;
  must(electret_tuner_save(tuner, &error));
  must(electret_model_with_adapter_of(model, arguments[3], &mine, &error));
  must(electret_model_classify(mine, QUESTION, ELECTRET_NUL_TERMINATED, NULL, 0, false, probabilities, 2, &tokens, &error));
  show_classes(probabilities);

  size_t adapter_bytes;
  electret_tuner_adapter(tuner, NULL, 0, &adapter_bytes, &error);
  unsigned char *adapter = memory(adapter_bytes);
  must(electret_tuner_adapter(tuner, adapter, adapter_bytes, &adapter_bytes, &error));
  electret_tuner_destroy(tuner);
  electret_model_destroy(mine);
  electret_model_destroy(model);
  if (electret_model_detect(model, TEXT, strlen(TEXT), false, found, TOKENS, &tokens, &error) != ELECTRET_STATUS_HANDLE) return 4;

  /* In the caller's memory. */
  size_t file_bytes, needed;
  unsigned char *file = whole_file(arguments[1], &file_bytes);
  must(electret_session_bytes(file, file_bytes, 64, &needed, &error));
  void *room = memory(needed);
  electret_session *session;
  must(electret_session_begin(room, needed, file, file_bytes, 64, &session, &error));
  must(electret_session_detect(session, TEXT, strlen(TEXT), false, found, TOKENS, &tokens, &error));
  show_detection(found, tokens);
  must(electret_session_use(session, adapter, adapter_bytes, &error));
  must(electret_session_classify(session, QUESTION, strlen(QUESTION), NULL, 0, false, probabilities, 2, &tokens, &error));
  show_classes(probabilities);

  /* A learner there goes on from its own state to the same bits. */
  lesson.tokens = 32;
  must(electret_learner_bytes(file, file_bytes, &lesson, &needed, &error));
  void *rooms[] = {memory(needed), memory(needed)};
  electret_learner *learners[2];
  for (int i = 0; i < 2; i++) must(electret_learner_begin(rooms[i], needed, file, file_bytes, &lesson, &learners[i], &error));
  for (int i = 0; i < 4; i++) must(electret_learner_learn(learners[0], &examples[i], NULL, &error));
  must(electret_learner_step(learners[0], NULL, &error));
  size_t state_bytes;
  electret_learner_state(learners[0], NULL, 0, &state_bytes, &error);
  unsigned char *state = memory(state_bytes);
  must(electret_learner_state(learners[0], state, state_bytes, &state_bytes, &error));
  must(electret_learner_restore(learners[1], state, state_bytes, &error));
  float losses[2];
  for (int i = 0; i < 2; i++) must(electret_learner_learn(learners[i], &examples[4], &losses[i], &error));
  if (bits(losses[0]) != bits(losses[1])) return 5;

  free(file), free(room), free(rooms[0]), free(rooms[1]), free(adapter), free(state);
  return 0;
}
