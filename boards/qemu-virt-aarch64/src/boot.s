// From reset to main: NEON, a painted stack, empty variables, caches and the MMU.
.section .text.boot, "ax"
.global _start
_start:
    mov x0, #(3 << 20)              // CPACR_EL1.FPEN: NEON traps nowhere
    msr cpacr_el1, x0
    adr x0, vectors
    msr vbar_el1, x0
    isb

    ldr x0, =_stack_end
    ldr x1, =_stack_start
    ldr w2, =0xcccccccc
1:  str w2, [x0], #4
    cmp x0, x1
    b.lo 1b
    mov sp, x1

    ldr x0, =_bss_start
    ldr x1, =_bss_end
2:  str xzr, [x0], #8
    cmp x0, x1
    b.lo 2b

    // Two blocks of 1 GiB, each where it is: devices, not to be executed, and memory.
    ldr x0, =table
    ldr x1, =0x0060000000000401     // PXN, UXN, accessed, MAIR 0
    str x1, [x0]
    ldr x1, =0x0000000040000705     // accessed, inner shareable, MAIR 1
    str x1, [x0, #8]
    mov x1, #0xff00                 // MAIR 0: Device-nGnRnE, 1: Normal, write-back
    msr mair_el1, x1
    ldr x1, =0x0000000100803519     // T0SZ 25, write-back inner-shareable walks, no TTBR1, 36-bit addresses
    msr tcr_el1, x1
    msr ttbr0_el1, x0
    dsb sy
    isb
    mrs x1, sctlr_el1
    mov x2, #0x1005                 // instruction cache, data cache, MMU
    orr x1, x1, x2
    msr sctlr_el1, x1
    isb
    bl main
3:  wfe
    b 3b

.balign 2048
vectors:
.rept 16
    .balign 128
    b exception
.endr

.section .bss.table, "aw", @nobits
.balign 4096
table:
    .skip 4096
