/* A QEMU plugin (plugin interface 1) that counts the instructions a guest executes, and among them
 * those that multiply 8-bit integers. */
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

struct block;
struct instruction;
size_t qemu_plugin_tb_n_insns(const struct block *);
struct instruction *qemu_plugin_tb_get_insn(const struct block *, size_t);
const void *qemu_plugin_insn_data(const struct instruction *);
void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t, void (*)(uint64_t, struct block *));
void qemu_plugin_register_vcpu_insn_exec_inline(struct instruction *, int, void *, uint64_t);
void qemu_plugin_register_atexit_cb(uint64_t, void (*)(uint64_t, void *), void *);
void qemu_plugin_outs(const char *);

int qemu_plugin_version = 1;

static uint64_t all, products;

static int multiplies(uint32_t word) {
  const uint32_t three_registers = word & 0xffe0fc00;
  return three_registers == 0x4e809400     /* sdot  v.4s, v.16b, v.16b */
         || three_registers == 0x4e80a400  /* smmla v.4s, v.16b, v.16b */
         || (three_registers & 0xbfffffff) == 0x0e20c000  /* smull(2) v.8h, v.8b, v.8b */
         || (three_registers & 0xbfffffff) == 0x0e208000; /* smlal(2) v.8h, v.8b, v.8b */
}

static void translated(uint64_t id, struct block *block) {
  (void)id;
  for (size_t i = 0, n = qemu_plugin_tb_n_insns(block); i < n; i++) {
    struct instruction *instruction = qemu_plugin_tb_get_insn(block, i);
    uint32_t word;
    memcpy(&word, qemu_plugin_insn_data(instruction), sizeof word);
    qemu_plugin_register_vcpu_insn_exec_inline(instruction, 0 /* add */, &all, 1);
    if (multiplies(word))
      qemu_plugin_register_vcpu_insn_exec_inline(instruction, 0, &products, 1);
  }
}

static void report(uint64_t id, void *unused) {
  (void)id, (void)unused;
  char line[80];
  snprintf(line, sizeof line, "counted %" PRIu64 " %" PRIu64 "\n", all, products);
  qemu_plugin_outs(line);
}

int qemu_plugin_install(uint64_t id, const void *info, int argc, char **argv) {
  (void)info, (void)argc, (void)argv;
  qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
  qemu_plugin_register_atexit_cb(id, report, NULL);
  return 0;
}
