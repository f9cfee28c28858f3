// Ways into the kernel that a view keeps shut: each must answer ENOSYS, whatever is asked.
// Prints "refused", or what came through.
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define X32 0x40000000

static int expect(const char *name, long result, long wanted)
{
	if (result == wanted)
		return 0;
	printf("%s: %ld\n", name, result);
	return 1;
}

int main(int argc, char **argv)
{
	char *low = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	int wrong = 0;

	strcpy(low, "/etc/passwd");
	if (argc > 1 && strcmp(argv[1], "x32") == 0) {
		wrong |= expect("x32 open", syscall(X32 | SYS_open, low, 0), -1) || errno != ENOSYS;
		wrong |= expect("x32 openat", syscall(X32 | SYS_openat, -100, low, 0), -1) || errno != ENOSYS;
		wrong |= expect("x32 getpid", syscall(X32 | SYS_getpid), -1) || errno != ENOSYS;
		wrong |= expect("x32 execve", syscall(X32 | 520, low, NULL, NULL), -1) || errno != ENOSYS;
	} else {
		wrong |= expect("io_uring_setup", syscall(SYS_io_uring_setup, 8, low), -1) || errno != ENOSYS;
		wrong |= expect("io_uring_enter", syscall(SYS_io_uring_enter, 0, 0, 0, 0, NULL), -1) || errno != ENOSYS;
		wrong |= expect("io_uring_register", syscall(SYS_io_uring_register, 0, 0, NULL, 0), -1) || errno != ENOSYS;
		wrong |= expect("an unknown call", syscall(1000), -1) || errno != ENOSYS;
	}
	if (!wrong)
		puts("refused");
	return wrong;
}
