#include <stdio.h>
#include <stdlib.h>
#include "electret.h"
static electret_error error;
static void must(electret_status status) { if (status) puts(error.message), exit(1); }

int main(int count, char **arguments) { // a model file, and a folder to keep what is learned
  if (count != 3) return 2;
  electret_model model, mine;
  electret_tuner tuner;
  electret_detection found[128];
  float probabilities[2];
  size_t tokens, nul = ELECTRET_NUL_TERMINATED;
  const char *text = "He opened the door and walked table the room.";
  must(electret_model_open(arguments[1], &model, &error));
  must(electret_model_detect(model, text, nul, false, found, 128, &tokens, &error));
  for (electret_detection *word = found; word < found + tokens; word++)
    if (word->replaced > 0.5f) printf("%.*s does not belong\n", (int)(word->end - word->start), text + word->start);
  const char *labels[] = {"question", "statement"};
  electret_lesson lesson = {.kind = ELECTRET_KIND_CLASSIFY, .labels = labels, .label_count = 2};
  electret_example examples[] = {{"where is the house?", nul, .labels = (uint16_t[]){0}, .label_count = 1},
                                 {"the house is here.", nul, .labels = (uint16_t[]){1}, .label_count = 1}};
  must(electret_tuner_open(model, &lesson, arguments[2], &tuner, &error));
  must(electret_tuner_learn(tuner, examples, 2, 20, NULL, NULL, NULL, &error));
  must(electret_tuner_save(tuner, &error));
  must(electret_model_with_adapter_of(model, arguments[2], &mine, &error));
  must(electret_model_classify(mine, "where is the dog?", nul, NULL, 0, false, probabilities, 2, &tokens, &error));
  printf("a question: %.2f\n", probabilities[0]);
}
