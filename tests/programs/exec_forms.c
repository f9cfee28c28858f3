// Starts this program again in the way the first argument says; the new image prints its argument.
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static char *again[] = { "exec_forms", "print", "argument from the form", NULL };

static int is(const char *one, const char *two)
{
	return strcmp(one, two) == 0;
}

static int wait_for(pid_t pid)
{
	int status;

	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return 1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* The interpreter gets /dev/fd/N, so the descriptor must stay open. */
static void script_by_descriptor(void)
{
	static const char text[] = "#!/bin/sh\necho \"$1\"\n";
	char *args[] = { "script", "argument from the form", NULL };
	int fd = open("script.by.fd", O_CREAT | O_WRONLY | O_TRUNC, 0700);

	if (fd < 0 || write(fd, text, sizeof text - 1) < 0)
		exit(1);
	close(fd);
	syscall(SYS_execveat, open("script.by.fd", O_RDONLY), "", args, environ, AT_EMPTY_PATH);
}

static void from_memory(const char *self)
{
	int from = open(self, O_RDONLY);
	int to = memfd_create("program", MFD_CLOEXEC);
	struct stat status;

	fstat(from, &status);
	while (sendfile(to, from, NULL, (size_t)status.st_size) > 0)
		;
	fexecve(to, again, environ);
}

static int refused(long result, int error)
{
	if (result == -1 && errno == error)
		return 0;
	printf("%ld, %s, not %s\n", result, strerror(errno), strerror(error));
	return 1;
}

static int errors(void)
{
	int wrong = 0;
	int closing = open("script.closing", O_CREAT | O_RDWR, 0700);

	if (write(closing, "#!/bin/sh\n", 10) != 10)
		return 1;
	close(closing);
	closing = open("script.closing", O_RDONLY | O_CLOEXEC);
	/* A script behind a descriptor that exec closes cannot be found by its interpreter. */
	wrong |= refused(syscall(SYS_execveat, closing, "", again, environ, AT_EMPTY_PATH), ENOENT);
	wrong |= refused(syscall(SYS_execveat, AT_FDCWD, "/bin/true", again, environ, 0x40000000), EINVAL);
	wrong |= refused(syscall(SYS_execveat, 999, "x", again, environ, 0), EBADF);
	wrong |= refused(syscall(SYS_execveat, AT_FDCWD, "", again, environ, 0), ENOENT);
	unlink("link");
	if (symlink("/bin/true", "link") != 0)
		return 1;
	wrong |= refused(syscall(SYS_execveat, AT_FDCWD, "link", again, environ, AT_SYMLINK_NOFOLLOW), ELOOP);
	if (!wrong)
		puts("refused as they should be");
	return wrong;
}

int main(int argc, char **argv)
{
	const char *form = argc > 1 ? argv[1] : "";
	const char *self = "/proc/self/exe";
	char path[4096];
	ssize_t length = readlink(self, path, sizeof path - 1);
	pid_t pid;

	if (length < 0)
		return 1;
	path[length] = 0;
	if (is(form, "print")) {
		puts(argv[2]);
		return 0;
	} else if (is(form, "execve")) {
		execve(path, again, environ);
	} else if (is(form, "execveat")) {
		char *base = strrchr(path, '/');
		int dir;

		*base = 0;
		dir = open(path, O_PATH | O_DIRECTORY);
		syscall(SYS_execveat, dir, base + 1, again, environ, 0);
	} else if (is(form, "fexecve")) {
		fexecve(open(path, O_RDONLY | O_CLOEXEC), again, environ);
	} else if (is(form, "at-empty-path")) {
		syscall(SYS_execveat, open(path, O_PATH), "", again, environ, AT_EMPTY_PATH);
	} else if (is(form, "script-by-fd")) {
		script_by_descriptor();
	} else if (is(form, "memfd")) {
		from_memory(path);
	} else if (is(form, "vfork")) {
		pid = vfork();
		if (pid == 0) {
			execve(path, again, environ);
			_exit(127);
		}
		return wait_for(pid);
	} else if (is(form, "posix_spawn")) {
		if (posix_spawn(&pid, path, NULL, NULL, again, environ) != 0)
			return 1;
		return wait_for(pid);
	} else if (is(form, "errors")) {
		return errors();
	}
	perror(form);
	return 1;
}
