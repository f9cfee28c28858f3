// Processes that are numbered anew. `pids WHAT`; says what is wrong and fails, or says nothing.
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(condition) \
	do { \
		if (!(condition)) { \
			fprintf(stderr, "%s:%d: %s (errno %d: %s)\n", __FILE__, __LINE__, #condition, errno, strerror(errno)); \
			_exit(1); \
		} \
	} while (0)

static pid_t outside;

static void succeeds(pid_t pid)
{
	int status;

	CHECK(pid > 0);
	CHECK(waitpid(pid, &status, 0) == pid);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* Runs a function as the init of a new namespace. */
static void as_init(void (*function)(void))
{
	pid_t pid;

	pid_t own = getpid();

	if (outside == 0)
		outside = own;
	CHECK(unshare(CLONE_NEWPID) == 0);
	CHECK(getpid() == own);
	if ((pid = fork()) == 0) {
		function();
		_exit(0);
	}
	succeeds(pid);
}

static void numbers(void)
{
	pid_t pid, own;

	CHECK(getpid() == 1 && syscall(SYS_gettid) == 1 && getppid() == 0);
	CHECK(setpgid(0, 0) == 0 && getpgrp() == 1 && getpgid(0) == 1 && getpgid(1) == 1);
	if ((pid = fork()) == 0) {
		CHECK(getpid() > 1 && getppid() == 1 && getpgrp() == 1 && getpgid(1) == 1);
		own = getpid();
		CHECK(setsid() == own && getsid(0) == own);
		CHECK(getpgid(outside) == -1 && errno == ESRCH);
		CHECK(kill(outside, 0) == -1 && errno == ESRCH);
		CHECK(kill(1, 0) == 0);
		CHECK(getpriority(PRIO_PROCESS, 1) == getpriority(PRIO_PROCESS, 0));
		CHECK(sched_getscheduler(1) == SCHED_OTHER);
		CHECK(sched_getscheduler(outside) == -1 && errno == ESRCH);
		CHECK(syscall(SYS_pidfd_open, 1, 0) >= 0);
		CHECK(syscall(SYS_pidfd_open, outside, 0) == -1 && errno == ESRCH);
		_exit(0);
	}
	succeeds(pid);
	if ((pid = vfork()) == 0)
		_exit(getppid() == 1 ? 0 : 1);
	succeeds(pid);
	CHECK(setsid() == -1 && errno == EPERM);
}

static void session(void)
{
	CHECK(setsid() == 1 && getsid(0) == 1 && getpgrp() == 1);
}

static void orphans(void)
{
	int status, number = 0, reaper;
	pid_t pid;

	CHECK(prctl(PR_GET_CHILD_SUBREAPER, &reaper) == 0 && reaper == 0);
	if ((pid = fork()) == 0) {
		pid_t parent = getpid();

		if (fork() == 0) {
			while (getppid() == parent)
				sched_yield();
			_exit(getppid() == 1 ? 9 : 1);
		}
		_exit(8);
	}
	for (int i = 0; i < 2; i++) {
		CHECK(wait(&status) > 0);
		CHECK(WIFEXITED(status));
		number += WEXITSTATUS(status);
	}
	CHECK(number == 17);
	CHECK(wait(&status) == -1 && errno == ECHILD);
}

static volatile sig_atomic_t taken;

static void take(int signal)
{
	taken = signal;
}

static void signals(void)
{
	pid_t pid;

	/* Without a handler nothing reaches an init from inside, its own signals included. */
	CHECK(kill(1, SIGTERM) == 0 && kill(getpid(), SIGKILL) == 0 && raise(SIGINT) == 0 && kill(1, SIGSTOP) == 0);
	if ((pid = fork()) == 0)
		_exit(kill(1, SIGKILL) == 0 && kill(getppid(), SIGHUP) == 0 ? 0 : 1);
	succeeds(pid);
	CHECK(signal(SIGUSR1, take) != SIG_ERR);
	CHECK(kill(1, SIGUSR1) == 0);
	CHECK(taken == SIGUSR1);
	taken = 0;
	CHECK(raise(SIGUSR1) == 0);
	CHECK(taken == SIGUSR1);
	CHECK(kill(1, 65) == -1 && errno == EINVAL);
}

static void all(void)
{
	int status, ends[2];
	pid_t pid;
	char byte;

	CHECK(kill(-1, SIGKILL) == -1 && errno == ESRCH);
	CHECK(pipe(ends) == 0);
	if ((pid = fork()) == 0) {
		CHECK(write(ends[1], "x", 1) == 1);
		for (;;)
			pause();
	}
	CHECK(read(ends[0], &byte, 1) == 1);
	CHECK(kill(-1, SIGKILL) == 0);
	CHECK(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

/* The experiments of the notes on pid_namespaces(7). */
static void experiments(void)
{
	pid_t pid;

	CHECK(unshare(CLONE_NEWPID) == 0);
	CHECK(unshare(CLONE_NEWPID) == -1 && errno == EINVAL);
	CHECK(syscall(SYS_clone, CLONE_NEWPID | SIGCHLD, 0, 0, 0, 0) == -1 && errno == EINVAL);
	if ((pid = fork()) == 0)
		_exit(getpid() == 1 ? 0 : 1);
	succeeds(pid);
	CHECK(fork() == -1 && errno == ENOMEM);
	CHECK(vfork() == -1 && errno == ENOMEM);
}

/* What begins as an init by clone. */
static void cloned(void)
{
	pid_t pid = (pid_t)syscall(SYS_clone, CLONE_NEWPID | SIGCHLD, 0, 0, 0, 0);

	if (pid == 0)
		_exit(getpid() == 1 && getppid() == 0 ? 0 : 1);
	succeeds(pid);
	/* The caller's children are where it is. */
	if ((pid = fork()) == 0)
		_exit(getpid() != 1 ? 0 : 1);
	succeeds(pid);
}

static void nested(void)
{
	pid_t pid;
	int status;

	if ((pid = fork()) == 0) {
		as_init(numbers);
		_exit(getpid() > 1 && getppid() == 1 ? 0 : 1);
	}
	succeeds(pid);
	/* Seen from around it, an inner init has a number, and takes SIGKILL. */
	CHECK(unshare(CLONE_NEWPID) == 0);
	if ((pid = fork()) == 0) {
		for (;;)
			pause();
	}
	CHECK(pid > 1 && kill(pid, SIGTERM) == 0 && kill(pid, SIGKILL) == 0);
	CHECK(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	static const struct {
		const char *name;
		void (*function)(void);
	} inside[] = {
		{ "numbers", numbers }, { "session", session }, { "orphans", orphans },
		{ "signals", signals }, { "all", all }, { "nested", nested },
	};

	if (strcmp(what, "experiments") == 0) {
		experiments();
		return 0;
	}
	if (strcmp(what, "cloned") == 0) {
		cloned();
		return 0;
	}
	for (unsigned i = 0; i < sizeof inside / sizeof *inside; i++) {
		if (strcmp(what, inside[i].name) == 0) {
			as_init(inside[i].function);
			return 0;
		}
	}
	CHECK(!"a known name");
}
