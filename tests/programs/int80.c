// Calls of the 32-bit table by a 64-bit program: they see the lower halves of registers.
// The first argument is a file to be looked at.
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static long int80(long number, long a, long b, long c)
{
	long result;

	__asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c) : "memory", "r8", "r9", "r10", "r11");
	return result;
}

static int expect(const char *name, long result, long wanted)
{
	if (result == wanted)
		return 0;
	printf("%s: %ld, not %ld\n", name, result, wanted);
	return 1;
}

int main(int argc, char **argv)
{
	char *low = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	const long garbage = 0x5a5a5a5a00000000;
	struct stat status;
	uint64_t size;
	int wrong = 0;
	long fd;

	if (argc < 2 || low == MAP_FAILED || stat(argv[1], &status) != 0)
		return 2;
	strcpy(low, argv[1]);
	wrong |= expect("getpid", int80(20, 0, 0, 0), getpid());
	wrong |= expect("getuid32", int80(199, 0, 0, 0), getuid());
	wrong |= expect("stat64", int80(195, (long)low | garbage, (long)(low + 4096) | garbage, 0), 0);
	memcpy(&size, low + 4096 + 44, sizeof size);
	wrong |= expect("size", (long)size, status.st_size);
	fd = int80(5, (long)low | garbage, O_RDONLY | 0100000 | garbage, 0);
	wrong |= expect("open", fd >= 0, 1);
	wrong |= expect("fstat64", int80(197, fd | garbage, (long)(low + 4096), 0), 0);
	wrong |= expect("read", int80(3, fd, (long)low, 1), 1);
	wrong |= expect("open of an address that is out of reach", int80(5, (long)argv[1], 0, 0), -EFAULT);
	wrong |= expect("open of a missing file", int80(5, (long)strcpy(low, "missing"), 0, 0), -ENOENT);
	wrong |= expect("mkdir", int80(39, (long)strcpy(low, "made"), 0755, 0), 0);
	wrong |= expect("stat", stat("made", &status), 0);
	wrong |= expect("vm86old", int80(113, 0, 0, 0), -ENOSYS);
	// What 123 means to the other entry.
	wrong |= expect("modify_ldt", int80(123, 0, (long)low, 0), 0);
	if (!wrong)
		puts("by its own table");
	return wrong;
}
