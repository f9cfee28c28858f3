// Programs of either kind started by a 32-bit one.
#include "facts.h"
#include <fcntl.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>

extern char **environ;

static const char *self;

// Reads what a child writes, and expects it to end well.
static void expect_output(pid_t child, int from, const char *wanted)
{
	char buffer[512] = "";
	size_t length = 0;
	ssize_t got;
	int status;

	while ((got = read(from, buffer + length, sizeof buffer - 1 - length)) > 0)
		length += got;
	CHECK(waitpid(child, &status, 0) == child);
	if (strcmp(buffer, wanted) != 0 || status != 0) {
		fprintf(stderr, "status %#x, written: %s\n", status, buffer);
		exit(1);
	}
}

static void expect_exec(const char *path, char *const *arguments, char *const *environment, const char *wanted)
{
	int ends[2];
	pid_t child;

	CHECK(pipe(ends) == 0);
	child = fork();
	CHECK(child >= 0);
	if (child == 0) {
		dup2(ends[1], 1);
		close(ends[0]);
		close(ends[1]);
		execve(path, arguments, environment);
		perror(path);
		_exit(127);
	}
	close(ends[1]);
	expect_output(child, ends[0], wanted);
	close(ends[0]);
}

static void copy(const char *from, const char *to, mode_t mode)
{
	char buffer[65536];
	int in = open(from, O_RDONLY | O_LARGEFILE), out = open(to, O_CREAT | O_EXCL | O_WRONLY, mode);
	ssize_t got;

	CHECK(in >= 0 && out >= 0);
	while ((got = read(in, buffer, sizeof buffer)) > 0)
		CHECK(write(out, buffer, got) == got);
	CHECK(got == 0 && close(in) == 0 && close(out) == 0);
}

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0755);

	CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text) && close(fd) == 0);
}

static void nothing_is_asked(void)
{
}

static void programs_of_64_bits_run_and_return(void)
{
	char *arguments[] = { "sh", "-c", "echo $X $#; exec \"$0\" nothing_is_asked", (char *)self, "a", "b c", NULL };
	char *environment[] = { "X=y", "Y=z", NULL };

	expect_exec("/bin/sh", arguments, environment, "y 2\nso it is\n");
}

static void copies_of_programs_run(void)
{
	char *arguments[] = { "copy", "nothing_is_asked", NULL };
	char *missing[] = { "copy", "none", NULL };
	int ends[2], status;
	pid_t child;

	copy(self, "copy", 0755);
	expect_exec("./copy", arguments, environ, "so it is\n");
	// It fails in its own way only if its arguments have come.
	CHECK(pipe(ends) == 0 && (child = fork()) >= 0);
	if (child == 0) {
		close(2);
		execv("./copy", missing);
		_exit(127);
	}
	CHECK(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 2);
}

static void scripts_run(void)
{
	char *arguments[] = { "./script", "first", "second argument", NULL };

	write_file("script", "#!/bin/sh -e\necho \"$0|$1|$2|$#\"\n");
	expect_exec("./script", arguments, environ, "./script|first|second argument|2\n");
	copy(self, "copy", 0755);
	write_file("own", "#!./copy nothing_is_asked\n");
	expect_exec("./own", arguments, environ, "so it is\n");
}

static void open_programs_run(void)
{
	char *arguments[] = { "copy", "nothing_is_asked", NULL };
	int ends[2], fd;
	pid_t child;

	copy(self, "copy", 0755);
	CHECK(pipe(ends) == 0 && (fd = open("copy", O_RDONLY | O_CLOEXEC)) >= 0 && (child = fork()) >= 0);
	if (child == 0) {
		dup2(ends[1], 1);
		syscall(SYS_execveat, fd, "", arguments, environ, AT_EMPTY_PATH);
		_exit(127);
	}
	close(ends[1]);
	expect_output(child, ends[0], "so it is\n");
}

static void spawned_programs_run(void)
{
	char *arguments[] = { "true", NULL }, *of_copy[] = { "copy", "nothing_is_asked", NULL };
	int status, null = open("/dev/null", O_WRONLY);
	posix_spawn_file_actions_t actions;
	pid_t child;

	copy(self, "copy", 0755);
	CHECK(posix_spawn_file_actions_init(&actions) == 0 && posix_spawn_file_actions_adddup2(&actions, null, 1) == 0);
	for (int i = 0; i < 10; i++) {
		CHECK(posix_spawn(&child, "/bin/true", NULL, NULL, arguments, environ) == 0);
		CHECK(waitpid(child, &status, 0) == child && status == 0);
		CHECK(posix_spawn(&child, "./copy", &actions, NULL, of_copy, environ) == 0);
		CHECK(waitpid(child, &status, 0) == child && status == 0);
	}
	CHECK(posix_spawn(&child, "./missing", NULL, NULL, arguments, environ) == ENOENT);
}

static void what_cannot_run_is_told(void)
{
	char *arguments[] = { "x", NULL };

	FAILS(ENOENT, syscall(SYS_execve, "./missing", arguments, environ));
	FAILS(EACCES, syscall(SYS_execve, "/etc/passwd", arguments, environ));
	FAILS(EACCES, syscall(SYS_execve, "/etc", arguments, environ));
	write_file("text", "no format\n");
	FAILS(ENOEXEC, syscall(SYS_execve, "./text", arguments, environ));
	write_file("script", "#!./missing\n");
	FAILS(ENOENT, syscall(SYS_execve, "./script", arguments, environ));
	FAILS(EFAULT, syscall(SYS_execve, 8, arguments, environ));
	FAILS(EFAULT, syscall(SYS_execve, "/bin/true", 8, environ));
}

static void many_arguments_are_passed(void)
{
	enum { COUNT = 5000 };
	char *arguments[COUNT + 5] = { "sh", "-c", "echo $# $1 ${4999}", "sh" };
	char numbers[COUNT][8];

	for (int i = 0; i < COUNT; i++) {
		snprintf(numbers[i], sizeof numbers[i], "%d", i + 1);
		arguments[i + 4] = numbers[i];
	}
	expect_exec("/bin/sh", arguments, environ, "5000 1 4999\n");
}

static void the_process_shows_its_program(void)
{
	char text[4096] = "", *name;
	ssize_t length = readlink("/proc/self/exe", text, sizeof text - 1);

	CHECK(length > 0);
	name = strrchr(text, '/');
	CHECK(name && strcmp(name, strrchr(self, '/')) == 0);
}

static const struct fact facts[] = {
	{ "nothing_is_asked", nothing_is_asked },
	{ "programs_of_64_bits_run_and_return", programs_of_64_bits_run_and_return },
	{ "copies_of_programs_run", copies_of_programs_run },
	{ "scripts_run", scripts_run },
	{ "open_programs_run", open_programs_run },
	{ "spawned_programs_run", spawned_programs_run },
	{ "what_cannot_run_is_told", what_cannot_run_is_told },
	{ "many_arguments_are_passed", many_arguments_are_passed },
	{ "the_process_shows_its_program", the_process_shows_its_program },
	{ NULL, NULL },
};

int main(int argc, char **argv)
{
	self = argv[0];
	return check_fact(facts, argc, argv);
}
