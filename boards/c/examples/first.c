#include <stdio.h>
#include "electret.h"

int main(int count, char **arguments) {
  (void)count; // ours are: a model file, and a folder to keep what is learned
  electret_error error;
  electret_model model, mine;
  if (electret_model_open(arguments[1], &model, &error)) return puts(error.message), 1;

  const char *text = "He opened the door and walked table the room.";
  electret_detection found[128];
  size_t tokens;
  if (electret_model_detect(model, text, ELECTRET_NUL_TERMINATED, false, found, 128, &tokens, &error)) return puts(error.message), 1;
  for (size_t i = 0; i < tokens; i++)
    if (found[i].replaced > 0.5f) printf("%.*s does not belong\n", (int)(found[i].end - found[i].start), text + found[i].start);

  const char *labels[] = {"question", "statement"};
  electret_lesson lesson = {.kind = ELECTRET_KIND_CLASSIFY, .labels = labels, .label_count = 2};
  electret_example examples[] = {
      {.text = "where is the house?", .text_bytes = ELECTRET_NUL_TERMINATED, .labels = (uint16_t[]){0}, .label_count = 1},
      {.text = "the house is here.", .text_bytes = ELECTRET_NUL_TERMINATED, .labels = (uint16_t[]){1}, .label_count = 1}};
  electret_tuner tuner;
  float p[2];
  if (electret_tuner_open(model, &lesson, arguments[2], &tuner, &error) || electret_tuner_learn(tuner, examples, 2, 20, NULL, NULL, NULL, &error) ||
      electret_tuner_save(tuner, &error) || electret_model_with_adapter_of(model, arguments[2], &mine, &error) ||
      electret_model_classify(mine, "where is the dog?", ELECTRET_NUL_TERMINATED, NULL, 0, false, p, 2, &tokens, &error)) return puts(error.message), 1;
  return printf("a question: %.2f\n", p[0]), 0;
}
