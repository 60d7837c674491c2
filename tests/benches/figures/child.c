/* Says hello by one byte through the FIFO that its argument names, if there is one, and does nothing until a
   signal ends it. It has no C library, so that what is measured is not the start of the child. */
#include <asm/unistd.h>

#define AT_FDCWD (-100)
#define O_WRONLY 1

#if defined(__x86_64__)
__asm__(".globl _start\n_start:\n\txor %ebp, %ebp\n\tmov %rsp, %rdi\n\tand $-16, %rsp\n\tcall run\n");

static long call(long number, long a, long b, long c, long d, long e)
{
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
                     : "rcx", "r11", "memory");
    return result;
}
#elif defined(__aarch64__)
__asm__(".globl _start\n_start:\n\tmov x29, xzr\n\tmov x0, sp\n\tbl run\n");

static long call(long number, long a, long b, long c, long d, long e)
{
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    __asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
    return x0;
}
#else
#error "the child of the benchmarks is written for x86_64 and aarch64; add the system call of this processor"
#endif

void run(long *stack)
{
    if (stack[0] > 1) {
        long fifo = call(__NR_openat, AT_FDCWD, stack[2], O_WRONLY, 0, 0);
        if (fifo < 0 || call(__NR_write, fifo, (long)"!", 1, 0, 0) != 1)
            call(__NR_exit_group, 1, 0, 0, 0, 0);
        call(__NR_close, fifo, 0, 0, 0, 0);
    }
    for (;;)
        call(__NR_ppoll, 0, 0, 0, 0, 0);
}
