// The sizes openat2(2) takes for its structure: fs/open.c, copy_struct_from_user.
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static long try(size_t size, unsigned char beyond)
{
	union {
		struct open_how how;
		unsigned char bytes[8192];
	} u;
	long fd;

	memset(&u, 0, sizeof u);
	u.bytes[sizeof u.how] = beyond;
	fd = syscall(SYS_openat2, AT_FDCWD, "/", &u, size);
	if (fd < 0)
		return errno;
	close(fd);
	return 0;
}

/* Unlike open(2), a mode nobody asked for, or with unknown bits, is an error. */
static long mode(unsigned long long flags, unsigned long long mode)
{
	struct open_how how = { .flags = flags, .mode = mode };
	long fd = syscall(SYS_openat2, AT_FDCWD, "how.new", &how, sizeof how);

	if (fd < 0)
		return errno;
	close(fd);
	return 0;
}

int main(void)
{
	int wrong = 0;

	wrong |= try(sizeof(struct open_how), 0) != 0;
	wrong |= (try(sizeof(struct open_how) - 1, 0) != EINVAL) << 1;
	wrong |= (try(0, 0) != EINVAL) << 2;
	wrong |= (try(sizeof(struct open_how) + 8, 0) != 0) << 3;
	wrong |= (try(sizeof(struct open_how) + 8, 1) != E2BIG) << 4;
	wrong |= (try(4096, 0) != 0) << 5;
	wrong |= (try(4097, 0) != E2BIG) << 6;
	wrong |= (mode(O_RDONLY, 0600) != EINVAL) << 7;
	wrong |= (mode(O_CREAT | O_WRONLY, 010000) != EINVAL) << 8;
	wrong |= (mode(O_CREAT | O_WRONLY, 0600) != 0) << 9;
	wrong |= (mode(1ULL << 40, 0) != EINVAL) << 10;
	if (wrong)
		printf("wrong: %#x\n", wrong);
	else
		puts("sizes checked");
	return wrong != 0;
}
