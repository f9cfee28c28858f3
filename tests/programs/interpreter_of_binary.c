// Says what the auxiliary vector tells an interpreter of a foreign format, and reads the program by its descriptor.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	char text[64] = "";
	int fd;

	errno = 0;
	fd = (int)getauxval(AT_EXECFD);
	printf("%d arguments, last %s, flags %lu,", argc - 1, argv[argc - 1], getauxval(AT_FLAGS));
	if (errno == ENOENT) {
		puts(" no descriptor");
		return 0;
	}
	if (pread(fd, text, sizeof text - 1, 0) < 0)
		return 1;
	printf(" close-on-exec %d, reads %s\n", fcntl(fd, F_GETFD), text);
	return 0;
}
