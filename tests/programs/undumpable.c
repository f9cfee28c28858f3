// Does, undumpable, what needs a supervisor to read its memory.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static int work(void)
{
	struct stat status;

	return mkdir("dir", 0700) == 0 && open("dir/file", O_CREAT | O_RDWR, 0600) >= 0 && stat("dir/file", &status) == 0
		&& rename("dir/file", "dir/new") == 0 && unlink("dir/new") == 0 && rmdir("dir") == 0;
}

int main(void)
{
	if (prctl(PR_GET_DUMPABLE) != 1)
		puts("not dumpable from the start");
	if (prctl(PR_SET_DUMPABLE, 0) != 0 || prctl(PR_GET_DUMPABLE) != 0)
		puts("still dumpable");
	if (prctl(PR_SET_DUMPABLE, 7) != -1 || errno != EINVAL)
		puts("a senseless value is taken");
	if (!work())
		puts("no work");
	if (fork() == 0) {
		/* The child inherits it, and a new program is dumpable again. */
		_exit(prctl(PR_GET_DUMPABLE) == 0 && work() ? 0 : 1);
	}
	int status;

	wait(&status);
	puts(status == 0 ? "works undumpable" : "the child does not work");
	return 0;
}
