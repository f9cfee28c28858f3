// File calls under a storm of restarting signals: each must happen exactly once.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

static volatile sig_atomic_t signals;

static void on_signal(int signal)
{
	(void)signal;
	signals++;
}

static int fails(const char *what, int number)
{
	printf("%s %d: %s\n", what, number, strerror(errno));
	return 1;
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
	struct itimerval often = { .it_value = { .tv_usec = 200 }, .it_interval = { .tv_usec = 200 } };
	struct itimerval never = { 0 };
	int only_mkdir = argc > 1 && strcmp(argv[1], "mkdir") == 0;
	struct stat status;

	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &often, NULL);
	for (int i = 0; i < 3000 || (signals < 50 && i < 200000); i++) {
		int fd;

		if (mkdir("dir", 0700) != 0)
			return fails("mkdir", i);
		if (rmdir("dir") != 0)
			return fails("rmdir", i);
		if (only_mkdir)
			continue;
		if ((fd = open("file", O_CREAT | O_EXCL | O_RDWR, 0600)) < 0)
			return fails("open", i);
		if (link("file", "link") != 0)
			return fails("link", i);
		if (rename("link", "new") != 0)
			return fails("rename", i);
		if (fstat(fd, &status) != 0 || status.st_nlink != 2)
			return fails("fstat", i);
		close(fd);
		if (unlink("file") != 0 || unlink("new") != 0)
			return fails("unlink", i);
	}
	setitimer(ITIMER_REAL, &never, NULL);
	puts("nothing lost");
	return 0;
}
